// A log moved to a real Kafka: whole, in order, once; what was interrupted goes on; what is not from here is refused.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Chunk, type EventLog, type LogPosition, positionAfter } from '../domain/event-log.ts'
import { systemClock } from '../runtime/clock.ts'
import { createLogger } from '../runtime/logger.ts'
import { openEmbeddedLog } from '../stream/log/embedded-log.ts'
import { openKafkaLog } from '../stream/log/kafka-log.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../tests/helpers/kafka.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { chunksUntil } from './compare-with-table.ts'
import { copyLog, type LogMoveOptions, tallyLog, verifyMovedLog } from './move-log.ts'

const missing = kafkaMissing()
const logger = createLogger('silent', 'test')
const partitions = 4
const never = new AbortController().signal
const nothing: LogPosition = new Map()
const segmentBytes = 16_384

describe('a log that retention has emptied in part', () => {
  it('is read to its end all the same', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'weir-test-move-'))
    const log = await shortened(directory)
    const beginning = await log.beginning('readings')
    expect(beginning.get(3)).toBe(await log.end('readings').then((end) => end.get(3)))
    let chunks = 0
    for await (const _ of chunksUntil(log, 'readings', await log.end('readings'), () => {})) chunks++
    const end = await log.end('readings')
    expect(chunks).toBe(
      [...end].reduce((sum, [partition, offset]) => sum + offset - (beginning.get(partition) ?? 0), 0),
    )
    await log.close()
    rmSync(directory, { recursive: true, force: true })
  }, 30_000)
})

