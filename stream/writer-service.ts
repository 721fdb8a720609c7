// The writer: readings, anomalies and dead letters from the log into the store, as the bytes that they are. The position is committed only after the
// insert returned, so a crash anywhere means that rows are inserted again, and the table folds them. While the store is away the log is the buffer.
import { setTimeout as delay } from 'node:timers/promises'
import type { EventLog, LogTopic } from '../domain/event-log.ts'
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
import { anomaliesTable, deadLettersTable, readingsTable, type Table } from '../storage/tables.ts'
import type { BatchLimits } from './batch-policy.ts'
import { type BackOff, type Batch, backOffMs, ConsumerLoop } from './consumer-loop.ts'
import { createConsumerEvents, createWriterEvents, offsetsOf } from './events.ts'

export interface WriterServiceOptions {
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly logger: Logger
  readonly instruments: Instruments
  readonly clock: Clock
  /** Called when the writer can't go on; else the process crashes. */
  readonly crash?: (error: Error) => void
  readonly limits?: BatchLimits
  readonly backOff?: BackOff
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
const topics = Object.keys(tables) as readonly LogTopic[]
const lagRefreshMs = 1_000
/** The schema is not what it should be (UNKNOWN_TABLE, UNKNOWN_DATABASE): somebody has emptied the store under us. */
const schemaMissingCodes = new Set([60, 81])

export function createWriterService(options: WriterServiceOptions): WriterService {
  const { log, clickhouse, logger, clock } = options
  const events = createWriterEvents(options)
  const stored: Record<LogTopic, number> = { readings: 0, anomalies: 0, 'dead-letters': 0 }
  const troubles = new Map<LogTopic | 'migrations', Health>()
  const ending = new AbortController()
  let migrating: Promise<void> | undefined
  let isMigrated = false
  let lagChunks = 0
  let lagTimer: NodeJS.Timeout | undefined

  const loops = topics.map(
    (topic) =>
      new ConsumerLoop({
        log,
        group: writerGroup,
        topic,
        events: createConsumerEvents({ group: writerGroup, topic, logger, instruments: options.instruments }),
        crash: options.crash ?? crashProcess,
        handle: (batch, stop) => store(topic, batch, stop),
        ...(options.limits && { limits: options.limits }),
        ...(options.backOff && { backOff: options.backOff }),
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

  async function store(topic: LogTopic, batch: Batch, stop: AbortSignal): Promise<void> {
    try {
      await ensureMigrated()
      const began = performance.now()
      const rows = batch.chunks.map((chunk) => chunk.rows)
      await insertRows(clickhouse, tables[topic], rows, { signal: stop })
      events.stored(topic, batch.rows, (performance.now() - began) / 1000)
    } catch (error) {
      if (stop.aborted) throw error
      throw troubled(topic, batch, error as Error)
    }
    stored[topic] += batch.rows
    troubles.delete(topic)
  }

  /** What the consumer loop is to do with it, and what health says meanwhile. */
  function troubled(topic: LogTopic, batch: Batch, error: Error): Error {
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

  return {
    name: 'writer',

    async start() {
      for (const loop of loops) await loop.start()
      void migrateWhenThere()
      lagTimer = setInterval(() => {
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
      const all = [...troubles.values()]
      const worst = all.find(({ state }) => state === 'failed') ?? all[0]
      if (worst) return worst
      return isMigrated ? { state: 'ok' } : { state: 'starting', detail: 'The store has not been reached yet' }
    },

    totals() {
      const oldest = loops.map((loop) => loop.oldestReceivedAt()).filter((each) => each !== undefined)
      const now = clock.nowMicros()
      return {
        storedReadings: stored.readings,
        storedDeadLetters: stored['dead-letters'],
        storedLagMs: oldest.length === 0 ? 0 : Math.max(0, Math.round((now - Math.min(...oldest)) / 1000)),
        lagChunks,
      }
    },
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
