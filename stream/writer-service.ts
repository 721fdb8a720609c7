// The writer: readings, anomalies and dead letters from the log into the store, as the bytes that they are. The position is committed only after the
// insert returned, so a crash anywhere means that rows are inserted again, and the table folds them. While the store is away the log is the buffer.
import { setTimeout as delay } from 'node:timers/promises'
import type { Chunk, EventLog, LogTopic } from '../domain/event-log.ts'
import type { Clock } from '../runtime/clock.ts'
import { RetryableError } from '../runtime/errors.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import type { StoredTotals } from '../runtime/status.ts'
import { RejectedError } from '../storage/classify-error.ts'
import { insertRows } from '../storage/insert-rows.ts'
import { migrate } from '../storage/migrate.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import { placedRows } from '../storage/placed-rows.ts'
import { applyRawRetention } from '../storage/raw-retention.ts'
import { anomaliesTable, deadLettersTable, placedReadingsTable, readingsTable, type Table } from '../storage/tables.ts'
import type { BatchLimits } from './batch-policy.ts'
import { type BackOff, type Batch, backOffMs, ConsumerLoop } from './consumer-loop.ts'
import { createConsumerEvents, createWriterEvents, offsetsOf } from './events.ts'

export interface WriterServiceOptions {
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly logger: Logger
  readonly instruments: Instruments
  readonly clock: Clock
  /** Which store it is, where one writer's may be another than another's. */
  readonly storeName?: string
  /** Age by the device's time at which readings leave the table; undefined: they never do. */
  readonly retentionRawMs?: number | undefined
  /** Called when the writer can't go on; else the process crashes. */
  readonly crash?: (error: Error) => void
  readonly limits?: BatchLimits
  readonly backOff?: BackOff
  /** An insert that takes longer is said to: the store hangs, or is overloaded. */
  readonly slowInsertMs?: number
  /** A log that gives nothing for longer than it takes a leader to move. */
  readonly logTroubleMsMax?: number
  readonly standStillMs?: number
  /** How long rows that the store refused wait before they are offered again. */
  readonly rejectedRetryMs?: number
}

export interface WriterService extends Service {
  totals(): StoredTotals
}

export const writerGroup = 'writer'
const tables: Readonly<Record<LogTopic, Table>> = {
  readings: readingsTable,
  anomalies: anomaliesTable,
  'dead-letters': deadLettersTable,
}
type WriterTopic = LogTopic
const topics = Object.keys(tables) as readonly WriterTopic[]
const lagRefreshMs = 1_000
const slowInsertMsDefault = 10_000
/** From then on nothing is stored until somebody brings the log back. */
const logTroubleMsMaxDefault = 10_000
/** The schema is not what it should be (UNKNOWN_TABLE, UNKNOWN_DATABASE): somebody has emptied the store under us. */
const schemaMissingCodes = new Set([60, 81])

