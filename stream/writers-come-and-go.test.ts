// A storm of writers on one Kafka: for a minute they join and leave, some before they were given anything, some with rows in hand. All the while readings
// are appended; every one that was acknowledged is in the table, once, and the log of each writer says who has what.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { EventLog } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { systemClock } from '../runtime/clock.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { type Logger, silentLogger } from '../runtime/logger.ts'
import { readEndpoint } from '../storage/embedded-server/endpoint.ts'
import { type ClickHouse, openClickHouse } from '../storage/open-clickhouse.ts'
import { folded, readingsTable } from '../storage/tables.ts'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../tests/helpers/kafka.ts'
import { pause, waitFor } from '../tests/helpers/wait-for.ts'
import { openKafkaLog } from './log/kafka-log.ts'
import { createWriterService, type WriterService, writerGroup } from './writer-service.ts'

/** The short form: WEIR_TEST_STORM_SECONDS=60 is a storm. */
const stormMs = Number(process.env.WEIR_TEST_STORM_SECONDS ?? 20) * 1_000
const clusterMsMax = 120_000
const partitions = 4
const rowsEach = 50
const start = Date.UTC(2026, 0, 1) * 1_000

interface LogLine {
  readonly level: 'info' | 'warn' | 'error'
  readonly message: string
  readonly fields: { readonly group?: string; readonly generation?: number; readonly partitions?: readonly number[] }
}
interface RunningWriter {
  readonly service: WriterService
  readonly log: EventLog
}

describe.skipIf(kafkaMissing())('a storm of writers', () => {
  let kafka: TestKafka
  let store: ClickHouseProcess
  let clickhouse: ClickHouse
  const toClose: { close(): Promise<void> }[] = []
  const writers = new Set<RunningWriter>()
  const lines: LogLine[] = []
  const tenant = `test-${randomUUID()}`
  const prefix = 'storm.'
  beforeAll(async () => {
    ;[kafka, store] = await Promise.all([startKafka(), startClickHouse()])
    clickhouse = openClickHouse(() => readEndpoint(store.data), { logger: silentLogger })
    toClose.push(clickhouse)
  }, 240_000)
  afterAll(async () => {
    for (const each of writers) await end(each, 0)
    for (const each of toClose.reverse()) await each.close()
    await Promise.all([kafka?.dispose(), store?.dispose()])
  }, 120_000)

  const collecting: Logger = {
    debug() {},
    info: (fields, message) => lines.push({ level: 'info', message: message ?? '', fields }),
    warn: (fields, message) => lines.push({ level: 'warn', message: message ?? '', fields }),
    error: (fields, message) => lines.push({ level: 'error', message: message ?? '', fields }),
    child: () => collecting,
  }
  const openLog = (mode: 'append' | 'read', logger: Logger): Promise<EventLog> =>
    openKafkaLog({
      endpoint: { brokers: kafka.brokers, requestTimeoutMs: 10_000, logger },
      prefix,
      mode,
      partitions,
      retentionMs: 3_600_000,
      compression: 'none',
      sessionTimeoutMs: 6_000,
      patienceMs: 60_000,
      logger,
    })
  /** As a process of its own would: with connections of its own to both sides. */
  async function come(): Promise<void> {
    const log = await openLog('read', collecting)
    const service = createWriterService({
      log,
      clickhouse,
      logger: collecting,
      instruments: createInstruments('test'),
      clock: systemClock,
    })
    writers.add({ service, log })
    await service.start()
  }
  /** `drainMs` 0: what it has in hand is not committed, and is read again by another. */
  async function end(writer: RunningWriter, drainMs: number): Promise<void> {
    writers.delete(writer)
    if (drainMs > 0) await writer.service.drain(AbortSignal.timeout(drainMs))
    await writer.service.stop()
    await writer.log.close()
  }
  const oldest = (): RunningWriter => [...writers][0]!
  const newest = (): RunningWriter => [...writers].at(-1)!
  const committed = async (log: EventLog): Promise<number[]> => {
    // A broker that has just started takes a moment to know its groups.
    const position = await waitFor(() => log.committed(writerGroup, 'readings'), { withinMs: clusterMsMax })
    return Array.from({ length: partitions }, (_, partition) => position.get(partition) ?? 0)
  }

  it(
    `of ${stormMs / 1_000} s loses nothing and stores nothing twice, and says each time who has what`,
    async () => {
      const log = await openLog('append', silentLogger)
      toClose.push(log)
      let acknowledged = 0
      let isOver = false
      const appending = Array.from({ length: partitions }, async (_, partition) => {
        for (let i = 0; !isOver; i++) {
          const rows = new RowWriter()
          const row = encodeRowPrefix(tenant, `dev-${partition}`, 'temperature')
          for (let n = 0; n < rowsEach; n++) rows.number(row, start + i * rowsEach + n, n, systemClock.nowMicros())
          await log.append('readings', partition, rows.rows(), rowsEach, systemClock.nowMicros())
          acknowledged += rowsEach
          await pause(20)
        }
      })
      // Awaited below; should something else fail before, that is what is told.
      for (const each of appending) each.catch(() => {})
      await come()
      const until = performance.now() + stormMs
      let rounds = 0
      let before = await committed(log)
      for (; performance.now() < until || rounds < 3; rounds++) {
        await Promise.all([come(), come()])
        // Every other time nobody waits for the shares to be dealt.
        if (rounds % 2 === 0) await pause(1_500)
        await Promise.all([end(oldest(), 5_000), end(newest(), 0)])
        const now = await committed(log)
        for (const [partition, offset] of now.entries()) expect(offset).toBeGreaterThanOrEqual(before[partition]!)
        before = now
      }
      isOver = true
      await Promise.all(appending)
      const found = await waitFor(
        async () => {
          const { rows } = await clickhouse.query<{ n: number; distinct: number }>(
            `SELECT count() AS n, uniqExact(device, observedAt) AS distinct FROM ${folded(readingsTable)} WHERE tenant = {tenant:String}`,
            { parameters: { tenant } },
          )
          return rows[0]!.n >= acknowledged && rows[0]
        },
        { withinMs: clusterMsMax, everyMs: 250, what: () => `${acknowledged} readings in the table` },
      )
      expect(found).toEqual({ n: acknowledged, distinct: acknowledged })
      const ends = [...(await log.end('readings')).values()]
      await waitFor(async () => expect(await committed(log)).toEqual(ends) ?? true, { withinMs: clusterMsMax })

      const dealt = lines.filter(({ message }) => message === 'partitions are shared out')
      const generations = new Set(
        dealt
          .filter(({ fields }) => fields.group === `${prefix}writer.readings`)
          .map(({ fields }) => fields.generation),
      )
      console.log(`${rounds} rounds, ${generations.size} generations, ${acknowledged} readings`)
      // In a round that does not wait, those who come may be gone before they have joined.
      expect(generations.size).toBeGreaterThanOrEqual(rounds / 4)
      for (const { fields } of dealt) expect(fields.partitions).toBeInstanceOf(Array)
      // Coming and going is nothing that a person is needed for.
      expect(lines.filter(({ level }) => level === 'error')).toEqual([])
    },
    stormMs + 2 * clusterMsMax + 60_000,
  )
})
