// Roles as separate processes that share the work by partitions: two that take readings in, two that write, two that look for anomalies, one that
// answers. Some are killed, some freeze, some come and go; what comes of it is what one of each would have made.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AnomaliesAnswer } from '../../api/wire.ts'
import type { EventLog } from '../../domain/event-log.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { openKafkaLog } from '../../stream/log/kafka-log.ts'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt, type RawPublisher } from '../helpers/mqtt-raw.ts'
import { oddEnvironment, oddMessagesMin, publishOddReadings, undisturbed } from '../helpers/odd-readings.ts'
import { readiness } from '../helpers/readiness.ts'
import { SseViewer } from '../helpers/sse.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

describe('roles apart on Kafka', () => {
  const root = mkdtempSync(join(tmpdir(), 'weir-test-apart-'))
  const env = { ...oddEnvironment, WEIR_KAFKA_PREFIX: 'apart.' }
  /** The two that need the store share a directory; the others could be on other machines. */
  const store = join(root, 'store')
  const start = (name: string, ...roles: string[]): Promise<WeirProcess> =>
    startWeir({ data: name === 'store' ? store : join(root, name), roles, env })
  let ingests: WeirProcess[]
  let writer: WeirProcess
  let api: WeirProcess
  let detectors: WeirProcess[]
  let log: EventLog
  let publishers: RawPublisher[] = []

  beforeAll(async () => {
    // Whoever comes first waits for nobody.
    ingests = await Promise.all([start('ingest-1', 'ingest'), start('ingest-2', 'ingest')])
    detectors = await Promise.all([start('detector-1', 'detector'), start('detector-2', 'detector')])
    writer = await start('store', 'writer')
    api = await start('store', 'writer', 'api')
    log = await openKafkaLog({
      endpoint: {
        brokers: process.env.WEIR_TEST_KAFKA_BROKERS!.split(','),
        requestTimeoutMs: 10_000,
        logger: silentLogger,
      },
      prefix: 'apart.',
      mode: 'read',
      partitions: 4,
      retentionMs: 3_600_000,
      compression: 'none',
      sessionTimeoutMs: 10_000,
      logger: silentLogger,
    })
    publishers = publishOddReadings((device) => ingests[device % 2]!.mqtt)
  }, 180_000)
  afterAll(async () => {
    for (const publisher of publishers) publisher.stop()
    await log?.close()
    rmSync(root, { recursive: true, force: true })
  })

  const storedOf = async (device: string): Promise<number> => {
    let count = 0
    for await (const _ of allReadings(api.http, { device, from: '0' })) count++
    return count
  }
  const positions = async (): Promise<number[]> => {
    const committed = await log.committed('writer', 'readings')
    return [0, 1, 2, 3].map((partition) => committed.get(partition) ?? 0)
  }
  const publish = async (ingest: WeirProcess, device: string, ts: number, value: number): Promise<void> => {
    const client = await RawMqtt.connected(ingest.mqtt, device)
    await client.publish(`devices/${device}/telemetry`, `{"ts": ${ts}, "v": ${value}}`)
    client.destroy()
  }

  it('each process is only what it was asked to be, and says how it is', async () => {
    expect(ingests.map(({ urls }) => Object.keys(urls))).toEqual([
      ['mqtt', 'gateway'],
      ['mqtt', 'gateway'],
    ])
    expect(Object.keys(detectors[0]!.pids()).sort(), 'detection on Kafka needs no store').toEqual(['ingest', 'serve'])
    for (const { urls } of ingests)
      expect(await ask(`${urls.gateway}/readyz`)).toMatchObject({ status: 'ready', parts: { log: { state: 'ok' } } })
  })

  it('last values and live readings are known whoever took them in', async () => {
    const viewer = await SseViewer.open(`${api.http}/v1/live?device=either&mode=every`)
    await viewer.waitForEvent('caught-up')
    for (let i = 0; i < 6; i++) await publish(ingests[i % 2]!, 'either', 1_700_000_000_000 + i, i)
    await waitFor(() => viewer.readings().length >= 6, { withinMs: 15_000, what: 'six live readings' })
    expect(viewer.readings().map(({ value }) => value)).toEqual([0, 1, 2, 3, 4, 5])
    viewer.close()
    const { items } = await ask<{ items: ReadingItem[] }>(`${api.http}/v1/latest?device=either`)
    expect(items.map(({ value }) => value)).toEqual([5])
  }, 60_000)

  it('a writer that is frozen past its session and thawed takes no partition back, and no row comes twice', async () => {
    for (const publisher of publishers) publisher.resume()
    await waitFor(() => publishers.every(({ acknowledged }) => acknowledged > 200), { withinMs: 20_000 })
    const thaw = writer.freeze('serve')
    const frozenAt = await positions()
    // The other one has all partitions once the session is over.
    await waitFor(async () => (await positions()).every((offset, i) => offset > frozenAt[i]! || frozenAt[i] === 0), {
      withinMs: 30_000,
      what: 'the other writer to go on with every partition',
    })
    const before = await positions()
    thaw()
    for (let times = 0; times < 10; times++) {
      await pause(200)
      const now = await positions()
      for (const [partition, offset] of now.entries()) expect(offset).toBeGreaterThanOrEqual(before[partition]!)
    }
    await waitFor(
      () =>
        /"level":40.*apart\.writer\.readings.*the group has gone on without this member; joining again/.test(
          writer.stderr(),
        ),
      { withinMs: 30_000, what: 'the writer to say that it was left out' },
    )
  }, 90_000)

  it('a writer with a store of its own is given nothing: it says so, and stores no share of the readings', async () => {
    for (const publisher of publishers) publisher.resume()
    const data = join(root, 'elsewhere')
    const more = { WEIR_HEALTH_PORT: '0' }
    const other = await startWeir({ data, roles: ['writer'], env: { ...env, ...more }, untilListening: ['health'] })
    const words =
      /apart\.writer\.readings is read by others that store it in .*store on .*, and this process would store its share in .*elsewhere on .*: give all of them one store \(WEIR_CLICKHOUSE\), or end one side/
    const url = other.urls.health!.replace(/\/$/, '')
    await waitFor(
      async () => {
        const { status, body } = await readiness(url)
        return status === 503 && words.test(body.parts.writer?.detail ?? '')
      },
      { withinMs: 60_000, everyMs: 250, what: () => `/readyz to say so; it logged ${other.stderr()}` },
    )
    expect(other.stderr()).toMatch(new RegExp(`"level":50.*${words.source}`))
    const before = await positions()
    await waitFor(async () => (await positions()).every((offset, i) => offset > before[i]! || before[i] === 0), {
      withinMs: 60_000,
      what: 'the others to go on with every partition',
    })
    // Its store may be up before its tables are made.
    const stored = async () =>
      (await queryStore<{ n: number }>(data, "SELECT count() AS n FROM system.tables WHERE name = 'readings'"))[0]!.n >
        0 && (await queryStore<{ n: number }>(data, 'SELECT count() AS n FROM weir.readings'))[0]!
    expect(await waitFor(stored, { withinMs: 30_000, what: 'the tables of its store' })).toEqual({ n: 0 })
    await other.stop()
  }, 150_000)

  it('detectors and writers come and go, one is killed, and an ingest dies with all its devices', async () => {
    await detectors[0]!.kill('all')
    detectors[0] = await start('detector-1', 'detector')
    await detectors[1]!.stop()
    await writer.kill('serve')
    const [first, second] = ingests as [WeirProcess, WeirProcess]
    ingests = [second, second]
    await first.kill('all')
    detectors[1] = await start('detector-2', 'detector')
    await waitFor(() => publishers.every(({ sent }) => sent >= oddMessagesMin), { withinMs: 60_000 })
    for (const publisher of publishers) publisher.pause()
    await waitFor(() => publishers.every(({ acknowledged, sent }) => acknowledged >= sent), { withinMs: 30_000 })
    for (const publisher of publishers) publisher.stop()
  }, 180_000)

  it('every acknowledged reading is in the table, once', async () => {
    await waitFor(
      async () => {
        for (const [device, { sent }] of publishers.entries()) expect(await storedOf(`d${device}`)).toBe(sent)
        return true
      },
      { withinMs: 30_000, everyMs: 250, what: 'all readings in the table' },
    )
    const verified = await runWeir(['verify', '--data', store], { env: { WEIR_KAFKA_PREFIX: 'apart.' } })
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
  }, 90_000)

  it('and what was found is what one detector finds undisturbed: the same ids and scores, each once', async () => {
    const expected = undisturbed(publishers.map(({ sent }) => sent))
    expect(expected.size).toBeGreaterThan(10)
    const found = await waitFor(
      async () => {
        const { items } = await ask<AnomaliesAnswer>(`${api.http}/v1/anomalies?limit=1000`)
        const odd = items.filter(({ device }) => device !== 'either')
        return odd.length >= expected.size && odd
      },
      { withinMs: 30_000, what: `${expected.size} anomalies` },
    )
    expect(new Set(found.map(({ id }) => id)).size).toBe(found.length)
    expect(new Map(found.map(({ device, observedAt, score }) => [`${device} ${observedAt}`, score]))).toEqual(expected)
  }, 60_000)

  it('an api whose store no writer uses is never ready, and says what both must have', async () => {
    const alone = await startWeir({ data: join(root, 'alone'), roles: ['api'], env, untilListening: ['http'] })
    const words = /no writer has made its tables: a writer and an api must have the same store, by WEIR_CLICKHOUSE/
    await waitFor(
      async () => {
        const { status, body } = await readiness(alone.http)
        return status === 503 && words.test(body.parts.api?.detail ?? '')
      },
      { withinMs: 60_000, everyMs: 250, what: '/readyz to say so' },
    )
    expect(alone.stdout()).not.toMatch(/^ready$/m)
    await alone.stop()
  }, 120_000)

  it('each ends in order', async () => {
    for (const each of [ingests[0]!, writer, api, ...detectors]) await each.stop()
  }, 90_000)
})
