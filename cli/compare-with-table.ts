// The log held against a table, row by row: each row of the log up to the writer's committed place must be in the table, with what was received
// last for its identity. Works through the log in slices that the store reads as files, so memory stays small however long the log is.
import type { Chunk, EventLog, LogPosition, LogTopic } from '../domain/event-log.ts'
import { LogDamagedError } from '../runtime/errors.ts'
import { rowsInSql, withRowsFile } from '../storage/insert-rows.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import { rawRetentionSeconds } from '../storage/raw-retention.ts'
import { deadLettersTable, folded, foldedSettings, readingsTable, type Table } from '../storage/tables.ts'
import { writerGroup } from '../stream/writer-service.ts'

/** `missing`: not in the table; `older`: the table has one that was received before; `different`: the same arrival with another content. */
export const differenceKinds = ['missing', 'older', 'different'] as const
export type DifferenceKind = (typeof differenceKinds)[number]

export interface Difference {
  readonly kind: DifferenceKind
  /** A row of the log by its identity. */
  readonly row: Readonly<Record<string, string | number>>
}

export interface Comparison {
  /** Rows that the log holds. */
  inLog: number
  /** Rows that must be in the table, and were looked for. */
  compared: number
  /** Rows that the writer has not committed yet. */
  pending: number
  /** Rows that the table need not hold any more: older than raw readings are kept there. */
  expired: number
  readonly differences: Record<DifferenceKind, number>
  /** The first few. */
  readonly examples: Difference[]
  /** The log can't be read on from a place of damage: only what comes before it was compared. */
  endedAtDamage: boolean
}

interface Subject {
  readonly table: Table
  readonly identity: readonly string[]
  /** What must be the same, as bytes. */
  readonly content: string
}

const subjects: Readonly<Partial<Record<LogTopic, Subject>>> = {
  readings: {
    table: readingsTable,
    identity: ['tenant', 'device', 'metric', 'observedAt'],
    // As bits: text readings hold NaN, which equals nothing.
    content: '(reinterpretAsUInt64(value), text)',
  },
  'dead-letters': {
    table: deadLettersTable,
    identity: ['tenant', 'receivedAt', 'id'],
    content: '(device, reason, detail, metric, codec, origin, payload)',
  },
}

/** `elsewhere`: a server that can't read our files is told the rows in the question itself. */
const sliceMax = {
  here: { rows: 100_000, bytes: 16 * 1024 ** 2 },
  elsewhere: { rows: 10_000, bytes: 1024 ** 2 },
} as const
type SliceMax = (typeof sliceMax)[keyof typeof sliceMax]
const examplesMax = 5

export interface CompareOptions {
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly topic: 'readings' | 'dead-letters'
  /** Chunks read, of those that there are. */
  readonly progress: (done: number, of: number) => void
}

export async function compareWithTable({ log, clickhouse, topic, progress }: CompareOptions): Promise<Comparison> {
  const comparison: Comparison = {
    inLog: 0,
    compared: 0,
    pending: 0,
    expired: 0,
    differences: { missing: 0, older: 0, different: 0 },
    examples: [],
    endedAtDamage: false,
  }
  // Taken before anything is read: what the writer commits meanwhile may be there or not.
  const committed = await log.committed(writerGroup, topic)
  const end = await log.end(topic)
  const retention = topic === 'readings' ? await rawRetentionSeconds(clickhouse) : undefined
  const slice = new Slice(sliceMax[(await clickhouse.localFilesDirectory()) === undefined ? 'elsewhere' : 'here'])
  const compare = async (): Promise<void> => {
    if (slice.count === 0) return
    comparison.compared += slice.count
    for (const found of await findDifferences(clickhouse, subjects[topic]!, slice.chunks, retention)) {
      if (found.kind === 'expired') {
        comparison.expired += Number(found.rows)
        continue
      }
      comparison.differences[found.kind] += Number(found.rows)
      const free = examplesMax - comparison.examples.length
      for (const row of found.examples.slice(0, free))
        comparison.examples.push({ kind: found.kind, row: JSON.parse(row) })
    }
    slice.clear()
  }
  try {
    for await (const chunk of chunksUntil(log, topic, end, progress)) {
      comparison.inLog += chunk.count
      if (chunk.offset >= (committed.get(chunk.partition) ?? 0)) comparison.pending += chunk.count
      else if (slice.add(chunk)) await compare()
    }
  } catch (error) {
    // verifyLog has said where.
    if (!(error instanceof LogDamagedError)) throw error
    comparison.endedAtDamage = true
  }
  await compare()
  return comparison
}

