// What a cluster does to an appender and to its readers: brokers killed under load, quorum lost, connections cut, members that come and go, and
// retention that passes a group. Each time: nothing acknowledged is lost, order is kept, and what stands in the way is said.

import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type Chunk, type EventLog, type LogConsumer, positionAfter } from '../../domain/event-log.ts'
import { LimitError, OffsetOutOfRangeError, RetryableError } from '../../runtime/errors.ts'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { CuttingProxy } from '../../tests/helpers/cutting-proxy.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../../tests/helpers/kafka.ts'
import { pause, waitFor } from '../../tests/helpers/wait-for.ts'
import { createAdmin, KafkaConnection } from './kafka-client.ts'
import { type KafkaLogOptions, openKafkaLog } from './kafka-log.ts'
import { isOutOfRange, KafkaOffsets, planReset } from './kafka-offsets.ts'
import { bytesInFlightMax } from './kafka-producer.ts'
import { encodeBatch } from './kafka-records.ts'
import { produce } from './kafka-requests.ts'
import { ensureTopics } from './kafka-topics.ts'
import { within } from './kafka-wait.ts'

const never = new AbortController().signal
/** WEIR_TEST_STORM_SECONDS=60 for a longer one. */
const stormMs = Number(process.env.WEIR_TEST_STORM_SECONDS ?? 8) * 1_000
const missing = kafkaMissing()
/** Of util-linux. */
const prlimitMissing = spawnSync('prlimit', ['--version'], { stdio: 'ignore' }).status !== 0
/** For brokers that start, elect and rebalance on a machine that does other things too. */
const clusterMsMax = 90_000
const newPrefix = (): string => `fault-${randomBytes(4).toString('hex')}.`
const optionsFor = (
  brokers: readonly string[],
  prefix: string,
  more: Partial<KafkaLogOptions> = {},
): KafkaLogOptions => ({
  endpoint: { brokers, requestTimeoutMs: 6_000, logger: silentLogger },
  prefix,
  mode: 'append',
  partitions: 4,
  retentionMs: 3_600_000,
  compression: 'none',
  sessionTimeoutMs: 3_000,
  patienceMs: 60_000,
  stallMs: 1_500,
  logger: silentLogger,
  ...more,
})
const text = (chunk: Chunk): string => Buffer.from(chunk.rows).toString()

const toClose: { close(): Promise<void> }[] = []
const keep = <Opened extends { close(): Promise<void> }>(opened: Opened): Opened => {
  toClose.push(opened)
  return opened
}
afterEach(async () => {
  for (const opened of toClose.splice(0).reverse()) await opened.close()
})

/** Appends to all partitions until told to stop; trying again what was refused, as ingest does. */
function load(log: EventLog): { acknowledged: string[][]; stop(): Promise<void> } {
  const acknowledged: string[][] = Array.from({ length: log.partitions }, () => [])
  let isStopped = false
  const loops = acknowledged.map(async (list, partition) => {
    for (let i = 0; !isStopped; i++) {
      const rows = Buffer.from(`${partition}:${i}`)
      while (!isStopped) {
        const outcome = await log.append('readings', partition, rows, 1, i).catch((error: Error) => error)
        if (typeof outcome === 'number') {
          list.push(rows.toString())
          break
        }
        expect(outcome).toSatisfy((error) => error instanceof RetryableError || error instanceof LimitError)
        await pause(50)
      }
      await pause(1)
    }
  })
  return {
    acknowledged,
    async stop() {
      isStopped = true
      await Promise.all(loops)
    },
  }
}

/** All that is in the log, by partition. */
async function readBack(log: EventLog): Promise<string[][]> {
  const end = await log.end('readings')
  const found: string[][] = Array.from({ length: log.partitions }, () => [])
  const stop = new AbortController()
  const isDone = (): boolean => [...end].every(([partition, offset]) => found[partition]!.length >= offset)
  if (isDone()) return found
  for await (const chunks of log.tail('readings', new Map(), stop.signal)) {
    for (const chunk of chunks) found[chunk.partition]!.push(text(chunk))
    if (isDone()) stop.abort()
  }
  return found
}

/** Every acknowledged append is there, in order; a repeat is the same bytes again. Returns how many were stored twice. */
function expectKept(acknowledged: readonly string[][], found: readonly string[][]): number {
  let twice = 0
  acknowledged.forEach((list, partition) => {
    const distinct = [...new Set(found[partition]!)]
    twice += found[partition]!.length - distinct.length
    // An append whose promise was rejected may be stored: those between are left out.
    const wanted = new Set(list)
    expect(distinct.filter((each) => wanted.has(each))).toEqual(list)
  })
  return twice
}

/** Far below what a request may take there. */
const inTime = <Answer>(answer: Promise<Answer>, what: string): Promise<Answer> => within(30_000, answer, what)

const acks = (acknowledged: readonly string[][]): number => acknowledged.reduce((sum, list) => sum + list.length, 0)

