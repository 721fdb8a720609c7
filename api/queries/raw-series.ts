// Number readings by series, then time: what a chart draws when there are few enough of them.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { folded, onlyNumbers, readingsTable } from '../../storage/tables.ts'
import { questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'

export interface RawRow {
  readonly device: string
  readonly metric: string
  readonly observedMicros: Micros
  readonly value: number
}

export async function askRawSeries(
  clickhouse: ClickHouse,
  question: SeriesQuestion & { readonly limit: number },
  signal: AbortSignal,
): Promise<readonly RawRow[]> {
  const condition = seriesCondition(question)
  const { rows } = await clickhouse.query<RawRow>(
    `SELECT device, metric, toUnixTimestamp64Micro(observedAt) AS observedMicros, value
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql} AND ${onlyNumbers}
     ORDER BY device, metric, observedAt
     LIMIT {limit:UInt32}`,
    { parameters: { ...condition.parameters, limit: question.limit }, settings: questionSettings, signal },
  )
  return rows
}
