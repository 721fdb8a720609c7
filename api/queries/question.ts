// What queries about readings have in common: which series, between which instants, and what a question may cost. Names and instants are always
// bound, never spliced.
import { availableParallelism } from 'node:os'
import type { Micros, Tenant } from '../../domain/reading.ts'
import { RejectedError } from '../../storage/classify-error.ts'
import { foldedSettings } from '../../storage/tables.ts'
import type { NameFilter } from '../parameters.ts'

export interface SeriesQuestion {
  readonly tenant: Tenant
  readonly device: NameFilter
  readonly metric: NameFilter
  /** In. */
  readonly from: Micros
  /** Out. */
  readonly to: Micros
}

export interface Condition {
  readonly sql: string
  readonly parameters: Readonly<Record<string, unknown>>
}

/** For WHERE, on the leading columns of the key, so that only the ranges asked for are read and folded. */
export function seriesCondition({ tenant, device, metric, from, to }: SeriesQuestion): Condition {
  const parameters: Record<string, unknown> = { tenant, from, to }
  const conditions = [
    'tenant = {tenant:String}',
    nameCondition('device', device, parameters),
    nameCondition('metric', metric, parameters),
    `observedAt >= ${instant('from')}`,
    `observedAt < ${instant('to')}`,
  ]
  return { sql: conditions.filter(Boolean).join(' AND '), parameters }
}

/** The bound parameter of this name as an instant. */
export function instant(name: string): string {
  return `fromUnixTimestamp64Micro({${name}:Int64}, 'UTC')`
}

export function nameCondition(
  column: 'device' | 'metric',
  { names, prefixes }: NameFilter,
  parameters: Record<string, unknown>,
): string {
  const choices: string[] = []
  if (names.length > 0) {
    parameters[`${column}Names`] = names
    choices.push(`${column} IN {${column}Names:Array(String)}`)
  }
  for (const [index, prefix] of prefixes.entries()) {
    parameters[`${column}Prefix${index}`] = prefix
    choices.push(`startsWith(${column}, {${column}Prefix${index}:String})`)
  }
  return choices.length === 0 ? '' : `(${choices.join(' OR ')})`
}

/** The writer has not made the tables yet (UNKNOWN_TABLE, UNKNOWN_DATABASE): a first start, or a store that was emptied. */
export function isWithoutTables(error: unknown): error is RejectedError {
  return error instanceof RejectedError && (error.code === 60 || error.code === 81)
}

/** The store may be on this machine: on two cores one of them is left to whoever takes readings. */
export const questionThreadsMax = availableParallelism() > 3 ? 2 : 1

/** What one question of a person may take. The store runs it behind the writer's inserts by itself. */
export const questionSettings = {
  ...foldedSettings,
  max_execution_time: 10,
  max_memory_usage: 1_000_000_000,
  max_threads: questionThreadsMax,
  // With the time to answer it stays below `answerMsMax`: whoever waits hears that others hold the places.
  queue_max_wait_ms: 4_000,
} as const

/** Of those who follow live: they keep their turn in the queue, and say themselves when it has taken too long. */
export const catchUpSettings = { ...questionSettings, queue_max_wait_ms: 0 } as const
