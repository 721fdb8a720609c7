// What could not be used, newest first.
import type { Micros, Tenant } from '../../domain/reading.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { deadLettersTable, folded, putBackTable } from '../../storage/tables.ts'
import type { NameFilter } from '../parameters.ts'
import { instant, isWithoutTables, nameCondition, questionSettings } from './question.ts'

export interface DeadLetterRow {
  readonly id: string
  readonly device: string
  readonly reason: string
  readonly detail: string
  readonly metric: string
  readonly codec: string
  readonly origin: string
  readonly receivedMicros: Micros
}

export interface DeadLettersQuestion {
  readonly tenant: Tenant
  readonly device: NameFilter
  readonly reasons: readonly string[]
  readonly after?: { readonly receivedAt: Micros; readonly id: string } | undefined
  readonly limit: number
}

const columns =
  'id, device, reason, detail, metric, codec, origin, toUnixTimestamp64Micro(receivedAt) AS receivedMicros'

export async function askDeadLetters(
  clickhouse: ClickHouse,
  { tenant, device, reasons, after, limit }: DeadLettersQuestion,
  signal: AbortSignal,
): Promise<readonly DeadLetterRow[]> {
  const parameters: Record<string, unknown> = { tenant, limit }
  const conditions = ['tenant = {tenant:String}', nameCondition('device', device, parameters)]
  if (reasons.length > 0) {
    parameters.reasons = reasons
    conditions.push('reason IN {reasons:Array(String)}')
  }
  if (after) {
    parameters.afterReceivedAt = after.receivedAt
    parameters.afterId = after.id
    conditions.push(`(receivedAt, id) < (${instant('afterReceivedAt')}, {afterId:String})`)
  }
  const { rows } = await clickhouse.query<DeadLetterRow>(
    `SELECT ${columns} FROM ${folded(deadLettersTable)}
     WHERE ${conditions.filter(Boolean).join(' AND ')}
     ORDER BY receivedAt DESC, id DESC LIMIT {limit:UInt32}`,
    { parameters, settings: questionSettings, signal },
  )
  return rows
}

export async function askDeadLetter(
  clickhouse: ClickHouse,
  { tenant, id, receivedAt }: { readonly tenant: Tenant; readonly id: string; readonly receivedAt: Micros },
  signal: AbortSignal,
): Promise<(DeadLetterRow & { readonly payload: string }) | undefined> {
  const { rows } = await clickhouse.query<DeadLetterRow & { readonly payload: string }>(
    `SELECT ${columns}, base64Encode(payload) AS payload FROM ${folded(deadLettersTable)}
     WHERE tenant = {tenant:String} AND receivedAt = ${instant('receivedAt')} AND id = {id:String} LIMIT 1`,
    { parameters: { tenant, id, receivedAt }, settings: questionSettings, signal },
  )
  return rows[0]
}

export interface DeadLetterReason {
  readonly reason: string
  readonly count: number
  readonly newestMicros: Micros
}

/** Reasons are a bounded set. */
export async function askDeadLetterReasons(
  clickhouse: ClickHouse,
  { tenant, device }: Pick<DeadLettersQuestion, 'tenant' | 'device'>,
  signal: AbortSignal,
): Promise<readonly DeadLetterReason[]> {
  const parameters: Record<string, unknown> = { tenant }
  const conditions = ['tenant = {tenant:String}', nameCondition('device', device, parameters)]
  const { rows } = await clickhouse.query<DeadLetterReason>(
    `SELECT reason, toFloat64(count()) AS count, toUnixTimestamp64Micro(max(receivedAt)) AS newestMicros
     FROM ${folded(deadLettersTable)} WHERE ${conditions.filter(Boolean).join(' AND ')}
     GROUP BY reason ORDER BY count DESC, reason LIMIT 100`,
    { parameters, settings: questionSettings, signal },
  )
  return rows
}

/** What became of a dead letter the last time that it was put back. */
export interface PutBackMark {
  readonly id: string
  readonly putBackMicros: Micros
  readonly accepted: number
  readonly deadLettered: number
}

/** Of these dead letters, those that were put back, by id. A table of an earlier version has no marks. */
export async function askPutBackMarks(
  clickhouse: ClickHouse,
  { tenant, ids }: { readonly tenant: Tenant; readonly ids: readonly string[] },
  signal: AbortSignal,
): Promise<ReadonlyMap<string, PutBackMark>> {
  if (ids.length === 0) return new Map()
  try {
    const { rows } = await clickhouse.query<PutBackMark>(
      `SELECT id, toUnixTimestamp64Micro(putBackAt) AS putBackMicros, accepted, deadLettered FROM ${folded(putBackTable)}
       WHERE tenant = {tenant:String} AND id IN {ids:Array(String)}`,
      { parameters: { tenant, ids }, settings: questionSettings, signal },
    )
    return new Map(rows.map((row) => [row.id, row]))
  } catch (error) {
    if (isWithoutTables(error)) return new Map()
    throw error
  }
}

/** Marks dead letters as put back. */
export async function notePutBack(
  clickhouse: ClickHouse,
  marks: readonly (PutBackMark & { readonly device: string })[],
  { tenant }: { readonly tenant: Tenant },
): Promise<void> {
  if (marks.length === 0) return
  const parameters = {
    tenant,
    devices: marks.map(({ device }) => device),
    ids: marks.map(({ id }) => id),
    at: marks.map(({ putBackMicros }) => putBackMicros),
    accepted: marks.map(({ accepted }) => accepted),
    deadLettered: marks.map(({ deadLettered }) => deadLettered),
  }
  await clickhouse.command(
    `INSERT INTO ${putBackTable.name} SELECT {tenant:String}, mark.1, mark.2, fromUnixTimestamp64Micro(mark.3, 'UTC'), mark.4, mark.5
     FROM (SELECT arrayJoin(arrayZip({devices:Array(String)}, {ids:Array(String)}, {at:Array(Int64)}, {accepted:Array(UInt32)},
       {deadLettered:Array(UInt32)})) AS mark)`,
    { parameters },
  )
}
