// What the table received after an instant, in order of receivedAt, a page at a time: for a viewer that comes back when the log no longer reaches to
// where it was. The table is not ordered by receivedAt, so each page looks at all of the series asked for.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { folded, readingsTable } from '../../storage/tables.ts'
import { catchUpSettings, instant, type SeriesQuestion, seriesCondition } from './question.ts'
import type { ReadingKey, ReadingRow } from './readings.ts'

export interface ReceivedKey extends ReadingKey {
  readonly receivedAt: Micros
}

export interface ReceivedQuestion extends Omit<SeriesQuestion, 'from' | 'to'> {
  /** Out. */
  readonly past: Micros
  readonly after: ReceivedKey | undefined
  readonly limit: number
  readonly withLogOffset?: boolean
}

export async function askReceivedReadings(
  clickhouse: ClickHouse,
  question: ReceivedQuestion,
  signal: AbortSignal,
): Promise<readonly ReadingRow[]> {
  const { past, after, limit, withLogOffset } = question
  const condition = seriesCondition({ ...question, from: 0, to: Number.MAX_SAFE_INTEGER - 1 })
  const beyond = after
    ? ' AND (toUnixTimestamp64Micro(receivedAt), toString(device), toString(metric), toUnixTimestamp64Micro(observedAt)) > ' +
      '({afterReceivedAt:Int64}, {afterDevice:String}, {afterMetric:String}, {afterObservedAt:Int64})'
    : ''
  const { rows } = await clickhouse.query<ReadingRow>(
    `SELECT device, metric, toUnixTimestamp64Micro(observedAt) AS observedMicros,
       toUnixTimestamp64Micro(receivedAt) AS receivedMicros, value, text${withLogOffset ? ', logOffset' : ''}
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql} AND receivedAt > ${instant('past')}${beyond}
     ORDER BY receivedAt, device, metric, observedAt
     LIMIT {limit:UInt32}`,
    {
      parameters: {
        ...condition.parameters,
        limit,
        past,
        ...(after && {
          afterReceivedAt: after.receivedAt,
          afterDevice: after.device,
          afterMetric: after.metric,
          afterObservedAt: after.observedAt,
        }),
      },
      settings: catchUpSettings,
      signal,
    },
  )
  return rows
}
