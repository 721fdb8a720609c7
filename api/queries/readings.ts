// Raw readings in order of time, a page at a time; each once, whatever was sent again or corrected.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse, QueryOptions } from '../../storage/open-clickhouse.ts'
import { folded, readingsTable } from '../../storage/tables.ts'
import { questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'

export interface ReadingRow {
  readonly device: string
  readonly metric: string
  readonly observedMicros: Micros
  readonly receivedMicros: Micros
  /** null: a text reading */
  readonly value: number | null
  readonly text: string
  /** Where it was asked for; -1: not known. */
  readonly logOffset?: number
}

/** Readings of one instant are in order of device and metric: with the instant, that is a key. */
export interface ReadingKey {
  readonly observedAt: Micros
  readonly device: string
  readonly metric: string
}

export interface ReadingsQuestion extends SeriesQuestion {
  readonly order: 'asc' | 'desc'
  readonly after?: ReadingKey | undefined
  readonly limit: number
  readonly withLogOffset?: boolean
}

export async function askReadings(
  clickhouse: ClickHouse,
  question: ReadingsQuestion,
  signal: AbortSignal,
  settings: QueryOptions['settings'] = questionSettings,
): Promise<readonly ReadingRow[]> {
  const { order, after, limit, withLogOffset } = question
  // The bound that the key gives narrows what is read; the key itself decides among readings of the same instant.
  const narrowed = !after
    ? question
    : order === 'asc'
      ? { ...question, from: Math.max(question.from, after.observedAt) }
      : { ...question, to: Math.min(question.to, after.observedAt + 1) }
  const condition = seriesCondition(narrowed)
  const comparison = order === 'asc' ? '>' : '<'
  const beyond = after
    ? ` AND (toUnixTimestamp64Micro(observedAt), toString(device), toString(metric)) ${comparison} ` +
      '({afterObservedAt:Int64}, {afterDevice:String}, {afterMetric:String})'
    : ''
  const { rows } = await clickhouse.query<ReadingRow>(
    `SELECT device, metric, toUnixTimestamp64Micro(observedAt) AS observedMicros,
       toUnixTimestamp64Micro(receivedAt) AS receivedMicros, value, text${withLogOffset ? ', logOffset' : ''}
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql}${beyond}
     ORDER BY observedAt ${order}, device ${order}, metric ${order}
     LIMIT {limit:UInt32}`,
    {
      parameters: {
        ...condition.parameters,
        limit,
        ...(after && { afterObservedAt: after.observedAt, afterDevice: after.device, afterMetric: after.metric }),
      },
      settings,
      signal,
    },
  )
  return rows
}