describe.skipIf(missing)('one Kafka broker', () => {
  let kafka: TestKafka
  let proxy: CuttingProxy
  beforeAll(async () => {
    proxy = await CuttingProxy.open({ target: () => ({ host: '127.0.0.1', port: kafka.behindProxyPort }) })
    kafka = await startKafka({ proxyPort: proxy.port })
  }, 180_000)
  afterAll(async () => {
    await proxy?.close()
    await kafka?.dispose()
  })
  const open = async (prefix: string, more: Partial<KafkaLogOptions> = {}): Promise<EventLog> =>
    keep(await openKafkaLog(optionsFor(kafka.brokers, prefix, more)))

  it('kill -9 of the broker under load and its restart lose nothing, and a reader goes on by itself', async () => {
    const said: string[] = []
    const log = await open(newPrefix(), { logger: listening(said) })
    const states: string[] = []
    log.onState(({ state }) => states.push(state))
    const reader = keep(await log.subscribe('one', 'readings'))
    const read: string[] = []
    const reading = new AbortController()
    const readAll = (async () => {
      while (!reading.signal.aborted) {
        const chunks = await reader.read(1e6, reading.signal)
        if (chunks.length === 0) continue
        read.push(...chunks.map(text))
        await reader.commit(positionAfter(chunks)).catch((error) => expect(error).toBeInstanceOf(RetryableError))
      }
    })()
    const traffic = load(log)
    await waitFor(() => acks(traffic.acknowledged) > 200 && read.length > 100, {
      withinMs: clusterMsMax,
      what: 'traffic',
    })
    await kafka.kill(1)
    await waitFor(() => log.state().state === 'stalled', {
      withinMs: clusterMsMax,
      what: 'the log to say that it is stalled',
    })
    expect(log.state()).toMatchObject({ reason: expect.stringMatching(/has not acknowledged partition \d of .*\./) })
    const before = acks(traffic.acknowledged)
    await kafka.revive(1)
    await waitFor(() => log.state().state === 'ok' && acks(traffic.acknowledged) > before + 200, {
      withinMs: clusterMsMax,
      what: 'acknowledgements after the restart',
    })
    await traffic.stop()
    const found = await readBack(log)
    expect(expectKept(traffic.acknowledged, found), 'stored twice').toBe(0)
    await waitFor(() => new Set(read).size === new Set(found.flat()).size, {
      withinMs: clusterMsMax,
      what: 'the reader to come to the end',
    })
    reading.abort()
    await readAll
    // A broker that has just started may take longer than the log waits once more.
    expect(states.join(' ')).toMatch(/^stalled ok( stalled ok)*$/)
    expectSaid(said, [
      /^warn Kafka does not acknowledge; sending again .*error/,
      /^error Kafka has not acknowledged partition \d of fault-.*readings for \d+ s .*; nothing more is taken until it does\./,
      /^info Kafka acknowledges again; the log takes appends/,
    ])
    expectSaid(said, [/^warn Kafka can not be read; trying again .*readings/, /^info reading from Kafka goes on/])
  })

  it('1,000 concurrent appends through connections that are cut give 1,000 offsets without holes, each stored once', async () => {
    const said: string[] = []
    const { endpoint } = optionsFor([`127.0.0.1:${proxy.port}`], '')
    const log = await open(newPrefix(), { endpoint, logger: listening(said) })
    const sent = Array.from({ length: 1_000 }, (_, i) => `${i}`)
    proxy.cutRequestsAfter(20_000)
    // Rows large enough for many requests.
    const rowsOf = (each: string): Buffer => Buffer.concat([Buffer.from(each.padStart(4)), Buffer.alloc(4_000, 0x57)])
    const offsets = await Promise.all(sent.map((each) => log.append('readings', 1, rowsOf(each), 1, 1)))
    expect(offsets).toEqual(sent.map((_, i) => i))
    const found = (await readBack(log))[1]!.map((each) => each.slice(0, 4).trim())
    expect(found).toEqual(sent)
    proxy.cutRequestsAfter(Number.POSITIVE_INFINITY)
    expect(proxy.cuts).toBeGreaterThan(3)
    expectSaid(said, [/^warn Kafka does not acknowledge; sending again .*error/, /^info Kafka acknowledges again/])
  })

  it('an answer that was lost after Kafka had stored the batch stores it no second time', async () => {
    const said: string[] = []
    const { endpoint } = optionsFor([`127.0.0.1:${proxy.port}`], '')
    const log = await open(newPrefix(), { endpoint, logger: listening(said) })
    expect(await log.append('readings', 0, Buffer.from('0'), 1, 1)).toBe(0)
    const { cuts } = proxy
    proxy.cutAnswers(1)
    expect(await log.append('readings', 0, Buffer.from('1'), 1, 1)).toBe(1)
    expect(await log.append('readings', 0, Buffer.from('2'), 1, 1)).toBe(2)
    expect((await readBack(log))[0]).toEqual(['0', '1', '2'])
    expect(proxy.cuts).toBe(cuts + 1)
    expectSaid(said, [/^warn Kafka does not acknowledge; sending again .*error/, /^info Kafka acknowledges again/])
  })

  it('past the bytes that may wait an append is refused, and goes on when Kafka does', async () => {
    const log = await open(newPrefix(), { stallMs: 60_000 })
    process.kill(kafka.pid(1), 'SIGSTOP')
    const rows = new Uint8Array(1024 * 1024)
    const fits = bytesInFlightMax / rows.length
    const taken = Array.from({ length: fits }, () => log.append('readings', 3, rows, 1, 1))
    const refused = await log.append('readings', 3, rows, 1, 1).catch((error: Error) => error)
    process.kill(kafka.pid(1), 'SIGCONT')
    expect(refused).toBeInstanceOf(LimitError)
    expect(await Promise.all(taken)).toEqual(taken.map((_, i) => i))
    expect(await log.append('readings', 3, Buffer.from('again'), 1, 1)).toBe(fits)
  })

  it('who reads slowly is fetched ahead for up to its bound, other partitions go on, and nothing is missing or comes twice', async () => {
    const prefix = newPrefix()
    const log = await open(prefix)
    const chunkBytes = 16 * 1024
    const [chunks, inRequest, late] = [512, 8, 3]
    // Two batches a fetch, with what is around rows: of one that is cut off, nothing can be read.
    const [queueBytes, fetchBytes, lateBytes] = [32 * chunkBytes, 2 * inRequest * chunkBytes + 4_096, 8 * chunkBytes]
    const rowsOf = (each: number, bytes: number): Buffer => Buffer.alloc(bytes, `${each}:`)
    for (let from = 0; from < chunks; from += inRequest)
      await Promise.all(
        Array.from({ length: inRequest }, (_, i) => log.append('readings', 0, rowsOf(from + i, chunkBytes), 1, 1)),
      )
    const { endpoint } = optionsFor([`127.0.0.1:${proxy.port}`], prefix)
    const reading = await open(prefix, { endpoint, mode: 'read', queueBytes, fetchBytes })
    const before = proxy.bytesAnswered
    const reader = keep(await reading.subscribe('slow', 'readings'))
    const read: Chunk[] = []
    /** What came and is not read yet, and what brokers say besides. */
    const waiting = (): number => proxy.bytesAnswered - before - read.reduce((sum, { rows }) => sum + rows.length, 0)
    const full = queueBytes + fetchBytes
    const besides = 32 * chunkBytes
    await waitFor(() => waiting() >= queueBytes, { withinMs: clusterMsMax, what: 'its queue to fill' })
    // Nobody reads: what comes now is of another partition.
    for (let i = 0; i < late; i++) await log.append('readings', 1, rowsOf(i, lateBytes), 1, 1)
    await waitFor(() => waiting() > full + chunkBytes, { withinMs: clusterMsMax, what: 'another partition to go on' })
    for (let times = 0; times < 100; times++) {
      read.push(...(await reader.read(1, never)))
      await pause(10)
      expect(waiting()).toBeLessThan(full + late * lateBytes + besides)
    }
    const of = (partition: number): Chunk[] => read.filter((chunk) => chunk.partition === partition)
    expect(of(1), 'not kept waiting by the one that is full').toHaveLength(late)
    expect(of(0).length).toBeLessThan(chunks)
    while (read.length < chunks + late) read.push(...(await reader.read(1e6, never)))
    const offsets = (count: number): number[] => Array.from({ length: count }, (_, offset) => offset)
    expect([of(0), of(1)].map((found) => found.map(({ offset }) => offset))).toEqual([offsets(chunks), offsets(late)])
    const isWhole = ({ rows, partition, offset }: Chunk): boolean =>
      rowsOf(offset, partition === 0 ? chunkBytes : lateBytes).equals(rows)
    expect(read.every(isWhole)).toBe(true)
  })

  it('while the broker is frozen commits and questions are given up in time, again and again, and who closes waits for none of them', async () => {
    const prefix = newPrefix()
    // Above all that is waited for here.
    const endpoint = { ...optionsFor(kafka.brokers, prefix).endpoint, requestTimeoutMs: 300_000 }
    const log = await open(prefix, { endpoint })
    for (let i = 0; i < 3; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, i)
    const group = await open(prefix, { endpoint, mode: 'read' })
    const reader = await group.subscribe('frozen', 'readings')
    const chunks: Chunk[] = []
    while (chunks.length < 3) chunks.push(...(await reader.read(1e6, never)))
    await reader.commit(positionAfter(chunks.slice(0, 1)))
    process.kill(kafka.pid(1), 'SIGSTOP')
    try {
      const asked = log.end('readings').catch((error: Error) => error)
      // The second asks anew who leads the group.
      for (let times = 0; times < 2; times++) {
        const refused = await inTime(
          reader.commit(positionAfter(chunks)).catch((error: Error) => error),
          'a commit to be refused',
        )
        expect(refused).toBeInstanceOf(RetryableError)
      }
      const underWay = reader.commit(positionAfter(chunks)).catch((error: Error) => error)
      await inTime(reader.close(), 'the reader to close')
      expect(await inTime(underWay, 'a commit to be given up')).toBeInstanceOf(RetryableError)
      await inTime(group.close(), 'the log to close')
      expect(await inTime(asked, 'a question to be given up')).toMatchObject({
        name: 'RetryableError',
        message: expect.stringContaining(kafka.brokers[0]!),
      })
      const waiting = log.append('readings', 2, Buffer.from('3'), 1, 3).catch((error: Error) => error)
      await inTime(log.close(AbortSignal.abort()), 'the log to close without what it was given')
      expect(await waiting).toMatchObject({ message: expect.stringContaining('it may be stored or not') })
    } finally {
      process.kill(kafka.pid(1), 'SIGCONT')
    }
    // Taken late or not at all, but never behind what the group had come to.
    const again = await open(prefix)
    expect([1, 3]).toContain((await again.committed('frozen', 'readings')).get(2))
    const next = keep(await again.subscribe('frozen', 'readings'))
    expect(await again.append('readings', 2, Buffer.from('4'), 1, 4)).toBeGreaterThanOrEqual(3)
    const left: Chunk[] = []
    while (!left.some((chunk) => text(chunk) === '4')) left.push(...(await next.read(1e6, never)))
    expect([1, 3]).toContain(left[0]!.offset)
    await next.commit(positionAfter(left))
  })

  it(
    `members that come and go for ${stormMs / 1_000} s share the partitions: everything is read, and a position never goes back`,
    async () => {
      const prefix = newPrefix()
      const log = await open(prefix)
      const traffic = load(log)
      const seen = new Set<string>()
      const members = new Set<Member>()
      const come = async (): Promise<void> => {
        members.add(await startMember(log, (rows) => seen.add(rows)))
      }
      const go = async (): Promise<void> => {
        const [oldest] = members
        members.delete(oldest!)
        await oldest!.stop()
      }
      await come()
      const positions: number[][] = []
      const until = performance.now() + stormMs
      for (let round = 0; performance.now() < until || round < 3; round++) {
        await Promise.all([come(), come()])
        // Half of them before they have been given anything.
        if (round % 2 === 0) await pause(700)
        await Promise.all([go(), go()])
        const committed = await log.committed('shared', 'readings')
        positions.push(Array.from({ length: 4 }, (_, partition) => committed.get(partition) ?? 0))
      }
      await traffic.stop()
      const wanted = (await readBack(log)).flat()
      await waitFor(() => seen.size === wanted.length, {
        withinMs: clusterMsMax,
        what: () => `${seen.size} of ${wanted.length} readings`,
      })
      await Promise.all([...members].map((each) => each.stop()))
      const end = await log.end('readings')
      expect(await log.committed('shared', 'readings')).toEqual(new Map([...end].filter(([, offset]) => offset > 0)))
      for (const [round, position] of positions.slice(1).entries())
        for (const [partition, offset] of position.entries())
          expect(offset).toBeGreaterThanOrEqual(positions[round]![partition]!)
    },
    stormMs + 150_000,
  )

  it('a commit for partitions that others own by now is left out, and theirs stands', async () => {
    // Nobody is to be thrown out for being slow: then the other would have all four.
    const log = await open(newPrefix(), { sessionTimeoutMs: 15_000 })
    await Promise.all([0, 1, 2, 3].map((partition) => log.append('readings', partition, Buffer.from('x'), 1, 1)))
    const first = keep(await log.subscribe('shared', 'readings'))
    const chunks: Chunk[] = []
    while (chunks.length < 4) chunks.push(...(await first.read(1e6, never)))
    const second = keep(await log.subscribe('shared', 'readings'))
    const others = await second.read(1e6, never)
    expect(others.length).toBeLessThanOrEqual(2)
    await second.commit(positionAfter(others))
    await first.commit(positionAfter(chunks))
    const committed = await log.committed('shared', 'readings')
    // Its own two, and what the other one said.
    expect([...committed.keys()].length).toBe(2 + others.length)
  })

  it('a group that retention has passed stops with an alarm that names what is lost', async () => {
    const alarms: string[] = []
    const prefix = newPrefix()
    const log = await open(prefix, { logger: collecting(alarms) })
    for (let i = 0; i < 10; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, 1)
    const before = keep(await log.subscribe('late', 'readings'))
    await before.commit(positionAfter((await before.read(1e6, never)).slice(0, 3)))
    await before.close()
    const admin = createAdmin(optionsFor(kafka.brokers, prefix).endpoint)
    await admin.connect()
    // It knows no topic that it has not been asked about.
    await admin.fetchTopicOffsets(`${prefix}readings`)
    await admin.deleteTopicRecords({ topic: `${prefix}readings`, partitions: [{ partition: 2, offset: '7' }] })
    await admin.disconnect()
    const late = keep(await log.subscribe('late', 'readings'))
    await expect(late.read(1e6, never)).rejects.toThrow(OffsetOutOfRangeError)
    await expect(late.read(1e6, never)).rejects.toThrow(
      /chunk 3 in partition 2 of .*readings was removed.*oldest that is left is 7, 4 are lost/,
    )
    expect(alarms).toContain('reading from Kafka stops')
    expect((await log.committed('late', 'readings')).get(2), 'what was committed stands').toBe(3)
  })

  it('a group without a position in a partition whose first chunks are gone goes on at the oldest, and says so', async () => {
    const alarms: string[] = []
    const prefix = newPrefix()
    const log = await open(prefix, { logger: collecting(alarms) })
    for (let i = 0; i < 5; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, 1)
    await log.append('readings', 1, Buffer.from('other'), 1, 1)
    const admin = createAdmin(optionsFor(kafka.brokers, prefix).endpoint)
    await admin.connect()
    await admin.fetchTopicOffsets(`${prefix}readings`)
    await admin.deleteTopicRecords({ topic: `${prefix}readings`, partitions: [{ partition: 2, offset: '3' }] })
    await admin.disconnect()
    const reader = keep(await log.subscribe('forgotten', 'readings'))
    const read: string[] = []
    while (read.length < 3) read.push(...(await reader.read(1e6, never)).map(text))
    expect(read.sort()).toEqual(['3', '4', 'other'])
    expect(alarms.filter((each) => each.startsWith('the group has no position'))).toHaveLength(1)
  })

  it('a group that goes on into another store than before says what stays behind, once', async () => {
    const warnings: string[] = []
    const logger: Logger = { ...silentLogger, warn: (_fields, text) => warnings.push(text), child: () => logger }
    const log = await open(newPrefix(), { logger })
    const readsInto = async (keepsIn: string | undefined, value: string): Promise<string[]> => {
      await log.append('readings', 2, Buffer.from(value), 1, 1)
      const reader = keep(await log.subscribe('moved', 'readings', { keepsIn }))
      const chunks = await reader.read(1e6, never)
      await reader.commit(positionAfter(chunks))
      await reader.close()
      return warnings.splice(0).filter((each) => each.includes('goes on into'))
    }
    expect(await readsInto('store A', '1')).toEqual([])
    expect(await readsInto('store A', '2')).toEqual([])
    expect(await readsInto('store B', '3')).toEqual([
      expect.stringMatching(/was stored in store A so far, and goes on into store B: .*--partition 2 --to oldest/),
    ])
    expect(await readsInto('store B', '4')).toEqual([])
    // Who says nothing fits everybody, before and after.
    expect(await readsInto(undefined, '5')).toEqual([])
    expect(await readsInto('store C', '6')).toEqual([])
  })

  /** As operators do it; what is made has outgrown what was there before anybody reads it. */
  const makeAnew = async (prefix: string, log: EventLog, onGone?: () => Promise<unknown>): Promise<void> => {
    const { partitions } = log
    const partition = Math.min(2, partitions - 1)
    const name = `${prefix}readings`
    const admin = createAdmin(optionsFor(kafka.brokers, prefix).endpoint)
    await admin.connect()
    await admin.deleteTopics({ topics: [name] })
    await waitFor(async () => !(await admin.listTopics()).includes(name), { withinMs: clusterMsMax, what: 'no topic' })
    await admin.disconnect()
    await onGone?.()
    await ensureTopics({ ...optionsFor(kafka.brokers, prefix), partitions }, { create: true })
    for (let i = 0; i < 10; i++) await log.append('readings', partition, Buffer.from(`new ${i}`), 1, 100 + i)
  }
  const isTold = (reader: LogConsumer): Promise<unknown> =>
    waitFor(() => /readings/.test(reader.trouble() ?? ''), { withinMs: clusterMsMax, what: 'the reader to be told' })
  const readOf = async (reader: LogConsumer, count: number): Promise<Chunk[]> => {
    const chunks: Chunk[] = []
    while (chunks.length < count) chunks.push(...(await reader.read(1e6, never)))
    return chunks
  }
  const offsetsOf = (prefix: string): KafkaOffsets =>
    keep(new KafkaOffsets(optionsFor(kafka.brokers, prefix), ['readings']))
  const all = Array.from({ length: 10 }, (_, i) => `new ${i}`)
  const another = /^chunk 4 in partition 2 of .*readings is not the one that was read there: the topic was made anew/

  it('a topic made anew that has outgrown a reader at work: it stops, and the next one reads all of it', async () => {
    const alarms: string[] = []
    const prefix = newPrefix()
    const log = await open(prefix)
    const { endpoint } = optionsFor([`127.0.0.1:${proxy.port}`], '')
    const behind = await open(prefix, { endpoint, mode: 'read', sessionTimeoutMs: 60_000, logger: collecting(alarms) })
    for (let i = 0; i < 5; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, i)
    const tail = behind.tail('readings', new Map(), never)[Symbol.asyncIterator]()
    for (let seen = 0; seen < 5; ) seen += (await tail.next()).value.length
    const reader = keep(await behind.subscribe('any', 'readings'))
    await reader.commit(positionAfter(await readOf(reader, 5)))
    // It hears of nothing until all of it has happened.
    proxy.cutAnswers(Number.POSITIVE_INFINITY)
    await makeAnew(prefix, log, () => isTold(reader))
    proxy.cutAnswers(0)
    await expect(reader.read(1e6, never)).rejects.toThrow(OffsetOutOfRangeError)
    await expect(reader.read(1e6, never)).rejects.toMatchObject({ otherLogIn: 2 })
    await expect(reader.read(1e6, never)).rejects.toThrow(/`weir offsets reset any` has it read from its oldest chunk$/)
    await expect(reader.read(1e6, never)).rejects.toThrow(another)
    expect(alarms).toContain('reading from Kafka stops')
    await expect(tail.next()).rejects.toThrow(another)
    await reader.close()
    // Kafka forgets positions with the topic.
    expect((await log.committed('any', 'readings')).size).toBe(0)
    expect((await readOf(keep(await log.subscribe('any', 'readings')), 10)).map(text)).toEqual(all)
  })

  it('a position that was committed after its topic was made anew is found out, and reset: nothing is skipped', async () => {
    const prefix = newPrefix()
    const log = await open(prefix)
    for (let i = 0; i < 5; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, i)
    await log.append('readings', 1, Buffer.from('other'), 1, 9)
    const reader = keep(await log.subscribe('any', 'readings'))
    const position = positionAfter(await readOf(reader, 6))
    await makeAnew(prefix, log, () => isTold(reader))
    // What was in its hands is stored by now.
    await reader.commit(position)
    await reader.close()
    expect((await log.committed('any', 'readings')).get(2)).toBe(5)
    await log.append('readings', 1, Buffer.from('new other'), 1, 200)
    const late = keep(await log.subscribe('any', 'readings'))
    await expect(late.read(1e6, never)).rejects.toThrow(/ is not the one that was read there/)
    await late.close()
    const offsets = offsetsOf(prefix)
    const found = await offsets.read('any', 'readings')
    expect(found.partitions.map(({ isOtherLog }) => isOtherLog)).toEqual([false, true, true, false])
    const due = found.partitions.filter(isOutOfRange)
    await offsets.write(
      found,
      due.map((each) => planReset(each, 'oldest')),
    )
    const set = await offsets.read('any', 'readings')
    expect(set.partitions.some(isOutOfRange)).toBe(false)
    const read = await readOf(keep(await log.subscribe('any', 'readings')), 11)
    expect(read.map(text).sort()).toEqual([...all, 'new other'].sort())
  })

  it('a reader whose queue was full while the topic was made anew knows it as well', async () => {
    const prefix = newPrefix()
    const log = await open(prefix, { partitions: 1, queueBytes: 1, sureMs: 0, sessionTimeoutMs: 60_000 })
    for (let i = 0; i < 5; i++) await log.append('readings', 0, Buffer.from(`${i}`), 1, i)
    const reader = keep(await log.subscribe('any', 'readings'))
    // One of five: it asks for nothing, so nothing tells it.
    const read = (await reader.read(1, never)).map(text)
    await makeAnew(prefix, log)
    await expect(
      (async () => {
        while (read.length < 10) read.push(...(await reader.read(1e6, never)).map(text))
      })(),
    ).rejects.toThrow(/^chunk 4 in partition 0 of .*readings is not the one that was read there/)
    expect(read).toEqual(['0', '1', '2', '3', '4'])
  })

  it('a message of somebody else stops a reader, and no longer once a person has set the group behind it', async () => {
    const prefix = newPrefix()
    const log = await open(prefix)
    await log.append('readings', 2, Buffer.from('0'), 1, 1)
    const stranger = keep(new KafkaConnection(optionsFor(kafka.brokers, prefix).endpoint, [`${prefix}readings`]))
    const broker = await stranger.anyBroker()
    const { producerId, producerEpoch } = await broker.initProducerId({ transactionTimeout: 60_000 })
    const records = [{ value: Buffer.from('hello'), headers: {} }]
    const identity = { producerId: BigInt(producerId), producerEpoch, firstSequence: 0 }
    const batch = encodeBatch({ records, ...identity, compression: 'none', at: Date.now() })
    const topics = [{ topic: `${prefix}readings`, partitions: [{ partition: 2, batch }] }]
    await produce(broker, { timeoutMs: 30_000, topics })
    await log.append('readings', 2, Buffer.from('2'), 1, 2)
    const stopped = keep(await log.subscribe('any', 'readings'))
    expect((await readOf(stopped, 1)).map(text)).toEqual(['0'])
    await expect(stopped.read(1e6, never)).rejects.toThrow(/message 1 in partition 2 of readings is not from Weir/)
    await stopped.close()
    const offsets = offsetsOf(prefix)
    const found = await offsets.read('any', 'readings')
    await offsets.write(found, [planReset(found.partitions[2]!, 2)])
    expect((await readOf(keep(await log.subscribe('any', 'readings')), 1)).map(text)).toEqual(['2'])
  })

  it('a member that takes over goes on behind what was committed, to the chunk; also where retention has come up to it', async () => {
    const alarms: string[] = []
    const prefix = newPrefix()
    const log = await open(prefix, { logger: collecting(alarms) })
    for (let i = 0; i < 10; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, i)
    const offsets = offsetsOf(prefix)
    /** Reads to the end, and commits so much. */
    const readFrom = async (count: number, committed: number): Promise<string[]> => {
      const reader = await log.subscribe('any', 'readings')
      const chunks = await readOf(reader, count)
      await reader.commit(positionAfter(chunks.slice(0, committed)))
      await reader.close()
      expect((await offsets.read('any', 'readings')).partitions.some(isOutOfRange)).toBe(false)
      return chunks.map(text)
    }
    expect(await readFrom(10, 4)).toEqual(['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'])
    expect(await readFrom(6, 2)).toEqual(['4', '5', '6', '7', '8', '9'])
    const admin = createAdmin(optionsFor(kafka.brokers, prefix).endpoint)
    await admin.connect()
    await admin.fetchTopicOffsets(`${prefix}readings`)
    await admin.deleteTopicRecords({ topic: `${prefix}readings`, partitions: [{ partition: 2, offset: '6' }] })
    await admin.disconnect()
    expect(await readFrom(4, 1)).toEqual(['6', '7', '8', '9'])
    // As a person sets it, or an older version: without a mark.
    const found = await offsets.read('any', 'readings')
    await offsets.write(found, [planReset(found.partitions[2]!, 8)])
    expect(await readFrom(2, 2)).toEqual(['8', '9'])
    await log.append('readings', 2, Buffer.from('10'), 1, 10)
    expect(await readFrom(1, 1)).toEqual(['10'])
    expect(alarms).toEqual([])
  })
})

