// Two processes take readings in whose clocks are four seconds apart, into the same partitions: a viewer that begins in the past, or comes back when the
// log no longer reaches to where it was, is told each reading once, although receivedAt does not tell the log's order. WEIR_TEST_SEED: other chances.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EventLog, partitionOf } from '../../domain/event-log.ts'
import { defaultTenant } from '../../domain/reading.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { createAdmin } from '../../stream/log/kafka-client.ts'
import { openKafkaLog } from '../../stream/log/kafka-log.ts'
import { allReadings } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { RoamingViewer } from '../helpers/roaming-viewer.ts'
import { projectDirectory } from '../helpers/spawn-weir.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const random = createRandom(Number(process.env.WEIR_TEST_SEED ?? 20_261_122))
const firstAt = 1_700_000_000_000
const devices = 4
const partitions = 2
const viewersMax = 12
const ratePerS = 250
const shiftsMs = [2_000, -2_000]

describe('the seam between two clocks', () => {
  const root = mkdtempSync(join(tmpdir(), 'weir-test-clocks-'))
  const prefix = `${basename(root)}.`
  const start = (name: string, roles: readonly string[], shiftMs = 0): Promise<WeirProcess> =>
    startWeir({
      data: join(root, name),
      roles,
      env: {
        WEIR_KAFKA_PREFIX: prefix,
        WEIR_PARTITIONS: String(partitions),
        ...(shiftMs !== 0 && {
          NODE_OPTIONS: `--require=${join(projectDirectory, 'tests/helpers/shifted-clock.cjs')}`,
          SHIFTED_CLOCK_MS: String(shiftMs),
        }),
      },
    })
  const endpoint = {
    brokers: (process.env.WEIR_TEST_KAFKA_BROKERS ?? '').split(','),
    requestTimeoutMs: 10_000,
    logger: silentLogger,
  }
  const publishers: RawPublisher[] = []
  const viewers: { readonly from: number; readonly viewer: RoamingViewer }[] = []
  let ingests: WeirProcess[]
  let server: WeirProcess | undefined
  let log: EventLog

  beforeAll(async () => {
    ingests = [await start('ahead', ['ingest'], shiftsMs[0]), await start('behind', ['ingest'], shiftsMs[1])]
    server = await start('store', ['writer', 'api'])
    log = await openKafkaLog({
      ...{ endpoint, prefix, mode: 'read', partitions, retentionMs: 3_600_000, compression: 'none' },
      ...{ sessionTimeoutMs: 10_000, logger: silentLogger },
    })
    for (let device = 0; device < devices; device++) {
      // Two that differ by two in their numbers are of one partition.
      const { mqtt } = ingests[device >> 1]!
      publishers.push(
        new RawPublisher({
          address: () => mqtt,
          clientId: `clock-${device}`,
          window: 50,
          ratePerS,
          resend: true,
          message: (index) => ({
            topic: `devices/clock-${device}/telemetry`,
            payload: `{"ts":${firstAt + index},"v":${index}}`,
          }),
          onAcknowledged: () => {},
        }),
      )
    }
  }, 180_000)
  afterAll(async () => {
    for (const publisher of publishers) publisher.stop()
    await Promise.all(viewers.map(({ viewer }) => viewer.stop()))
    await log?.close()
    rmSync(root, { recursive: true, force: true })
  })

  function begin(staysMs: readonly [number, number]): RoamingViewer {
    const from = random.between(0, Math.max(0, publishers[0]!.sent - 100))
    const viewer = new RoamingViewer({
      addresses: () => server && { http: server.http, live: server.urls.live! },
      query: 'device=clock-*&mode=every',
      since: String(firstAt + from),
      random,
      onStarted: () => {},
      staysMs,
    })
    viewers.push({ from, viewer })
    return viewer
  }

  /** Throws while something is missing, and for good when something came twice. */
  function check({ from, viewer }: (typeof viewers)[number]): boolean {
    expect(viewer.broken).toBeUndefined()
    const missing: string[] = []
    for (const [device, { sent, timesSent }] of publishers.entries()) {
      for (let index = from; index < sent; index++) {
        const key = `clock-${device} v ${firstAt + index}`
        const told = viewer.told.get(key)
        if (told === undefined) {
          if (!isDeclared(viewer, firstAt + index)) missing.push(key)
        } else if (told.times > (timesSent.get(index) ?? 1)) throw new Error(`${key} was told ${told.times} times`)
      }
    }
    const { gaps, endings, connections, told } = viewer
    if (missing.length > 0)
      throw new Error(
        `${missing.length} are missing from ${from} on, ${missing[0]} to ${missing.at(-1)}: ${told.size} told over ` +
          `${connections} connections, gaps ${JSON.stringify(gaps)}, ended ${endings}`,
      )
    return true
  }

  /** On a machine that is slow enough the table does not answer in time, and that is said. Nothing else may be missing here. */
  function isDeclared({ gaps }: RoamingViewer, observedAt: number): boolean {
    return gaps.some(
      ({ cause, from, to }) => cause === 'store-away' && observedAt >= Number(from) && observedAt <= Number(to),
    )
  }

  const settled = async (): Promise<void> => {
    for (const publisher of publishers) publisher.pause()
    for (const publisher of publishers) await publisher.settled(30_000)
  }
  const allStored = (): Promise<boolean> =>
    waitFor(
      async () => {
        const [committed, end] = [await log.committed('writer', 'readings'), await log.end('readings')]
        return [...end].every(([partition, offset]) => (committed.get(partition) ?? 0) >= offset)
      },
      { withinMs: 30_000, everyMs: 250, what: 'the writer to have all' },
    )

  it('viewers who begin in the past at any moment are told each reading once', async () => {
    for (const publisher of publishers) publisher.resume()
    await waitFor(() => publishers.every(({ sent }) => sent > 4 * ratePerS), { withinMs: 60_000, what: 'readings' })
    for (let i = 0; i < viewersMax; i++) {
      begin(i % 3 === 0 ? [200, 1_500] : [60_000, 60_000])
      await pause(random.between(50, 700))
    }
    await settled()
    for (const { viewer } of viewers) viewer.settle()
    for (const each of viewers)
      await waitFor(() => check(each), { withinMs: 45_000, everyMs: 250, what: 'each reading, once' })
  }, 240_000)

  it('both clocks were in each partition’s order', async () => {
    const received = new Map<string, number>()
    const question = { device: 'clock-*', metric: 'v', from: String(firstAt + 500), to: String(firstAt + 501) }
    const ask = async (): Promise<boolean> => {
      for await (const item of allReadings(server!.http, question)) received.set(item.device, item.receivedAt)
      return received.size === devices
    }
    await waitFor(() => ask(), { withinMs: 45_000, everyMs: 500, what: 'a reading of each device' })
    for (const [ahead, behind] of [
      ['clock-0', 'clock-2'],
      ['clock-1', 'clock-3'],
    ] as const) {
      expect(partitionOf(defaultTenant, ahead, partitions)).toBe(partitionOf(defaultTenant, behind, partitions))
      expect(received.get(ahead)! - received.get(behind)!).toBeGreaterThan(2_000)
    }
  }, 60_000)

  it('and those who come back when the log is gone go on in the table, where they stood', async () => {
    await Promise.all(viewers.map(({ viewer }) => viewer.stop()))
    viewers.length = 0
    // Away at different moments, each with a cursor of live.
    for (const publisher of publishers) publisher.resume()
    for (let i = 0; i < 6; i++) begin([600_000, 600_000])
    for (const { viewer } of viewers) await waitFor(() => viewer.told.size > 100, { withinMs: 30_000 })
    await pause(1_000)
    const gone = server!
    server = undefined
    await gone.stop()
    await pause(3_000)
    await settled()
    server = await start('store', ['writer', 'api'])
    const back = server
    server = undefined
    await allStored()
    const admin = createAdmin(endpoint)
    await admin.connect()
    const end = await log.end('readings')
    const topic = `${prefix}readings`
    // Only so does it know who leads.
    await admin.fetchTopicOffsets(topic)
    await admin.deleteTopicRecords({
      topic,
      partitions: [...end].map(([partition, offset]) => ({ partition, offset: String(offset) })),
    })
    await admin.disconnect()
    await back.stop()
    server = await start('store', ['writer', 'api'])
    for (const { viewer } of viewers) viewer.settle()
    for (const each of viewers)
      await waitFor(() => check(each), { withinMs: 45_000, everyMs: 250, what: 'each reading, once' })
  }, 240_000)
})
