// Readings gathered into buckets of time, computed from folded raw rows. Steps below a day are counted from the epoch; days and longer are those
// of a zone's calendar, and come as the date on which the bucket begins.
import type { Micros } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { folded, onlyNumbers, readingsTable } from '../../storage/tables.ts'
import { startOfLocalDate } from '../time-zone.ts'
import type { BucketStep } from '../wire.ts'
import { questionSettings, type SeriesQuestion, seriesCondition } from './question.ts'

export interface BucketRow {
  readonly device: string
  readonly metric: string
  /** Where the bucket begins. */
  readonly startMicros: Micros
  readonly readings: number
  readonly mean: number
  readonly min: number
  readonly max: number
  readonly first: number
  readonly last: number
}

const unitMs = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
  mo: 2_629_746_000,
  y: 31_556_952_000,
}

/** How long a step is; months and years on average. */
export function stepMs(step: BucketStep): number {
  const [, count, unit] = /^(\d+)([a-z]+)$/.exec(step)!
  return Number(count) * unitMs[unit as keyof typeof unitMs]
}

const startOfDate: Partial<Record<BucketStep, string>> = {
  '1d': 'localDate',
  '1w': 'toMonday(localDate)',
  '1mo': 'toStartOfMonth(localDate)',
  '1y': 'toStartOfYear(localDate)',
}

export async function askBucketSeries(
  clickhouse: ClickHouse,
  question: SeriesQuestion & { readonly step: BucketStep; readonly timeZone: string; readonly limit: number },
  signal: AbortSignal,
): Promise<readonly BucketRow[]> {
  const { step, timeZone, limit } = question
  const condition = seriesCondition(question)
  const date = startOfDate[step]
  const bucket = date ? `toString(${date})` : 'intDiv(toUnixTimestamp64Micro(observedAt), {step:Int64})'
  const { rows } = await clickhouse.query<Omit<BucketRow, 'startMicros'> & { readonly bucket: number | string }>(
    // The plain mean of very large values overflows in its sum; scaled by a power of two it does not, and loses nothing.
    `WITH toDate32(toTimeZone(observedAt, {timeZone:String})) AS localDate
     SELECT device, metric, ${bucket} AS bucket, count() AS readings,
       if(isFinite(avg(value)), avg(value), sum(value / 4294967296) / count() * 4294967296) AS mean,
       min(value) AS min, max(value) AS max,
       argMin(value, observedAt) AS first, argMax(value, observedAt) AS last
     FROM ${folded(readingsTable)}
     WHERE ${condition.sql} AND ${onlyNumbers}
     GROUP BY device, metric, bucket
     ORDER BY device, metric, bucket
     LIMIT {limit:UInt32}`,
    {
      parameters: { ...condition.parameters, limit, timeZone, ...(date ? {} : { step: stepMs(step) * 1000 }) },
      // Dates before 1970 can begin a week or a year that reaches into it.
      settings: {
        ...questionSettings,
        enable_extended_results_for_datetime_functions: 1,
        // Would take the scaling out of the sum again.
        optimize_arithmetic_operations_in_aggregate_functions: 0,
      },
      signal,
    },
  )
  const startOf = (bucket: number | string): Micros =>
    typeof bucket === 'number' ? bucket * stepMs(step) * 1000 : startOfLocalDate(timeZone, bucket) * 1000
  return rows.map(({ bucket, ...row }) => ({ ...row, startMicros: startOf(bucket) }))
}
