// One metric's chart: drawn by the server for the first paint and for readers without scripts, taken over by uPlot (assets/device.js) in its place.
import type { AnomalyAnswer, BucketSeries, RawSeries } from '../api/wire.ts'
import { formatNumber, isGap, isSwitch, pointsText, resolutionText, stepMs } from './format.ts'
import { Age, attribute } from './layout.tsx'

const width = 1000
const height = 200
const edge = 8
/** The newest are listed; all that came have a marker. */
const anomaliesListed = 5

export interface CardProperties {
  readonly metric: string
  readonly latest: { readonly observedAt: number; readonly value: number } | undefined
  readonly series: RawSeries | BucketSeries | undefined
  /** Newest first. */
  readonly anomalies: readonly AnomalyAnswer[]
  readonly resolution: string
  readonly source: string
  readonly from: number
  readonly to: number
  readonly now: number
  /** Which of the series colours. */
  readonly colour: number
}

export function ChartCard(card: CardProperties): JSX.Element {
  const { metric, latest, series, colour, resolution, source, now } = card
  const points = series?.observedAt.length ?? 0
  return (
    <section
      class={`panel chart c${colour % 6}`}
      data-metric={attribute(metric)}
      aria-label={attribute(metric || 'Chart')}
    >
      <header class="chart-head">
        <h2 data-part="name" safe>
          {metric}
        </h2>
        <p class="now">
          <b data-part="value" safe>
            {latest ? formatNumber(latest.value) : '–'}
          </b>{' '}
          <span data-part="age">{latest ? <Age at={latest.observedAt} now={now} ago /> : ''}</span>
        </p>
        <p class="readout" data-part="readout" aria-hidden="true" />
      </header>
      <div
        class="plot"
        data-part="plot"
        tabindex="0"
        role="application"
        aria-label={attribute(`Chart of ${metric}. Arrow keys move, plus and minus zoom, Escape goes back.`)}
      >
        {series && points > 0 ? <Drawing {...card} series={series} /> : <p class="none">No readings in this range.</p>}
      </div>
      <Anomalies anomalies={card.anomalies} />
      <footer class="chart-foot">
        <p data-part="caption" safe>
          {points > 0 ? captionText(resolution, source, points) : ''}
        </p>
        <details data-part="table" hidden>
          <summary>As a table</summary>
          <div class="scroll" data-part="rows" />
        </details>
      </footer>
    </section>
  )
}

/** What was found in this stretch of time, in words: a marker alone tells nothing to who can't see or hover. */
function Anomalies({ anomalies }: { anomalies: readonly AnomalyAnswer[] }): JSX.Element {
  return (
    <ul class="anomalies" data-part="anomalies" aria-label="Anomalies" hidden={anomalies.length === 0}>
      {anomalies.slice(0, anomaliesListed).map(({ id, observedAt, explanation }) => (
        <li data-id={attribute(id)}>
          <span class="when" safe>
            {minuteText(observedAt)}
          </span>{' '}
          <span safe>{explanation}</span>
        </li>
      ))}
    </ul>
  )
}

/** What a card looks like before it has anything: for metrics that the browser hears of first. */
export function CardTemplate(): JSX.Element {
  return (
    <template id="card">
      <ChartCard
        metric=""
        latest={undefined}
        series={undefined}
        anomalies={[]}
        resolution="raw"
        source="raw"
        from={0}
        to={1}
        now={0}
        colour={0}
      />
    </template>
  )
}

function captionText(resolution: string, source: string, points: number): string {
  const band = resolution === 'raw' ? '' : ': mean as a line, least to most as a band'
  return `${pointsText(points)}, ${resolutionText(resolution)}${band} · from ${source === 'raw' ? 'raw readings' : `the ${source} rollup`}`
}

function Drawing({
  series,
  anomalies,
  resolution,
  from,
  to,
  metric,
}: CardProperties & { series: RawSeries | BucketSeries }): JSX.Element {
  const times = series.observedAt
  const values = 'value' in series ? series.value : series.mean
  const lows = 'value' in series ? values : series.min
  const highs = 'value' in series ? values : series.max
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  for (const low of lows) if (low < min) min = low
  for (const high of highs) if (high > max) max = high
  const span = max - min || 1
  const x = (at: number): number => tenth(((at - from) / Math.max(to - from, 1)) * width)
  const y = (value: number): number => tenth(edge + (1 - (value - min) / span) * (height - 2 * edge))
  // Off or on holds until the next reading; a slope would show values in between that never were.
  const isHeld = isSwitch(lows) && isSwitch(highs)
  const runs = continuousRuns(times, stepMs(resolution))
  return (
    <div class="still">
      <svg
        viewBox={`0 0 ${width} ${height}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={attribute(
          `${metric}: ${pointsText(times.length)} between ${formatNumber(min)} and ${formatNumber(max)}`,
        )}
      >
        {runs.map(([first, end]) => {
          const line: string[] = []
          const band: string[] = []
          for (let i = first; i < end; i++) {
            if (isHeld && i > first) {
              line.push(`${x(times[i]!)},${y(values[i - 1]!)}`)
              band.push(`${x(times[i]!)},${y(highs[i - 1]!)}`)
            }
            line.push(`${x(times[i]!)},${y(values[i]!)}`)
            band.push(`${x(times[i]!)},${y(highs[i]!)}`)
          }
          for (let i = end - 1; i >= first; i--) {
            band.push(`${x(times[i]!)},${y(lows[i]!)}`)
            if (isHeld && i > first) band.push(`${x(times[i]!)},${y(lows[i - 1]!)}`)
          }
          // A lone point is drawn as a short dash, or it would not be seen.
          if (end - first === 1) line.push(`${x(times[first]!) + 2},${y(values[first]!)}`)
          return (
            <>
              {'min' in series && <polygon class="band" points={band.join(' ')} />}
              <polyline points={line.join(' ')} vector-effect="non-scaling-stroke" />
            </>
          )
        })}
        {anomalies.map(({ observedAt, explanation }) => (
          <line
            class="anomaly"
            x1={x(observedAt)}
            x2={x(observedAt)}
            y1="0"
            y2={height}
            vector-effect="non-scaling-stroke"
          >
            <title safe>{explanation}</title>
          </line>
        ))}
      </svg>
      <span class="y-max" safe>
        {formatNumber(max)}
      </span>
      <span class="y-min" safe>
        {formatNumber(min)}
      </span>
      <span class="x-from" safe>
        {minuteText(from)}
      </span>
      <span class="x-to" safe>
        {minuteText(to)}
      </span>
    </div>
  )
}

/** [first, end) of the stretches without a gap. */
function continuousRuns(times: readonly number[], step: number): [number, number][] {
  const runs: [number, number][] = []
  let first = 0
  for (let i = 1; i <= times.length; i++) {
    if (i < times.length && !isGap(times, i, step)) continue
    runs.push([first, i])
    first = i
  }
  return runs
}

/** In UTC: the server does not know the viewer's zone. */
export function minuteText(at: number): string {
  return new Date(at).toISOString().slice(0, 16).replace('T', ' ')
}

function tenth(value: number): number {
  return Math.round(value * 10) / 10
}