describe.skipIf(missing)('a Kafka broker that somebody works on', () => {
  let kafka: TestKafka
  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)
  afterAll(() => kafka?.dispose())
  const open = async (prefix: string, more: Partial<KafkaLogOptions> = {}): Promise<EventLog> =>
    keep(await openKafkaLog(optionsFor(kafka.brokers, prefix, more)))

  it('a topic that is deleted: nothing is taken, it is said, and readers are not led to another one by its name', async () => {
    const alarms: string[] = []
    const prefix = newPrefix()
    const log = await open(prefix, { logger: collecting(alarms) })
    for (let i = 0; i < 5; i++) await log.append('readings', 2, Buffer.from(`${i}`), 1, 1)
    const reader = keep(await log.subscribe('any', 'readings'))
    const read: Chunk[] = []
    while (read.length < 5) read.push(...(await reader.read(1e6, never)))
    const admin = createAdmin(optionsFor(kafka.brokers, prefix).endpoint)
    await admin.connect()
    await admin.deleteTopics({ topics: [`${prefix}readings`] })
    await admin.disconnect()
    const waiting = log.append('readings', 2, Buffer.from('after'), 1, 2)
    await waitFor(() => log.state().state === 'stalled', { withinMs: clusterMsMax, what: 'the log to say so' })
    expect(log.state()).toMatchObject({ reason: expect.stringContaining(`partition 2 of ${prefix}readings`) })
    await waitFor(() => /readings/.test(reader.trouble() ?? ''), {
      withinMs: clusterMsMax,
      what: 'the reader to say so',
    })
    // As the next start, or \`weir topics\`, makes it.
    await ensureTopics({ ...optionsFor(kafka.brokers, prefix), partitions: 4 }, { create: true })
    expect(await waiting).toBe(0)
    await waitFor(() => log.state().state === 'ok', { withinMs: clusterMsMax, what: 'the log to go on' })
    await expect(reader.read(1e6, never)).rejects.toThrow(/past the end \(\d\).*the topic was made anew/)
    expect(alarms).toContain('reading from Kafka stops')
    expect([...new Set(read.map(text))]).toEqual(['0', '1', '2', '3', '4'])
  })

  it.skipIf(prlimitMissing)(
    'a disk that takes no more ends the broker; with room again nothing acknowledged is lost',
    async () => {
      const log = await open(newPrefix())
      const traffic = load(log)
      await waitFor(() => acks(traffic.acknowledged) > 200, { withinMs: clusterMsMax, what: 'traffic' })
      // No file may grow beyond this: writing fails, as on a disk that is full.
      spawnSync('prlimit', ['--fsize=65536:65536', '--pid', String(kafka.pid(1))])
      await waitFor(() => log.state().state === 'stalled', { withinMs: clusterMsMax, what: 'the log to say so' })
      const stalledAt = acks(traffic.acknowledged)
      await expect(log.append('readings', 0, Buffer.from('refused'), 1, 1)).rejects.toBeInstanceOf(RetryableError)
      await kafka.kill(1)
      await kafka.revive(1)
      await waitFor(() => log.state().state === 'ok' && acks(traffic.acknowledged) > stalledAt + 200, {
        withinMs: clusterMsMax,
        what: 'acknowledgements with room again',
      })
      await traffic.stop()
      expectKept(traffic.acknowledged, await readBack(log))
    },
  )
})

