// Two minutes of readings a second, sampled once for all viewers, so that the first paint of the overview already has a line to show.
import type { Questions } from './ask.ts'

export const rateHistoryMs = 120_000
const everyMs = 2_000

export interface RateHistory {
  read(now: number): { times: number[]; values: number[] }
  start(): void
  stop(): void
}

export function createRateHistory(questions: Questions): RateHistory {
  const samples: { at: number; rate: number }[] = []
  let timer: NodeJS.Timeout | undefined
  let asking = false
  const sample = async (): Promise<void> => {
    if (asking) return
    asking = true
    const pipeline = await questions.pipeline()
    asking = false
    if (!pipeline.ok) return
    const { at, stages } = pipeline.value
    // What is not known leaves no mark.
    if (stages.received.perSecond === null) return
    samples.push({ at, rate: stages.received.perSecond })
    while (samples.length > 0 && samples[0]!.at < at - rateHistoryMs) samples.shift()
    if (samples.length > (2 * rateHistoryMs) / everyMs) samples.shift()
  }
  return {
    read(now) {
      const recent = samples.filter(({ at }) => at > now - rateHistoryMs && at <= now)
      return { times: recent.map(({ at }) => at), values: recent.map(({ rate }) => rate) }
    },
    start() {
      timer = setInterval(() => void sample(), everyMs)
      timer.unref()
    },
    stop() {
      clearInterval(timer)
    },
  }
}
