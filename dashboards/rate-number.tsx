// The first of a page's numbers: readings a second now, and their line over the last minutes. Goes on live (assets/stages.js).
import type { PipelineAnswer } from '../api/wire.ts'
import { formatRate, orDash } from './format.ts'
import { type RateHistory, rateHistoryMs } from './rate-history.ts'
import { Sparkline } from './sparkline.tsx'

interface RateNumberProperties {
  readonly stages: PipelineAnswer['stages']
  readonly rates: RateHistory
  readonly now: number
}

export function RateNumber({ stages, rates, now }: RateNumberProperties): JSX.Element {
  return (
    <div class="number wide">
      <h2>Readings a second</h2>
      <p class="big" data-number="rate" safe>
        {orDash(stages.received.perSecond, formatRate)}
      </p>
      <Sparkline {...rates.read(now)} from={now - rateHistoryMs} to={now} class="rate-spark" id="rate-spark" zero />
      <small>last 2 min</small>
    </div>
  )
}
