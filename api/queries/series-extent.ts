// Which series hold number readings in a range, and about how many: what the resolution of a chart is chosen by.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { folded, onlyNumbers, readingsTable } from '../../storage/tables.ts'
import { questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'

export interface SeriesExtent {
  readonly device: string
  readonly metric: string
  /** An upper bound, unless folded: what was sent again counts until the store has merged it. */
  readonly readings: number
  readonly firstMicros: Micros
}

export async function askSeriesExtents(
  clickhouse: ClickHouse,
  question: SeriesQuestion,
  { isFolded, limit }: { readonly isFolded: boolean; readonly limit: number },
  signal: AbortSignal,
): Promise<readonly SeriesExtent[]> {
  const condition = seriesCondition(question)
  const { rows } = await clickhouse.query<SeriesExtent>(
    `SELECT device, metric, count() AS readings, toUnixTimestamp64Micro(min(observedAt)) AS firstMicros
     FROM ${isFolded ? folded(readingsTable) : readingsTable.name}
     WHERE ${condition.sql} AND ${onlyNumbers}
     GROUP BY device, metric
     ORDER BY device, metric
     LIMIT {limit:UInt32}`,
    { parameters: { ...condition.parameters, limit }, settings: questionSettings, signal },
  )
  return rows
}