export function createWriterService(options: WriterServiceOptions): WriterService {
  const { log, clickhouse, logger, clock } = options
  const events = createWriterEvents(options)
  const stored: Record<WriterTopic, number> = { readings: 0, anomalies: 0, 'dead-letters': 0 }
  const troubles = new Map<WriterTopic | 'migrations' | 'retention', Health>()
  /** Inserts under way: since when, and whether it was said that one takes long. */
  const inserting = new Map<WriterTopic, { readonly since: number; isSaid: boolean }>()
  const ending = new AbortController()
  let migrating: Promise<void> | undefined
  let isMigrated = false
  /** Each topic could be read at least once. */
  let isLogReached = false
  let logTroubledAt: number | undefined
  let lagChunks = 0
  let lagTimer: NodeJS.Timeout | undefined
  options.instruments.gauge(
    'weir_stored_lag_seconds',
    'Age of the oldest durable chunk that is not in the table yet',
    () => totals().storedLagMs / 1000,
  )
  const { slowInsertMs = slowInsertMsDefault, logTroubleMsMax = logTroubleMsMaxDefault } = options

  const loops = topics.map(
    (topic) =>
      new ConsumerLoop({
        log,
        group: writerGroup,
        topic,
        events: createConsumerEvents({ group: writerGroup, topic, logger, instruments: options.instruments }),
        crash: options.crash ?? crashProcess,
        handle: (batch, stop) => store(topic, batch, stop),
        keepsIn: options.storeName,
        ...(options.limits && { limits: options.limits }),
        ...(options.backOff && { backOff: options.backOff }),
        ...(options.standStillMs !== undefined && { standStillMs: options.standStillMs }),
      }),
  )

  /** One migration for both topics; the next attempt begins a new one. */
  function ensureMigrated(): Promise<void> {
    if (isMigrated) return Promise.resolve()
    migrating ??= migrate(clickhouse)
      .then((names) => {
        isMigrated = true
        troubles.delete('migrations')
        events.migrated(names)
        void retain()
      })
      .finally(() => {
        migrating = undefined
      })
    return migrating
  }

  /** The store is made ready as soon as it is there, not only when the first reading comes. */
  async function migrateWhenThere(): Promise<void> {
    for (let attempt = 0; !isMigrated && !ending.signal.aborted; attempt++) {
      try {
        await ensureMigrated()
      } catch (error) {
        troubles.set('migrations', troubleOf(error as Error, 'The tables are not ready'))
        const ms = backOffMs({ firstMs: 100, longestMs: 2_000, random: Math.random }, attempt)
        await delay(ms, undefined, { signal: ending.signal }).catch(() => {})
      }
    }
  }

  /** What the table keeps is settled beside the storing, which never waits for it. */
  async function retain(): Promise<void> {
    const { retentionRawMs } = options
    const { signal } = ending
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        if (await applyRawRetention(clickhouse, retentionRawMs, { signal })) events.retentionChanged(retentionRawMs)
        troubles.delete('retention')
        return
      } catch (error) {
        const detail = `The retention of raw readings is not settled: ${(error as Error).message}`
        troubles.set('retention', { state: 'degraded', detail })
        const ms = backOffMs({ firstMs: 100, longestMs: 30_000, random: Math.random }, attempt)
        await delay(ms, undefined, { signal }).catch(() => {})
      }
    }
  }

  async function store(topic: WriterTopic, batch: Batch, stop: AbortSignal): Promise<void> {
    try {
      await ensureMigrated()
      const began = performance.now()
      inserting.set(topic, { since: began, isSaid: false })
      await insertRows(clickhouse, ...rowsFor(topic, batch.chunks), { signal: stop })
      events.stored(topic, batch.rows, (performance.now() - began) / 1000)
    } catch (error) {
      if (stop.aborted) throw error
      throw troubled(topic, batch, error as Error)
    } finally {
      inserting.delete(topic)
    }
    stored[topic] += batch.rows
    troubles.delete(topic)
  }

  function rowsFor(topic: WriterTopic, chunks: readonly Chunk[]): [Table, readonly Uint8Array[]] {
    if (topic !== 'readings' || !log.hasManyAppenders) return [tables[topic], chunks.map(({ rows }) => rows)]
    return [placedReadingsTable, chunks.map(({ rows, count, offset }) => placedRows(rows, count, offset))]
  }

  /** What the consumer loop is to do with it, and what health says meanwhile. */
  function troubled(topic: WriterTopic, batch: Batch, error: Error): Error {
    if (error instanceof RejectedError) {
      if (schemaMissingCodes.has(error.code)) isMigrated = false
      const before = troubles.get(topic)
      const trouble = troubleOf(error, `${topic} ${offsetsOf(batch.chunks)} (partition: offsets) can't be stored`)
      troubles.set(topic, trouble)
      if (before?.state !== 'failed') events.rejected(topic, batch.chunks, error)
      const retryAfterMs = schemaMissingCodes.has(error.code) ? 0 : (options.rejectedRetryMs ?? 30_000)
      return new RetryableError(error.message, { cause: error, retryAfterMs })
    }
    if (error instanceof RetryableError) troubles.set(topic, troubleOf(error, `${topic} wait in the log`))
    return error
  }

  function standing(): Health[] {
    return loops.flatMap((loop, i) => {
      const cause = loop.standsStill()
      return cause ? [{ state: 'failed', detail: `${topics[i]} wait in the log: ${cause.message}` }] : []
    })
  }

  /** A store that hangs breaks no connection: only the time says so. */
  function slowInsert(): Health | undefined {
    for (const [topic, { since }] of inserting) {
      const ms = performance.now() - since
      if (ms < slowInsertMs) continue
      const detail = `${topic} wait in the log: the store has not taken a batch for ${Math.round(ms / 1000)} s`
      return { state: 'degraded', detail }
    }
    return undefined
  }

  function logTrouble(): Health | undefined {
    const detail = loops.map((loop) => loop.trouble()).find((trouble) => trouble !== undefined)
    if (detail === undefined) {
      isLogReached = true
      logTroubledAt = undefined
      return undefined
    }
    logTroubledAt ??= performance.now()
    const isLong = performance.now() - logTroubledAt >= logTroubleMsMax
    return { state: !isLogReached ? 'starting' : isLong ? 'failed' : 'degraded', detail }
  }

  function saySlowInserts(): void {
    for (const [topic, insert] of inserting) {
      const ms = performance.now() - insert.since
      if (insert.isSaid || ms < slowInsertMs) continue
      insert.isSaid = true
      events.slow(topic, ms / 1000)
    }
  }

  function totals(): StoredTotals {
    const oldest = loops.map((loop) => loop.oldestReceivedAt()).filter((each) => each !== undefined)
    const now = clock.nowMicros()
    return {
      storedReadings: stored.readings,
      storedDeadLetters: stored['dead-letters'],
      storedLagMs: oldest.length === 0 ? 0 : Math.max(0, Math.round((now - Math.min(...oldest)) / 1000)),
      lagChunks,
    }
  }

  return {
    name: 'writer',

    async start() {
      for (const loop of loops) await loop.start()
      void migrateWhenThere()
      lagTimer = setInterval(() => {
        saySlowInserts()
        void Promise.all(loops.map((loop) => loop.lag()))
          .then((lags) => {
            lagChunks = lags.reduce((sum, lag) => sum + lag, 0)
          })
          .catch(() => {})
      }, lagRefreshMs)
      lagTimer.unref()
    },

    async drain(deadline) {
      await Promise.all(loops.map((loop) => loop.drain(deadline)))
    },

    async stop() {
      ending.abort()
      clearInterval(lagTimer)
      await Promise.all(loops.map((loop) => loop.stop()))
    },

    health() {
      const all = [...troubles.values(), ...standing()]
      const worst = all.find(({ state }) => state === 'failed') ?? logTrouble() ?? slowInsert() ?? all[0]
      if (worst) return worst
      return isMigrated ? { state: 'ok' } : { state: 'starting', detail: 'The store has not been reached yet' }
    },

    totals,
  }
}

function troubleOf(error: Error, what: string): Health {
  return { state: error instanceof RetryableError ? 'degraded' : 'failed', detail: `${what}: ${error.message}` }
}

/** Outside of any promise, so that nobody can take it for handled. */
function crashProcess(error: Error): void {
  setImmediate(() => {
    throw error
  })
}
