// Brings the database to the shape that this version expects: numbered SQL files, in order, each once. Several at a time are as one: every
// statement can be repeated (ddl.ts takes no other), and what was applied is a row in a table that folds repeats. So there is no lock to be left
// behind by whoever died with it.
import { readdir, readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import type { Logger } from '../runtime/logger.ts'
import { RejectedError } from './classify-error.ts'
import { createDatabase, createMigrations, migrationStatements } from './ddl.ts'
import type { ClickHouse, QueryOptions } from './open-clickhouse.ts'

const directory = new URL('./migrations/', import.meta.url)
/** UNKNOWN_TABLE, UNKNOWN_DATABASE. */
const missingCodes = new Set([60, 81])

/** Gives back the names of those that it applied. */
export async function migrate(
  clickhouse: ClickHouse,
  { logger, signal }: { readonly logger?: Logger; readonly signal?: AbortSignal } = {},
): Promise<readonly string[]> {
  const options: QueryOptions = signal ? { signal } : {}
  const layout = await clickhouse.layout()
  const done = await applied(clickhouse, options)
  const now: string[] = []
  for (const { name, statements } of await migrations()) {
    if (done.has(name)) continue
    for (const statement of statements) {
      for (const each of migrationStatements(statement, layout)) await clickhouse.command(each, options)
    }
    // Recorded last: a crash before this line means that all of it is done again.
    await clickhouse.command('INSERT INTO migrations (name) VALUES ({name:String})', {
      ...options,
      parameters: { name },
    })
    logger?.info({ migration: name }, 'the database was migrated')
    now.push(name)
  }
  return now
}

/** Asked before anything is made: where all is there, no right to make anything is needed. */
async function applied(clickhouse: ClickHouse, options: QueryOptions): Promise<ReadonlySet<string>> {
  for (let isMade = false; ; isMade = true) {
    try {
      const { rows } = await clickhouse.query<{ name: string }>('SELECT name FROM migrations FINAL', options)
      return new Set(rows.map((row) => row.name))
    } catch (error) {
      if (isMade || !(error instanceof RejectedError) || !missingCodes.has(error.code)) throw error
      const layout = await clickhouse.layout()
      if (error.code === 81) await clickhouse.command(createDatabase(layout), { ...options, database: 'default' })
      await clickhouse.command(createMigrations(layout), options)
    }
  }
}

/** Of this version, in order. */
export async function migrations(): Promise<
  readonly { readonly name: string; readonly statements: readonly string[] }[]
> {
  const names = (await readdir(directory)).filter((name) => /^\d{4}-[a-z0-9-]+\.sql$/.test(name)).sort()
  return Promise.all(
    names.map(async (name) => ({
      name,
      statements: statementsOf(await readFile(fileURLToPath(new URL(name, directory)), 'utf8')),
    })),
  )
}

/** Statements end with `;` at the end of a line. */
function statementsOf(text: string): readonly string[] {
  return text
    .split(/;\s*$/m)
    .map((statement) => statement.replace(/^\s*--.*$/gm, '').trim())
    .filter((statement) => statement !== '')
}
