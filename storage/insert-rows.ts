// Rows on their way into a table, as they are: chunks of RowBinary, undecoded. On the same machine they are handed over as a file, which spares
// the server the body (a quarter of the rate); elsewhere they are the body of the INSERT. Both ways resolve once the rows are in the table, on disk.
import { randomUUID } from 'node:crypto'
import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { RetryableError } from '../runtime/errors.ts'
import { classifyError, RejectedError } from './classify-error.ts'
import type { ClickHouse } from './open-clickhouse.ts'
import type { Table } from './tables.ts'

/**
 * A batch is one block where that is possible, and nothing is dropped as a repeat: rows are idempotent, and a retry that was taken for a
 * duplicate by its token or its hash has lost rows. A batch may spread over any instants, so the number of partitions is not limited.
 */
const insertSettings = {
  async_insert: 0,
  insert_deduplicate: 0,
  max_insert_threads: 1,
  max_threads: 1,
  max_partitions_per_insert_block: 0,
  // Blocks are cut by rows, not by bytes: a batch of large rows is as atomic as one of small ones.
  min_insert_block_size_rows: 1_048_576,
  max_execution_time: 120,
} as const

const fileMissingCode = 107

/** `way`: for tests; else by file wherever the server says that it can read ours. */
export async function insertRows(
  clickhouse: ClickHouse,
  table: Table,
  chunks: readonly Uint8Array[],
  options: { readonly signal?: AbortSignal; readonly way?: 'file' | 'body' } = {},
): Promise<void> {
  if (chunks.length === 0) return
  const directory = options.way === 'body' ? undefined : await clickhouse.localFilesDirectory()
  if (directory === undefined) return insertByBody(clickhouse, table, chunks, options)
  return insertByFile(clickhouse, table, chunks, directory, options)
}

async function insertByFile(
  clickhouse: ClickHouse,
  table: Table,
  chunks: readonly Uint8Array[],
  directory: string,
  { signal }: { readonly signal?: AbortSignal },
): Promise<void> {
  try {
    await withRowsFile(directory, table, chunks, (source) =>
      clickhouse.insert(`INSERT INTO ${table.name} SELECT * FROM ${source}`, undefined, {
        settings: insertSettings,
        ...(signal && { signal }),
      }),
    )
  } catch (error) {
    // The directory was cleared, or is not where it was: a server that has just been started anew. The rows are not at fault.
    if (error instanceof RejectedError && error.code === fileMissingCode)
      throw new RetryableError(error.message, { cause: error })
    throw classifyError(error)
  }
}

/**
 * Hands rows to the server as a file in a directory that it can read, for as long as `use` takes: `source` is what follows FROM. Not fsynced
 * and not kept: the log has these rows.
 */
export async function withRowsFile<Result>(
  directory: string,
  table: Table,
  chunks: readonly Uint8Array[],
  use: (source: string) => Promise<Result>,
): Promise<Result> {
  const file = join(directory, `rows-${randomUUID()}`)
  try {
    await writeChunks(file, chunks)
    return await use(`file(${quoted(file)}, 'RowBinary', ${quoted(table.structure)})`)
  } finally {
    await rm(file, { force: true })
  }
}

/** What follows FROM, with the rows themselves in it: for a server that can't read our files. Any bytes are safe: they go as hexadecimal. */
export function rowsInSql(table: Table, chunks: readonly Uint8Array[]): string {
  const hex = chunks.map((chunk) => Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength).toString('hex'))
  return `format('RowBinary', ${quoted(table.structure)}, unhex('${hex.join('')}'))`
}

async function writeChunks(file: string, chunks: readonly Uint8Array[]): Promise<void> {
  const handle = await open(file, 'wx', 0o600)
  try {
    const chunksAtOnceMax = 512
    for (let i = 0; i < chunks.length; i += chunksAtOnceMax) {
      const some = chunks.slice(i, i + chunksAtOnceMax)
      const bytes = some.reduce((sum, chunk) => sum + chunk.byteLength, 0)
      const { bytesWritten } = await handle.writev(some)
      if (bytesWritten !== bytes) await writeRest(handle, some, bytesWritten)
    }
  } finally {
    await handle.close()
  }
}

async function writeRest(
  handle: Awaited<ReturnType<typeof open>>,
  chunks: readonly Uint8Array[],
  written: number,
): Promise<void> {
  await handle.writeFile(Buffer.concat(chunks).subarray(written))
}

async function insertByBody(
  clickhouse: ClickHouse,
  table: Table,
  chunks: readonly Uint8Array[],
  { signal }: { readonly signal?: AbortSignal },
): Promise<void> {
  const body = Readable.from(chunks, { objectMode: false })
  await clickhouse.insert(`INSERT INTO ${table.name} FORMAT RowBinary`, body, {
    settings: insertSettings,
    ...(signal && { signal }),
  })
}

function quoted(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`
}
