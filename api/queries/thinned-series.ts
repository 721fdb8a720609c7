// Raw readings thinned out for drawing: as many as there are points, chosen so that the line keeps its look. `minmax` keeps the lowest and the
// highest of each span, `lttb` those that span the largest triangles (Steinarsson 2013).
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { folded, onlyNumbers, readingsTable } from '../../storage/tables.ts'
import type { Shape } from '../wire.ts'
import { questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'
import type { RawRow } from './raw-series.ts'

export type ThinningQuestion = SeriesQuestion & { readonly shape: Shape; readonly points: number }

export function askThinnedSeries(
  clickhouse: ClickHouse,
  question: ThinningQuestion,
  signal: AbortSignal,
): Promise<readonly RawRow[]> {
  return question.shape === 'lttb'
    ? askTriangles(clickhouse, question, signal)
    : askExtremes(clickhouse, question, signal)
}

async function askExtremes(
  clickhouse: ClickHouse,
  question: ThinningQuestion,
  signal: AbortSignal,
): Promise<readonly RawRow[]> {
  const condition = seriesCondition(question)
  const spanMicros = Math.max(
    1,
    Math.ceil((question.to - question.from) / Math.max(1, Math.floor(question.points / 2))),
  )
  const { rows } = await clickhouse.query<{
    readonly device: string
    readonly metric: string
    readonly lowest: number
    readonly lowestMicros: Micros
    readonly highest: number
    readonly highestMicros: Micros
  }>(
    `WITH toUnixTimestamp64Micro(observedAt) AS micros
     SELECT device, metric, intDiv(micros - {from:Int64}, {span:Int64}) AS span,
       min(value) AS lowest, argMin(micros, (value, micros)) AS lowestMicros,
       max(value) AS highest, argMax(micros, (value, micros)) AS highestMicros
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql} AND ${onlyNumbers}
     GROUP BY device, metric, span
     ORDER BY device, metric, span`,
    { parameters: { ...condition.parameters, span: spanMicros }, settings: questionSettings, signal },
  )
  return rows.flatMap(({ device, metric, ...row }) => {
    const low: RawRow = { device, metric, observedMicros: row.lowestMicros, value: row.lowest }
    const high: RawRow = { device, metric, observedMicros: row.highestMicros, value: row.highest }
    if (low.observedMicros === high.observedMicros) return [low]
    return low.observedMicros < high.observedMicros ? [low, high] : [high, low]
  })
}

async function askTriangles(
  clickhouse: ClickHouse,
  question: ThinningQuestion,
  signal: AbortSignal,
): Promise<readonly RawRow[]> {
  const condition = seriesCondition(question)
  // The number of points is a parameter of the aggregate function, which takes no bound one; it is a checked whole number.
  const points = Math.max(1, Math.trunc(question.points))
  const { rows } = await clickhouse.query<{
    readonly device: string
    readonly metric: string
    readonly picked: readonly (readonly [Micros, number])[]
  }>(
    `SELECT device, metric,
       largestTriangleThreeBuckets(${points})(toFloat64(toUnixTimestamp64Micro(observedAt)), value) AS picked
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql} AND ${onlyNumbers}
     GROUP BY device, metric
     ORDER BY device, metric`,
    { parameters: condition.parameters, settings: questionSettings, signal },
  )
  return rows.flatMap(({ device, metric, picked }) =>
    picked.map(([observedMicros, value]) => ({ device, metric, observedMicros, value })),
  )
}
