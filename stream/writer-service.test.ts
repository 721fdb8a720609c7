// The writer with the real log and the real store, and with everything that can go wrong between them.
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { encodeDeadLetter } from '../domain/dead-letter.ts'
import type { EventLog } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { systemClock } from '../runtime/clock.ts'
import { createInstruments, type Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import { silentLogger } from '../runtime/logger.ts'
import { readEndpoint } from '../storage/embedded-server/endpoint.ts'
import { type ClickHouse, openClickHouse } from '../storage/open-clickhouse.ts'
import { rawRetentionSeconds } from '../storage/raw-retention.ts'
import { deadLettersTable, folded, readingsTable } from '../storage/tables.ts'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { type CountedReads, countReads } from '../tests/helpers/counted-reads.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { openEmbeddedLog } from './log/embedded-log.ts'
import { createWriterService, type WriterService, type WriterServiceOptions } from './writer-service.ts'

const start = Date.UTC(2026, 0, 1) * 1000
const backOff = { firstMs: 20, longestMs: 100, random: Math.random }

describe('the writer', () => {
  let server: ClickHouseProcess
  let directory: string
  let log: EventLog
  let reads: CountedReads
  let clickhouse: ClickHouse
  let writer: WriterService
  let instruments: Instruments
  let errors: string[]
  let warnings: string[]
  let next: number
  let tenant: string

  beforeAll(async () => {
    server = await startClickHouse()
  })
  afterAll(() => server?.dispose())

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-writer-'))
    log = await openEmbeddedLog({
      directory,
      mode: 'append',
      partitions: 4,
      quotaBytes: 1e9,
      retentionMs: 1e9,
      groups: ['writer'],
      logger: silentLogger,
      clock: systemClock,
      segmentBytes: 4 * 1024 * 1024,
    })
    reads = countReads(log)
    clickhouse = openClickHouse(() => readEndpoint(server.data), { logger: silentLogger })
    errors = []
    warnings = []
    next = 0
    tenant = `test-${randomUUID()}`
    writer = newWriter()
  })
  afterEach(async () => {
    await writer.stop()
    await clickhouse.close()
    await log.close()
    await rm(directory, { recursive: true, force: true })
  })

  function newWriter(
    more: Partial<Pick<WriterServiceOptions, 'log' | 'retentionRawMs' | 'slowInsertMs' | 'logTroubleMsMax'>> = {},
  ): WriterService {
    const logger: Logger = {
      ...silentLogger,
      error: (fields, message) => errors.push(`${message} ${JSON.stringify(fields)}`),
      warn: (_fields, message) => warnings.push(message ?? ''),
      info: () => {},
      debug: () => {},
      child: () => logger,
    }
    instruments = createInstruments('test')
    return createWriterService({
      log: reads.log,
      clickhouse,
      logger,
      instruments,
      clock: systemClock,
      backOff,
      rejectedRetryMs: 50,
      ...more,
    })
  }
  /** Chunks of 100 readings, over all partitions; each reading has an instant of its own. */
  async function append(chunks: number): Promise<void> {
    await Promise.all(
      Array.from({ length: chunks }, (_, i) => {
        const rows = new RowWriter()
        const prefix = encodeRowPrefix(tenant, `dev-${i % 7}`, 'temperature')
        for (let n = 0; n < 100; n++) rows.number(prefix, start + next++, n, start + next)
        return log.append('readings', i % 4, rows.rows(), 100, systemClock.nowMicros())
      }),
    )
  }
  async function stored(): Promise<{ n: number; distinct: number }> {
    const { rows } = await clickhouse.query<{ n: number; distinct: number }>(
      `SELECT count() AS n, uniqExact(observedAt) AS distinct FROM ${folded(readingsTable)} WHERE tenant = {tenant:String}`,
      { parameters: { tenant } },
    )
    return rows[0]!
  }
  async function retries(): Promise<number> {
    const counter = (await instruments.snapshot()).find(({ name }) => name === 'weir_consumer_retries_total')
    return (counter?.values ?? []).reduce((sum, { value }) => sum + value, 0)
  }
  const allStored = (): Promise<unknown> =>
    waitFor(async () => (await stored()).n === next, { what: 'all readings in the table' })
  const allCommitted = (): Promise<unknown> =>
    waitFor(async () => {
      const [end, committed] = [await log.end('readings'), await log.committed('writer', 'readings')]
      return [...end].every(([partition, offset]) => offset === 0 || committed.get(partition) === offset)
    })

  it('stores what the log holds, counts it, and commits', async () => {
    await append(20)
    await writer.start()
    await append(20)
    await allStored()
    await allCommitted()
    expect(await stored()).toEqual({ n: 4_000, distinct: 4_000 })
    await waitFor(() => writer.totals().storedReadings === 4_000)
    expect(writer.totals()).toMatchObject({ storedDeadLetters: 0, storedLagMs: 0 })
    await waitFor(() => writer.health().state === 'ok')
  })

  it('stores dead letters in their own table', async () => {
    await writer.start()
    const letter = encodeDeadLetter({
      tenant,
      device: 'dev-1',
      id: 'id-1',
      reason: 'malformed-payload',
      detail: 'not JSON',
      metric: '',
      codec: 'json',
      origin: 'devices/dev-1/telemetry',
      receivedAt: start,
      payload: Buffer.from([255, 0]),
    })
    await log.append('dead-letters', 1, letter, 1, start)
    await waitFor(() => writer.totals().storedDeadLetters === 1)
    const { rows } = await clickhouse.query(
      `SELECT id FROM ${folded(deadLettersTable)} WHERE tenant = {tenant:String}`,
      { parameters: { tenant } },
    )
    expect(rows).toEqual([{ id: 'id-1' }])
  })

  it('starts while the store is away, says so, and catches up when it comes', async () => {
    await server.kill()
    await writer.start()
    await append(30)
    await waitFor(() => writer.health().state === 'degraded')
    expect(writer.health().detail).toMatch(/store/)
    expect(writer.totals().storedReadings).toBe(0)
    await waitFor(() => writer.totals().storedLagMs > 0)
    await server.start()
    await allStored()
    await waitFor(() => writer.health().state === 'ok')
    expect(await stored()).toEqual({ n: 3_000, distinct: 3_000 })
  })

  it('the store killed again and again, and writers stopped at any moment: nothing lost, nothing twice', async () => {
    await writer.start()
    for (let round = 0; round < 6; round++) {
      const appending = (async () => {
        for (let i = 0; i < 10; i++) await append(40)
      })()
      if (round % 2 === 0) {
        await server.kill()
        await server.start()
      } else {
        // As a process that is killed: what was in hand is not committed.
        await writer.stop()
        writer = newWriter()
        await writer.start()
      }
      await appending
    }
    await allStored()
    await allCommitted()
    expect(await stored()).toEqual({ n: next, distinct: next })
    expect(errors).toEqual([])
  })

  it('rows that the store refuses stop it with an alarm that names them; nothing is skipped', async () => {
    await writer.start()
    await append(4)
    await allStored()
    await allCommitted()
    await log.append('readings', 2, Buffer.from([255, 255, 255, 255, 1]), 1, start)
    await append(8)
    await waitFor(() => writer.health().state === 'failed')
    expect(writer.health().detail).toMatch(/readings .*2: 1-/)
    await waitFor(() => errors.length > 0)
    expect(errors.join()).toMatch(/refuses rows.*2: 1-/)
    expect((await log.committed('writer', 'readings')).get(2)).toBe(1)
    // Tried again, slowly; said once.
    await waitFor(async () => (await retries()) >= 3)
    expect(errors).toHaveLength(1)
  })

  it('a store that was emptied is made ready again, and takes what comes', async () => {
    await writer.start()
    await append(4)
    await allStored()
    await clickhouse.command('DROP TABLE weir.readings SYNC')
    await clickhouse.command('TRUNCATE TABLE weir.migrations')
    const before = next
    await append(4)
    await waitFor(async () => (await stored()).n === next - before)
    await waitFor(() => writer.health().state === 'ok')
  })

  it('readings leave the table at the age that was set, whenever they came; it can be changed, and taken back', async () => {
    const dayMs = 86_400_000
    const old = (): Promise<number> => count('observedAt < now() - INTERVAL 30 DAY')
    async function count(condition: string): Promise<number> {
      const { rows } = await clickhouse.query<{ n: number }>(
        `SELECT count() AS n FROM ${folded(readingsTable)} WHERE tenant = {tenant:String} AND ${condition}`,
        { parameters: { tenant } },
      )
      return rows[0]!.n
    }
    async function appendAt(observedAtMs: number): Promise<void> {
      const rows = new RowWriter()
      rows.number(encodeRowPrefix(tenant, 'dev-1', 'temperature'), observedAtMs * 1000, 1, observedAtMs * 1000)
      await log.append('readings', 0, rows.rows(), 1, systemClock.nowMicros())
    }
    async function again(retentionRawMs?: number): Promise<void> {
      await writer.stop()
      writer = newWriter(retentionRawMs === undefined ? {} : { retentionRawMs })
      await writer.start()
      const seconds = retentionRawMs === undefined ? undefined : retentionRawMs / 1000
      await waitFor(async () => (await rawRetentionSeconds(clickhouse)) === seconds)
    }
    const now = Date.now()
    await writer.start()
    for (const days of [0, 29, 31, 3_000]) await appendAt(now - days * dayMs)
    await waitFor(async () => (await count('1')) === 4)
    expect(await rawRetentionSeconds(clickhouse)).toBeUndefined()
    await again(30 * dayMs)
    await waitFor(async () => (await old()) === 0, { what: 'what was there already to leave' })
    expect(await count('1')).toBe(2)
    await appendAt(now - 40 * dayMs)
    await allCommitted()
    await clickhouse.command(`OPTIMIZE TABLE ${readingsTable.name} FINAL`)
    expect(await count('1')).toBe(2)
    await again(3_650 * dayMs)
    await again()
    await appendAt(now - 5_000 * dayMs)
    await allCommitted()
    await clickhouse.command(`OPTIMIZE TABLE ${readingsTable.name} FINAL`)
    expect(await count('1')).toBe(3)
  })

  it('a store that hangs is said, though no connection breaks', async () => {
    await writer.stop()
    writer = newWriter({ slowInsertMs: 100 })
    await writer.start()
    await append(1)
    await allStored()
    process.kill(server.pid(), 'SIGSTOP')
    try {
      await append(4)
      await waitFor(() => writer.health().state === 'degraded')
      expect(writer.health().detail).toMatch(/readings wait in the log: the store has not taken a batch for \d+ s/)
      await waitFor(() => warnings.some((message) => /has not taken a batch/.test(message)))
    } finally {
      process.kill(server.pid(), 'SIGCONT')
    }
    await allStored()
    await waitFor(() => writer.health().state === 'ok')
  })

  it('a log that gives nothing makes it less than well, and not ready when that lasts', async () => {
    await writer.stop()
    let trouble: string | undefined = 'Kafka does not answer for the group; trying again'
    const away: EventLog = Object.assign(Object.create(log), {
      subscribe: async (...given: Parameters<EventLog['subscribe']>) =>
        Object.assign(await log.subscribe(...given), { trouble: () => trouble }),
    })
    const states: string[] = []
    const seen = (state: string): Promise<unknown> =>
      waitFor(() => {
        const health = writer.health()
        if (health.state !== states.at(-1)) states.push(health.state)
        expect(health.detail).toBe(trouble)
        return health.state === state
      })
    writer = newWriter({ log: away, logTroubleMsMax: 500 })
    await writer.start()
    await seen('starting')
    trouble = undefined
    await waitFor(() => writer.health().state === 'ok')
    states.length = 0
    trouble = 'Kafka can’t be read; trying again'
    await seen('failed')
    expect(states).toEqual(['degraded', 'failed'])
    trouble = undefined
    await seen('ok')
    // The next trouble begins anew.
    trouble = 'Kafka can’t be read; trying again'
    expect(writer.health()).toEqual({ state: 'degraded', detail: trouble })
  })

  it('drain stores what was read', async () => {
    await writer.start()
    await append(10)
    await waitFor(() => reads.given('readings') === 10)
    await writer.drain(AbortSignal.timeout(60_000))
    await allCommitted()
    expect((await stored()).n).toBe(1_000)
  })
})
