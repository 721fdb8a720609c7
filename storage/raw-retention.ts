// How long raw readings stay in the table: a TTL on the device's time, set, changed or removed so that the table has what the configuration says.
// The engine removes expired rows when it merges parts, so a reading stays at least its time, and a few hours more.
import { alterTable, storedTableName } from './ddl.ts'
import type { ClickHouse } from './open-clickhouse.ts'
import { readingsTable } from './tables.ts'

/** Seconds after `observedAt` at which readings leave the table; undefined: they never do. */
export async function rawRetentionSeconds(clickhouse: ClickHouse): Promise<number | undefined> {
  const name = storedTableName(readingsTable.name, await clickhouse.layout())
  const { rows } = await clickhouse.query<{ engine: string }>(
    'SELECT engine_full AS engine FROM system.tables WHERE database = currentDatabase() AND name = {name:String}',
    { parameters: { name } },
  )
  const expression = / TTL (.*?)(?: SETTINGS |$)/.exec(rows[0]?.engine ?? '')?.[1]
  if (expression === undefined) return undefined
  // One that somebody set by hand is told apart from ours by not being a number of seconds: it is replaced.
  return Number(/^toDateTime\(observedAt\) \+ toIntervalSecond\((\d+)\)$/.exec(expression)?.[1] ?? Number.NaN)
}

/** Makes the table keep readings for `retentionMs`, or for ever. Gives back whether it had to change something. */
export async function applyRawRetention(
  clickhouse: ClickHouse,
  retentionMs: number | undefined,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<boolean> {
  const wanted = retentionMs === undefined ? undefined : Math.ceil(retentionMs / 1000)
  if ((await rawRetentionSeconds(clickhouse)) === wanted) return false
  const change = wanted === undefined ? 'REMOVE TTL' : `MODIFY TTL toDateTime(observedAt) + toIntervalSecond(${wanted})`
  // What is there already is gone through in the background.
  for (const statement of alterTable(readingsTable.name, change, await clickhouse.layout()))
    await clickhouse.command(statement, { settings: { mutations_sync: 0 }, ...(signal && { signal }) })
  return true
}
