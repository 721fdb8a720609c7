// For tests of the api: the real log, writer, embedded ClickHouse and api service in one process, on free ports, in a temporary directory.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type DeadLetter, encodeDeadLetter } from '../domain/dead-letter.ts'
import { type EventLog, partitionOf } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import type { Clock } from '../runtime/clock.ts'
import { OffsetOutOfRangeError } from '../runtime/errors.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import type { ProcessStatus } from '../runtime/status.ts'
import { readEndpoint } from '../storage/embedded-server/endpoint.ts'
import { createEmbeddedServer } from '../storage/embedded-server/server.ts'
import { type ClickHouse, openClickHouse } from '../storage/open-clickhouse.ts'
import { openEmbeddedLog } from '../stream/log/embedded-log.ts'
import { createWriterService } from '../stream/writer-service.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { type ApiService, type ApiServiceOptions, createApiService } from './api-service.ts'
import type { Problem } from './wire.ts'

export interface SentReading {
  readonly device: string
  readonly metric?: string
  /** Epoch microseconds. */
  readonly observedAt: number
  readonly value: number | string
}

export interface Answer<Body> {
  readonly status: number
  readonly headers: Headers
  readonly body: Body
}

export interface World {
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly clock: Clock & { micros: number }
  readonly api: ApiService
  /** Without a slash at the end. */
  readonly url: string
  /** Of the live port: `ws://…`. */
  readonly liveUrl: string
  statuses: ProcessStatus[]
  /** Appends, as one payload of ingest would come: one chunk a partition. Durable when it resolves. */
  send(readings: readonly SentReading[]): Promise<void>
  sendDeadLetter(letter: DeadLetter): Promise<void>
  /** Everything sent is in the table and seen by the api. */
  settle(): Promise<void>
  /** Sends until the log has taken away its first segments. */
  fillLog(): Promise<void>
  get<Body>(path: string): Promise<Answer<Body>>
  problem(path: string): Promise<Problem>
  /** A second api on the same log and store, as after a restart; or on a store that does not do what it should. */
  startApi(
    store?: ClickHouse,
    more?: Pick<ApiServiceOptions, 'gatewayUrl'>,
  ): Promise<{ readonly api: ApiService; readonly url: string }>
  close(): Promise<void>
}

const partitions = 4

const retentionMs = 3_600_000

