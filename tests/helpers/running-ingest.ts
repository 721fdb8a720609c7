// The role ingest on a free port with a real log in a directory of its own, for tests that go through its sockets. The log's appends can be held,
// which is what a disk that stalls looks like from above.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventLog, LogTopic } from '../../domain/event-log.ts'
import { RowCursor } from '../../domain/row-format.ts'
import { createIngestService, type IngestService, type IngestServiceOptions } from '../../ingest/ingest-service.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createInstruments } from '../../runtime/instruments.ts'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from '../../stream/log/embedded-log.ts'
import { waitFor } from './wait-for.ts'

export interface KeptReading {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly value: number | string
}

export interface RunningIngest {
  readonly service: IngestService
  readonly address: { host: string; port: number }
  readonly gateway: { host: string; port: number }
  /** From now on no append becomes durable … */
  stall(): void
  /** … until now. */
  goOn(): void
  /** Everything durable so far. */
  readings(): Promise<KeptReading[]>
  deadLetterCount(): Promise<number>
  /** Rows of dead letters, chunk by chunk. */
  deadLetterRows(): Promise<Buffer[]>
  /** Sum over all labels, or of the one with `cause`. */
  counted(name: string, cause?: string): Promise<number>
  close(): Promise<void>
}

export interface IngestSettings {
  readonly topicsOpen?: boolean
  readonly connectionsMax?: number
  readonly memoryBytes?: number
  readonly authenticate?: IngestServiceOptions['authenticate']
  readonly config?: Partial<IngestServiceOptions['config']>
  readonly registry?: IngestServiceOptions['registry']
  readonly logger?: Logger
}

export async function runIngest(settings: IngestSettings = {}): Promise<RunningIngest> {
  const directory = mkdtempSync(join(tmpdir(), 'weir-ingest-'))
  const log = await openEmbeddedLog({
    directory,
    mode: 'append',
    partitions: 4,
    quotaBytes: 1024 ** 3,
    retentionMs: 3_600_000,
    groups: [],
    segmentBytes: 8 * 1024 ** 2,
    logger: silentLogger,
    clock: systemClock,
  })
  const gate = new Gate()
  const instruments = createInstruments('test')
  const service = createIngestService({
    config: {
      host: '127.0.0.1',
      mqttPort: 0,
      gatewayPort: 0,
      mqttTopicsOpen: settings.topicsOpen ?? false,
      mqttConnectionsMax: settings.connectionsMax ?? 1000,
      ingestMemory: settings.memoryBytes ?? 64 * 1024 ** 2,
      ...settings.config,
    },
    log: gate.before(log),
    clock: systemClock,
    logger: settings.logger ?? silentLogger,
    instruments,
    ...(settings.registry && { registry: settings.registry }),
    ...(settings.authenticate && { authenticate: settings.authenticate }),
  })
  await service.start()
  return {
    service,
    address: service.mqttAddress(),
    gateway: service.gatewayAddress(),
    stall: () => gate.shut(),
    goOn: () => gate.open(),
    readings: () => readings(log),
    deadLetterCount: async () => (await chunks(log, 'dead-letters')).reduce((sum, chunk) => sum + chunk.count, 0),
    deadLetterRows: async () => (await chunks(log, 'dead-letters')).map(({ rows }) => Buffer.from(rows)),
    async counted(name, cause) {
      const metric = (await instruments.snapshot()).find((each) => each.name === name)
      const values = metric?.values.filter(({ labels }) => cause === undefined || labels.cause === cause) ?? []
      return values.reduce((sum, { value }) => sum + value, 0)
    },
    async close() {
      gate.open()
      await service.drain(AbortSignal.timeout(30_000))
      await service.stop()
      await log.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Holds appends back. */
class Gate {
  private waiting: (() => void)[] | undefined

  shut(): void {
    this.waiting ??= []
  }

  open(): void {
    const waiting = this.waiting ?? []
    this.waiting = undefined
    for (const go of waiting) go()
  }

  before(log: EventLog): EventLog {
    return new Proxy(log, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        if (name !== 'append') return member.bind(target)
        return async (...given: unknown[]) => {
          await new Promise<void>((go) => (this.waiting ? this.waiting.push(go) : go()))
          return member.apply(target, given)
        }
      },
    })
  }
}

async function chunks(log: EventLog, topic: LogTopic) {
  const end = await log.end(topic)
  const found: { rows: Uint8Array; count: number }[] = []
  const wanted = [...end.values()].reduce((sum, offset) => sum + offset, 0)
  if (wanted === 0) return found
  const stop = new AbortController()
  for await (const some of log.tail(topic, new Map(), stop.signal)) {
    found.push(...some.filter((chunk) => chunk.offset < (end.get(chunk.partition) ?? 0)))
    if (found.length >= wanted) break
  }
  stop.abort()
  return found
}

async function readings(log: EventLog): Promise<KeptReading[]> {
  const found: KeptReading[] = []
  for (const chunk of await chunks(log, 'readings')) {
    const cursor = new RowCursor(chunk.rows)
    while (cursor.next()) {
      const value = cursor.isText() ? cursor.text() : cursor.value
      found.push({ device: cursor.device(), metric: cursor.metric(), observedAt: cursor.observedAt, value })
    }
  }
  return found
}

/** Waits until so many readings are durable. */
export function waitForReadings(ingest: RunningIngest, count: number): Promise<true> {
  return waitFor(() => ingest.service.totals().durableReadings >= count, { what: `${count} durable readings` })
}
