// Data of an INSERT on their way into the engine: chdb takes binary rows only from a file, so a body is written to one first, and the file is
// what is inserted. Any input format goes that way, in one piece: it is in the table as a whole or not at all.
import { randomUUID } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { type Engine, quoteName, quoteText, type Statement, type Statistics } from './engine.ts'
import { EngineError, notSupported } from './engine-error.ts'
import type { InsertShape } from './sql-shape.ts'

const bodyBytesMax = 1024 ** 3
/** Of all bodies that wait for their turn or are being inserted. */
const spoolBytesMax = 4 * 1024 ** 3
let spooledBytes = 0

export async function insertFromFile(
  { engine, spoolDirectory }: { readonly engine: Engine; readonly spoolDirectory: string },
  insert: InsertShape,
  data: AsyncIterable<Uint8Array>,
  statement: Omit<Statement, 'sql' | 'format'>,
): Promise<Statistics> {
  if (/\basync_insert\b/.test(insert.settings)) throw notSupported('async_insert')
  const structure = await structureOf(engine, insert, statement.database ?? 'default')
  const file = join(spoolDirectory, `body-${randomUUID()}`)
  const size = { bytes: 0 }
  try {
    await spool(file, data, size, statement.signal)
    if (size.bytes === 0) return { resultRows: 0, resultBytes: 0, elapsedSeconds: 0 }
    const settings = insert.settings === '' ? '' : ` SETTINGS ${insert.settings}`
    const source = `file(${quoteText(file)}, ${quoteText(insert.format)}, ${quoteText(structure)})`
    return await engine.run({
      ...statement,
      sql: `${insert.target}${settings} SELECT * FROM ${source}`,
      format: 'TabSeparated',
    })
  } finally {
    await rm(file, { force: true })
    spooledBytes -= size.bytes
  }
}

/** Of the columns that the data hold, as the table declares them. */
async function structureOf(engine: Engine, insert: InsertShape, database: string): Promise<string> {
  const [table, inDatabase = database] = [...insert.table].reverse()
  if (table === undefined || insert.table.length > 2) throw notSupported(`INSERT into ${insert.target}`)
  const answer = await engine.ask(
    'SELECT name, type, default_kind FROM system.columns ' +
      `WHERE database = ${quoteText(inDatabase)} AND table = ${quoteText(table)} ORDER BY position`,
  )
  // LowCardinality has the bytes of what it wraps, and is read more slowly, row by row.
  const columns = answer
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as [string, string, string])
    .map(([name, type, kind]) => [name, type.replace(/^LowCardinality\((.*)\)$/, '$1'), kind] as const)
  if (columns.length === 0) {
    throw new EngineError(60, 'UNKNOWN_TABLE', `Table ${inDatabase}.${table} does not exist`)
  }
  const given = insert.columns
  if (given === undefined) {
    const withDefault = columns.find(([, , kind]) => kind === 'DEFAULT')
    if (withDefault) {
      throw notSupported(`INSERT with data and without a list of columns into a table with DEFAULT (${withDefault[0]})`)
    }
    return columns
      .filter(([, , kind]) => kind === '')
      .map(([name, type]) => `${quoteName(name)} ${type}`)
      .join(', ')
  }
  return given
    .map((name) => {
      const column = columns.find((each) => each[0] === name)
      if (!column) {
        throw new EngineError(16, 'NO_SUCH_COLUMN_IN_TABLE', `No such column ${name} in table ${inDatabase}.${table}`)
      }
      return `${quoteName(name)} ${column[1]}`
    })
    .join(', ')
}

/** `size` counts along, so that it is known whatever happens. */
async function spool(
  file: string,
  data: AsyncIterable<Uint8Array>,
  size: { bytes: number },
  signal: AbortSignal,
): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    for await (const chunk of data) {
      signal.throwIfAborted()
      size.bytes += chunk.length
      spooledBytes += chunk.length
      if (spooledBytes > spoolBytesMax) {
        throw new EngineError(
          202,
          'TOO_MANY_SIMULTANEOUS_QUERIES',
          `Bodies of ${spoolBytesMax} bytes wait to be inserted: try again later`,
        )
      }
      if (size.bytes > bodyBytesMax) {
        throw new EngineError(
          464,
          'HTTP_BODY_TOO_LARGE',
          `The body is larger than ${bodyBytesMax} bytes: send it in pieces`,
        )
      }
      await handle.writeFile(chunk)
    }
    // A client that went away half-way must not leave half its rows.
    signal.throwIfAborted()
  } finally {
    await handle.close()
  }
}