describe.skipIf(missing)('three Kafka brokers, two copies needed', () => {
  let kafka: TestKafka
  beforeAll(async () => {
    kafka = await startKafka({ nodes: 3 })
  }, 180_000)
  afterAll(() => kafka?.dispose())

  it('topics that would keep less than they could are named, with what to set', async () => {
    const prefix = newPrefix()
    const wanted = { ...optionsFor(kafka.brokers, prefix), partitions: 4 }
    const made = await ensureTopics(wanted, { create: true })
    expect(made.map(({ copies, problems, warnings }) => [copies, problems, warnings])).toEqual([
      [3, [], []],
      [3, [], []],
      [3, [], []],
    ])
    const settings = {
      'min.insync.replicas': '1',
      'unclean.leader.election.enable': 'true',
      'max.message.bytes': '1000',
    }
    const [careless] = await ensureTopics({ ...wanted, prefix: `${prefix}careless.`, settings }, { create: true })
    expect(careless!.problems).toEqual([expect.stringContaining('set unclean.leader.election.enable=false')])
    expect(careless!.warnings).toEqual([
      expect.stringContaining('set min.insync.replicas=2'),
      expect.stringMatching(/takes 1000 bytes at once.*set max\.message\.bytes=16777216/),
    ])
    const strict = { ...wanted, prefix: `${prefix}strict.`, settings: { 'min.insync.replicas': '3' } }
    const [brittle] = await ensureTopics(strict, { create: true })
    expect(brittle!.warnings).toEqual([expect.stringContaining('takes nothing while one broker is away')])
  })

  it('a leader that is killed, then a quorum that is lost: nothing acknowledged is lost, nothing is acknowledged without two copies', async () => {
    const prefix = newPrefix()
    const said: string[] = []
    const log = keep(await openKafkaLog(optionsFor(kafka.brokers, prefix, { logger: listening(said) })))
    const traffic = load(log)
    await waitFor(() => acks(traffic.acknowledged) > 200, { withinMs: clusterMsMax, what: 'traffic' })
    const leader = await leaderOf(kafka, `${prefix}readings`, 0)
    await kafka.kill(leader)
    // Each partition goes on with another leader.
    const counts = (): number[] => traffic.acknowledged.map((list) => list.length)
    const killed = counts()
    await waitFor(() => counts().every((count, partition) => count > killed[partition]! + 20), {
      withinMs: clusterMsMax,
      what: 'acknowledgements of every partition after the leader was killed',
    })
    const second = leader === 1 ? 2 : 1
    await kafka.kill(second)
    await waitFor(() => log.state().state === 'stalled', {
      withinMs: clusterMsMax,
      what: 'the log to say that it is stalled',
    })
    const without = acks(traffic.acknowledged)
    await expect(log.append('readings', 0, Buffer.from('refused'), 1, 1)).rejects.toBeInstanceOf(RetryableError)
    expect(acks(traffic.acknowledged), 'acknowledged without a quorum').toBe(without)
    await Promise.all([kafka.revive(leader), kafka.revive(second)])
    await waitFor(() => log.state().state === 'ok' && acks(traffic.acknowledged) > without + 100, {
      withinMs: clusterMsMax,
      what: 'the log to go on by itself',
    })
    await traffic.stop()
    expectKept(traffic.acknowledged, await readBack(log))
    expectSaid(said, [
      /^warn Kafka does not acknowledge; sending again .*error/,
      /^error Kafka has not acknowledged partition \d of .*readings for \d+ s .*; nothing more is taken until it does\./,
      /^info Kafka acknowledges again; the log takes appends/,
    ])
  })
})

