// Brings the database to the shape that this version expects: numbered SQL files, in order, each once. Two at a time are as one: every statement
// can be repeated (IF NOT EXISTS, ADD COLUMN IF NOT EXISTS …), and what was applied is a row in a table that folds repeats.
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Logger } from '../runtime/logger.ts'
import type { ClickHouse } from './open-clickhouse.ts'
import { database } from './tables.ts'

const directory = new URL('./migrations/', import.meta.url)
const table = `${database}.migrations`

/** Gives back the names of those that it applied. */
export async function migrate(
  clickhouse: ClickHouse,
  { logger, signal }: { readonly logger?: Logger; readonly signal?: AbortSignal } = {},
): Promise<readonly string[]> {
  const options = signal ? { signal } : {}
  await clickhouse.command(`CREATE DATABASE IF NOT EXISTS ${database}`, options)
  await clickhouse.command(
    `CREATE TABLE IF NOT EXISTS ${table} (name String, appliedAt DateTime64(3, 'UTC') DEFAULT now64(3)) ` +
      'ENGINE = ReplacingMergeTree(appliedAt) ORDER BY name SETTINGS fsync_after_insert = 1, fsync_part_directory = 1',
    options,
  )
  const applied = await clickhouse.query<{ name: string }>(`SELECT name FROM ${table} FINAL`, options)
  const done = new Set(applied.rows.map((row) => row.name))
  const files = (await readdir(directory)).filter((name) => /^\d{4}-[a-z0-9-]+\.sql$/.test(name)).sort()
  const now: string[] = []
  for (const file of files) {
    if (done.has(file)) continue
    for (const statement of statementsOf(await readFile(fileURLToPath(new URL(file, directory)), 'utf8'))) {
      await clickhouse.command(statement, options)
    }
    // Recorded last: a crash before this line means that all of it is done again.
    await clickhouse.command(`INSERT INTO ${table} (name) VALUES ({name:String})`, {
      ...options,
      parameters: { name: file },
    })
    logger?.info({ migration: file }, 'the database was migrated')
    now.push(file)
  }
  return now
}

/** Statements end with `;` at the end of a line. */
function statementsOf(text: string): readonly string[] {
  return text
    .split(/;\s*$/m)
    .map((statement) => statement.replace(/^\s*--.*$/gm, '').trim())
    .filter((statement) => statement !== '')
}
