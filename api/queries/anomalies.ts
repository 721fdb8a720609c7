// What detectors found, by when it was observed.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { anomaliesTable, folded } from '../../storage/tables.ts'
import { catchUpSettings, instant, questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'

export interface AnomalyRow {
  readonly id: string
  readonly device: string
  readonly metric: string
  readonly observedMicros: Micros
  readonly value: number
  readonly score: number
  readonly detector: string
  readonly expectedLow: number
  readonly expectedHigh: number
  readonly explanation: string
  readonly evidence: string
}

export interface AnomaliesQuestion extends SeriesQuestion {
  readonly minScore: number
  readonly order: 'asc' | 'desc'
  readonly after?: { readonly observedAt: Micros; readonly id: string } | undefined
  readonly limit: number
}

const columns =
  'id, device, metric, toUnixTimestamp64Micro(observedAt) AS observedMicros, value, score, detector, expectedLow, expectedHigh, explanation, evidence'

export async function askAnomalies(
  clickhouse: ClickHouse,
  { minScore, order, after, limit, ...series }: AnomaliesQuestion,
  signal: AbortSignal,
): Promise<readonly AnomalyRow[]> {
  // The bound that the key gives narrows what is read; the key itself decides among anomalies of the same instant.
  const narrowed = !after
    ? series
    : order === 'asc'
      ? { ...series, from: Math.max(series.from, after.observedAt) }
      : { ...series, to: Math.min(series.to, after.observedAt + 1) }
  const condition = seriesCondition(narrowed)
  const beyond = after
    ? ` AND (toUnixTimestamp64Micro(observedAt), id) ${order === 'asc' ? '>' : '<'} ({afterObservedAt:Int64}, {afterId:String})`
    : ''
  const { rows } = await clickhouse.query<AnomalyRow>(
    `SELECT ${columns} FROM ${folded(anomaliesTable)}
     WHERE ${condition.sql} AND score >= {minScore:Float64}${beyond}
     ORDER BY observedAt ${order}, id ${order} LIMIT {limit:UInt32}`,
    {
      parameters: {
        ...condition.parameters,
        minScore,
        limit,
        ...(after && { afterObservedAt: after.observedAt, afterId: after.id }),
      },
      settings: questionSettings,
      signal,
    },
  )
  return rows
}

export interface ReceivedAnomaliesQuestion extends Omit<SeriesQuestion, 'from' | 'to'> {
  /** Out. */
  readonly past: Micros
  readonly after: { readonly receivedAt: Micros; readonly id: string } | undefined
  readonly limit: number
}

/** About readings that were received after an instant, by receivedAt: for a viewer that was away. */
export async function askReceivedAnomalies(
  clickhouse: ClickHouse,
  { past, after, limit, ...series }: ReceivedAnomaliesQuestion,
  signal: AbortSignal,
): Promise<readonly (AnomalyRow & { readonly receivedMicros: Micros })[]> {
  const condition = seriesCondition({ ...series, from: 0, to: Number.MAX_SAFE_INTEGER - 1 })
  const beyond = after
    ? ' AND (toUnixTimestamp64Micro(receivedAt), id) > ({afterReceivedAt:Int64}, {afterId:String})'
    : ''
  const { rows } = await clickhouse.query<AnomalyRow & { readonly receivedMicros: Micros }>(
    `SELECT ${columns}, toUnixTimestamp64Micro(receivedAt) AS receivedMicros FROM ${folded(anomaliesTable)}
     WHERE ${condition.sql} AND receivedAt > ${instant('past')}${beyond}
     ORDER BY receivedAt, id LIMIT {limit:UInt32}`,
    {
      parameters: {
        ...condition.parameters,
        past,
        limit,
        ...(after && { afterReceivedAt: after.receivedAt, afterId: after.id }),
      },
      settings: catchUpSettings,
      signal,
    },
  )
  return rows
}

export interface AnomalyCountsQuestion extends SeriesQuestion {
  readonly minScore: number
  /** The device after which the page begins. */
  readonly after: string | undefined
  readonly limit: number
}

/** By device; `total` over all of them. */
export async function askAnomalyCounts(
  clickhouse: ClickHouse,
  { minScore, after = '', limit, ...series }: AnomalyCountsQuestion,
  signal: AbortSignal,
): Promise<{ readonly total: number; readonly rows: readonly { readonly device: string; readonly count: number }[] }> {
  const condition = seriesCondition(series)
  const { rows } = await clickhouse.query<{ device: string; count: number; total: number }>(
    `SELECT * FROM (
       SELECT device, toFloat64(count()) AS count, sum(count) OVER () AS total FROM ${folded(anomaliesTable)}
       WHERE ${condition.sql} AND score >= {minScore:Float64} GROUP BY device)
     WHERE device > {after:String} ORDER BY device LIMIT {limit:UInt32}`,
    { parameters: { ...condition.parameters, minScore, after, limit }, settings: questionSettings, signal },
  )
  return { total: rows[0]?.total ?? 0, rows: rows.map(({ device, count }) => ({ device, count })) }
}
