// A small line drawing of one series, complete without scripts; the numbers on it let the browser go on drawing (assets/overview.js).
import { formatDuration, formatNumber, sparkFrame, sparkHeight, sparkPoints, sparkWidth } from './format.ts'

interface SparklineProperties {
  readonly times: readonly number[]
  readonly values: readonly number[]
  readonly from: number
  readonly to: number
  /** What it may grow to; default: what is drawn. */
  readonly windowMs?: number
  readonly class?: string
  readonly id?: string
  /** Sets the drawing's floor, for what can't be negative. */
  readonly zero?: boolean
}

export function Sparkline({
  times,
  values,
  from,
  to,
  windowMs = to - from,
  class: name = '',
  id,
  zero = false,
}: SparklineProperties): JSX.Element {
  const whole = sparkFrame(values, from, to)
  const frame = zero ? { ...whole, min: 0, max: Math.max(whole.max, 1e-9) } : whole
  const said =
    values.length > 0
      ? `Last ${formatDuration(to - from)}: between ${formatNumber(Math.min(...values))} and ${formatNumber(Math.max(...values))}`
      : 'Nothing to draw yet'
  return (
    <svg
      class={`spark ${name}`}
      {...(id ? { id } : {})}
      viewBox={`0 0 ${sparkWidth} ${sparkHeight}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={said}
      data-from={frame.from}
      data-to={frame.to}
      data-window={windowMs}
      data-min={frame.min}
      data-max={frame.max}
    >
      <polyline points={sparkPoints(times, values, frame)} vector-effect="non-scaling-stroke" />
    </svg>
  )
}