/** All chunks before `end`, from the oldest that retention has left. */
export async function* chunksUntil(
  log: EventLog,
  topic: LogTopic,
  end: LogPosition,
  progress: CompareOptions['progress'],
): AsyncGenerator<Chunk> {
  const beginning = await log.beginning(topic)
  // Of a partition that was silent for long, retention leaves nothing to wait for.
  const sizes = [...end].map(([partition, offset]) => [partition, offset - (beginning.get(partition) ?? 0)] as const)
  const open = new Set(sizes.filter(([, chunks]) => chunks > 0).map(([partition]) => partition))
  const of = sizes.reduce((sum, [, chunks]) => sum + chunks, 0)
  let done = 0
  const stop = new AbortController()
  try {
    if (open.size === 0) return
    for await (const chunks of log.tail(topic, new Map(), stop.signal)) {
      for (const chunk of chunks) {
        const last = end.get(chunk.partition) ?? 0
        if (chunk.offset < last) yield chunk
        if (chunk.offset + 1 >= last) open.delete(chunk.partition)
        done++
      }
      progress(done, of)
      if (open.size === 0) return
    }
  } finally {
    stop.abort()
  }
}

class Slice {
  readonly chunks: Uint8Array[] = []
  count = 0
  private bytes = 0
  private readonly max: SliceMax

  constructor(max: SliceMax) {
    this.max = max
  }

  /** True when it is full. */
  add({ rows, count }: Chunk): boolean {
    this.chunks.push(rows)
    this.count += count
    this.bytes += rows.length
    return this.count >= this.max.rows || this.bytes >= this.max.bytes
  }

  clear(): void {
    this.chunks.length = 0
    this.count = 0
    this.bytes = 0
  }
}

interface Found {
  readonly kind: DifferenceKind | 'expired'
  readonly rows: number
  readonly examples: string[]
}

async function findDifferences(
  clickhouse: ClickHouse,
  { table, identity, content }: Subject,
  chunks: readonly Uint8Array[],
  retentionSeconds: number | undefined,
): Promise<readonly Found[]> {
  const directory = await clickhouse.localFilesDirectory()
  const key = identity.join(', ')
  // One that is no number of seconds was set by hand: nothing is known of it.
  const isExpired = !Number.isFinite(retentionSeconds)
    ? '0'
    : `toDateTime(observedAt) + toIntervalSecond(${retentionSeconds}) <= now()`
  const at = identity.includes('receivedAt') ? 'receivedAt' : 'max(receivedAt)'
  // Within a slice, too, the one received last wins.
  const wanted = (source: string): string =>
    `SELECT ${key}, ${at} AS arrivedAt, argMax(${content}, receivedAt) AS content FROM ${source} GROUP BY ${key}`
  const sql = (source: string): string => `WITH wanted AS (${wanted(source)}),
    stored AS (SELECT ${key}, receivedAt AS storedAt, ${content} AS storedContent, 1 AS isStored
      FROM ${folded(table)} WHERE (${key}) IN (SELECT ${key} FROM wanted))
    SELECT
      multiIf(isStored = 0 AND ${isExpired}, 'expired', isStored = 0, 'missing', storedAt < arrivedAt, 'older', 'different') AS kind,
      count() AS rows,
      groupArray(${examplesMax})(toJSONString(map(${identity.map((name) => `'${name}', toString(${name})`).join(', ')}))) AS examples
    FROM wanted LEFT ANY JOIN stored USING (${key})
    WHERE isStored = 0 OR storedAt < arrivedAt OR (storedAt = arrivedAt AND storedContent != content)
    GROUP BY kind`
  const ask = async (source: string): Promise<readonly Found[]> => {
    const settings = { ...foldedSettings, max_query_size: source.length * 2 + 100_000 }
    return (await clickhouse.query<Found>(sql(source), { settings })).rows
  }
  if (directory === undefined) return ask(rowsInSql(table, chunks))
  return withRowsFile(directory, table, chunks, ask)
}