describe.skipIf(missing)(`moving a log${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let kafka: TestKafka
  let prefix = 0
  const directories: string[] = []
  const open: EventLog[] = []
  beforeAll(async () => {
    kafka = await startKafka()
  }, 120_000)
  afterEach(async () => {
    for (const log of open.splice(0)) await log.close()
  })
  afterAll(async () => {
    await kafka?.dispose()
    for (const directory of directories) rmSync(directory, { recursive: true, force: true })
  })

  const keep = (log: EventLog): EventLog => {
    open.push(log)
    return log
  }
  const newDirectory = (): string => {
    const directory = mkdtempSync(join(tmpdir(), 'weir-test-move-'))
    directories.push(directory)
    return directory
  }
  const begin = async (source?: EventLog): Promise<LogMoveOptions> => {
    const target = keep(
      await openKafkaLog({
        endpoint: { brokers: kafka.brokers, tls: undefined, sasl: undefined, requestTimeoutMs: 5_000, logger },
        prefix: `move${++prefix}.`,
        mode: 'append',
        partitions,
        retentionMs: 86_400_000,
        compression: 'none',
        sessionTimeoutMs: 6_000,
        logger,
      }),
    )
    const from = source ?? keep(await openSource(newDirectory()))
    return { source: from, target, topic: 'readings', beganAt: nothing, progress: () => {}, signal: never }
  }
  const wanted = (position: LogPosition): Map<number, Set<number>> =>
    new Map([...position].map(([partition, offset]) => [partition, new Set([offset])]))
  const chunksOf = async (log: EventLog): Promise<Chunk[]> => {
    const found: Chunk[] = []
    for await (const chunk of chunksUntil(log, 'readings', await log.end('readings'), () => {})) found.push(chunk)
    return found
  }
  const appendAgain = async (log: EventLog, chunks: readonly Chunk[]): Promise<void> => {
    await Promise.all(
      chunks.map(({ partition, rows, count, receivedAt }) =>
        log.append('readings', partition, rows, count, receivedAt),
      ),
    )
  }

  it('carries every chunk over, in order, and both sides count the same', async () => {
    const options = await begin()
    await fill(options.source, 300)
    const position = positionAfter((await chunksOf(options.source)).slice(0, 120))
    expect(await copyLog(options)).toBe(300)
    const { source, target, repeats, places } = await verifyMovedLog(options, wanted(position))
    expect(target).toEqual(source)
    expect(source).toMatchObject({ chunks: 300, readings: 300 * 3 })
    expect(source).toEqual(await tallyLog(options.source, 'readings', () => {}))
    expect(repeats).toBe(0)
    for (const [partition, offset] of position) expect(places.get(partition)?.get(offset)).toBe(offset)
  }, 60_000)

  it('goes on where an interrupted run stood, and appends nothing twice', async () => {
    const options = await begin()
    await fill(options.source, 200)
    await appendAgain(options.target, (await chunksOf(options.source)).slice(0, 77))
    expect(await copyLog(options)).toBe(123)
    expect(await copyLog(options)).toBe(0)
    const { source, target, repeats } = await verifyMovedLog(options, new Map())
    expect({ chunks: target.chunks, repeats }).toEqual({ chunks: 200, repeats: 0 })
    expect(target).toEqual(source)
  }, 60_000)

  it('takes what a broker was sent again for one, and finds positions past it', async () => {
    const options = await begin()
    await fill(options.source, 60)
    const chunks = await chunksOf(options.source)
    await appendAgain(options.target, [...chunks.slice(0, 40), ...chunks.slice(20, 40)])
    expect(await copyLog(options)).toBe(20)
    const end = await options.source.end('readings')
    const { source, target, repeats, places } = await verifyMovedLog(options, wanted(end))
    expect({ checksum: target.checksum, repeats }).toEqual({ checksum: source.checksum, repeats: 20 })
    // The end is the end, whatever stands before it.
    expect(places.get(1)?.get(end.get(1)!)).toBe((await options.target.end('readings')).get(1))
  }, 60_000)

  it('shifts positions by what retention had taken before', async () => {
    const source = keep(await shortened(newDirectory()))
    const beganAt = await source.beginning('readings')
    expect(beganAt.get(0)).toBeGreaterThan(0)
    const options = { ...(await begin(source)), beganAt }
    await copyLog(options)
    const end = await source.end('readings')
    const { places } = await verifyMovedLog(options, wanted(end))
    for (const [partition, offset] of end)
      expect(places.get(partition)?.get(offset)).toBe(offset - (beganAt.get(partition) ?? 0))
  }, 60_000)

  it('goes on where retention went on between two runs', async () => {
    const directory = newDirectory()
    const all = keep(await openSource(directory, { retentionMs: 1 }))
    await fill(all, 400)
    const options = await begin(all)
    const before = await chunksOf(all)
    await appendAgain(options.target, before.slice(0, 350))
    await readAllOf(all)
    await expire(all)
    const moved: LogMoveOptions = { ...options, beganAt: new Map([0, 1, 2, 3].map((partition) => [partition, 0])) }
    await copyLog(moved)
    const { source, target } = await verifyMovedLog(moved, new Map())
    expect(target).toEqual(source)
    const chunks = [...(await options.target.end('readings')).values()].reduce((sum, offset) => sum + offset, 0)
    expect(chunks).toBeGreaterThan(source.chunks)
  }, 60_000)

  it('stops at what is not from here, before and after what is', async () => {
    for (const at of [0, 10]) {
      const options = await begin()
      await fill(options.source, 20)
      await appendAgain(options.target, (await chunksOf(options.source)).slice(0, at))
      await options.target.append('readings', 1, Buffer.from('theirs'), 1, 1_800_000_000_000_000)
      await expect(copyLog(options)).rejects.toThrow(/not from this log: a Weir runs on Kafka already/)
    }
  }, 60_000)

  it('says which chunk is missing', async () => {
    const options = await begin()
    await fill(options.source, 20)
    await appendAgain(options.target, (await chunksOf(options.source)).slice(0, 10))
    await expect(verifyMovedLog(options, new Map())).rejects.toThrow(/Chunk \d+ of partition \d .* is not in Kafka/)
  }, 60_000)
})

function openSource(directory: string, more: { readonly retentionMs?: number } = {}): Promise<EventLog> {
  return openEmbeddedLog({
    ...{ directory, mode: 'append', partitions, segmentBytes, quotaBytes: 2 ** 40, retentionMs: 86_400_000 },
    ...{ groups: ['writer'], logger, clock: systemClock },
    ...more,
  })
}

let received = 1_700_000_000_000_000

async function fill(log: EventLog, chunks: number, partitionOf = (i: number) => i % partitions): Promise<void> {
  for (let i = 0; i < chunks; i++) {
    const rows = Buffer.from(`chunk ${i} `.repeat(1 + (i % 40)))
    await log.append('readings', partitionOf(i), rows, 3, ++received)
  }
}

/** Its beginning is gone, and with it everything of partition 3. */
async function shortened(directory: string): Promise<EventLog> {
  const log = await openSource(directory, { retentionMs: 1 })
  await fill(log, 200)
  await fill(log, 400, (i) => i % 3)
  await readAllOf(log)
  await expire(log, true)
  return log
}

async function readAllOf(log: EventLog): Promise<void> {
  for (const topic of ['readings', 'anomalies', 'dead-letters'] as const) {
    const writer = await log.subscribe('writer', topic)
    await writer.commit(await log.end(topic))
    await writer.close()
  }
}

/** Retention works when the log needs another segment. */
async function expire(log: EventLog, isSilent = false): Promise<void> {
  const before = await log.beginning('readings')
  await waitFor(
    async () => {
      await fill(log, 8, (i) => i % 3)
      await readAllOf(log)
      const [now, end] = [await log.beginning('readings'), await log.end('readings')]
      return (
        [0, 1, 2].every((partition) => (now.get(partition) ?? 0) > (before.get(partition) ?? 0) + 20) &&
        (!isSilent || now.get(3) === end.get(3))
      )
    },
    { withinMs: 20_000, what: 'retention' },
  )
}