async function leaderOf(kafka: TestKafka, topic: string, partition: number): Promise<number> {
  const admin = createAdmin(optionsFor(kafka.brokers, '').endpoint)
  await admin.connect()
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  await admin.disconnect()
  return topics[0]!.partitions.find(({ partitionId }) => partitionId === partition)!.leader
}

interface Member {
  stop(): Promise<void>
}

/** Reads, hands on and commits, as a writer does. */
async function startMember(log: EventLog, onRows: (rows: string) => void): Promise<Member> {
  const consumer: LogConsumer = await log.subscribe('shared', 'readings')
  const stopping = new AbortController()
  const reading = (async () => {
    while (!stopping.signal.aborted) {
      const chunks = await consumer.read(1e6, stopping.signal)
      for (const chunk of chunks) onRows(text(chunk))
      if (chunks.length > 0) await consumer.commit(positionAfter(chunks))
    }
  })()
  return {
    async stop() {
      stopping.abort()
      await reading
      await consumer.close()
    },
  }
}

function collecting(messages: string[]): Logger {
  const logger: Logger = { ...silentLogger, error: (_fields, message) => messages.push(message), child: () => logger }
  return { debug() {}, info() {}, warn() {}, error: logger.error, child: () => logger }
}

/** All that an operator is told: level, message, fields. */
function listening(said: string[]): Logger {
  const at =
    (level: string) =>
    (fields: object, message?: string): void => {
      said.push(`${level} ${message} ${JSON.stringify(fields)}`)
    }
  const logger: Logger = { debug() {}, info: at('info'), warn: at('warn'), error: at('error'), child: () => logger }
  return logger
}

/** In this order, with others between them. */
function expectSaid(said: readonly string[], lines: readonly RegExp[]): void {
  let from = 0
  for (const line of lines) {
    const found = said.findIndex((each, i) => i >= from && line.test(each))
    expect(found, `${line} in\n${said.join('\n')}`).toBeGreaterThanOrEqual(from)
    from = found + 1
  }
}