export async function openWorld(): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'weir-api-'))
  // Starts at a fixed instant, and moves on with what is received.
  const clock = { micros: Date.UTC(2026, 0, 15, 12) * 1000, nowMicros: () => clock.micros }
  const store = createEmbeddedServer({ directory: join(directory, 'clickhouse'), port: 0, logger: silentLogger })
  await store.start()
  const clickhouse = openClickHouse(() => readEndpoint(directory), { logger: silentLogger })
  const log = await openEmbeddedLog({
    directory: join(directory, 'log'),
    mode: 'append',
    partitions,
    quotaBytes: 1024 ** 3,
    retentionMs,
    groups: ['writer'],
    segmentBytes: 1024 * 1024,
    logger: silentLogger,
    clock,
  })
  const shared = { log, clickhouse, clock, logger: silentLogger }
  const writer = createWriterService({ ...shared, instruments: createInstruments('writer') })
  await writer.start()
  const apis: ApiService[] = []
  const urls: string[] = []

  async function startApi(store = clickhouse, more: Pick<ApiServiceOptions, 'gatewayUrl'> = {}) {
    const config = { host: '127.0.0.1', httpPort: 0, livePort: 0 }
    const status = { all: async () => world.statuses }
    const api = createApiService({
      ...shared,
      clickhouse: store,
      config,
      status,
      instruments: createInstruments('api'),
      ...more,
    })
    await api.start()
    apis.push(api)
    await waitFor(() => api.health().state === 'ok', {
      withinMs: 90_000,
      what: `the api, ${JSON.stringify(api.health())}`,
    })
    const { host, port } = api.httpAddress()
    const url = `http://${host}:${port}`
    urls.push(url)
    return { api, url }
  }

  const world: World = {
    log,
    clickhouse,
    clock,
    get api() {
      return apis[0]!
    },
    get url() {
      return urls[0]!
    },
    get liveUrl() {
      const { host, port } = apis[0]!.liveAddress()!
      return `ws://${host}:${port}`
    },
    statuses: [],

    async send(readings) {
      const writers = new Map<number, RowWriter>()
      for (const { device, metric = 'temperature', observedAt, value } of readings) {
        const partition = partitionOf('default', device, partitions)
        const rows = writers.get(partition) ?? new RowWriter()
        writers.set(partition, rows)
        const prefix = encodeRowPrefix('default', device, metric)
        const receivedAt = ++clock.micros
        if (typeof value === 'number') rows.number(prefix, observedAt, value, receivedAt)
        else rows.text(prefix, observedAt, Buffer.from(value), receivedAt)
      }
      const appends = [...writers].map(([partition, rows]) =>
        log.append('readings', partition, rows.rows(), rows.count, rows.receivedAt),
      )
      await Promise.all(appends)
    },

    async sendDeadLetter(letter) {
      await log.append('dead-letters', 0, encodeDeadLetter(letter), 1, letter.receivedAt)
    },

    async settle() {
      for (const topic of ['readings', 'dead-letters'] as const) {
        const end = await log.end(topic)
        await waitFor(
          async () => {
            const committed = await log.committed('writer', topic)
            return [...end].every(([partition, offset]) => (committed.get(partition) ?? 0) >= offset)
          },
          { withinMs: 60_000, what: `the writer to have stored ${topic}` },
        )
      }
      await waitFor(
        async () =>
          (await this.get<{ stages: { seen: { lagMs: number } } }>('/v1/pipeline')).body.stages.seen.lagMs === 0,
      )
    },

    async fillLog() {
      await this.settle()
      const filling = Array.from({ length: 500 }, (_, i) => ({
        ...{ device: 'filler', metric: `m${i}`, value: 'x'.repeat(900) },
      }))
      await waitFor(
        async () => {
          clock.micros += 2 * retentionMs * 1000
          await this.send(filling.map((each) => ({ ...each, observedAt: clock.micros })))
          const signal = AbortSignal.timeout(10_000)
          try {
            for await (const _ of log.tail('readings', new Map(), signal)) return false
          } catch (error) {
            return error instanceof OffsetOutOfRangeError
          }
          return false
        },
        { withinMs: 40_000, everyMs: 1, what: 'retention to have passed the beginning of the log' },
      )
      await this.settle()
    },

    async get<Body>(path: string) {
      const response = await fetch(`${this.url}${path}`)
      const text = await response.text()
      const isJson = /json/.test(response.headers.get('content-type') ?? '')
      return { status: response.status, headers: response.headers, body: (isJson ? JSON.parse(text) : text) as Body }
    },

    async problem(path) {
      const { headers, body } = await this.get<Problem>(path)
      if (!headers.get('content-type')?.startsWith('application/problem+json')) {
        throw new Error(`${path} answered no problem: ${JSON.stringify(body).slice(0, 300)}`)
      }
      return body
    },

    startApi,

    async close() {
      for (const api of apis) await api.stop()
      await writer.drain(AbortSignal.timeout(60_000))
      await writer.stop()
      await log.close()
      await clickhouse.close()
      await store.drain(AbortSignal.timeout(60_000))
      await store.stop()
      await rm(directory, { recursive: true, force: true })
    },
  }
  await startApi()
  return world
}

export function deadLetterOf(receivedAt: number, fields: Partial<DeadLetter>): DeadLetter {
  return {
    tenant: 'default',
    device: 'boiler-1',
    id: `${receivedAt.toString(16).padStart(16, '0')}-00000000`,
    reason: 'malformed-payload',
    detail: 'Not JSON.',
    metric: '',
    codec: 'json',
    origin: 'devices/boiler-1/telemetry',
    payload: Buffer.from('{'),
    receivedAt,
    ...fields,
  }
}
