// The promises of domain/event-log.ts, one test each, run unchanged by every adapter's own test file. What an adapter skips, and why, is printed
// and documents it.

import { afterEach, describe, expect, it } from 'vitest'
import {
  type Chunk,
  type EventLog,
  type LogConsumer,
  type LogPosition,
  type LogTopic,
  positionAfter,
} from '../../domain/event-log.ts'
import { LimitError, OffsetOutOfRangeError } from '../../runtime/errors.ts'

/** `small`: full after at most 1 MiB that the group `keeper` has not read, and keeps nothing for its age alone. */
export type LogSize = 'usual' | 'small'

export interface EventLogContract {
  readonly name: string
  /** A new, empty log with four partitions, open for appending. `place` is what `reopen` finds it by. */
  open(size: LogSize): Promise<{ readonly log: EventLog; readonly place: string }>
  /** The same log again: `append` after the one before was closed, `read` as another process would see it, at any time. */
  reopen(place: string, mode: 'append' | 'read', size: LogSize): Promise<EventLog>
  /** Resolves once retention has removed the beginning of partition 2 of readings, for a log whose retention works at its own pace. */
  retentionPassed?(place: string): Promise<void>
  readonly skip?: readonly { readonly test: string; readonly reason: string }[]
}

const mebibyte = 1024 * 1024
const never = new AbortController().signal

export function eventLogContract({ name, open, reopen, retentionPassed, skip = [] }: EventLogContract): void {
  describe(`event log: ${name}`, () => {
    const toClose: { close(): Promise<void> }[] = []
    const keep = <Opened extends { close(): Promise<void> }>(opened: Opened): Opened => {
      toClose.push(opened)
      return opened
    }
    afterEach(async () => {
      for (const opened of toClose.splice(0).reverse()) await opened.close()
    })
    const begin = async (size: LogSize = 'usual') => {
      const { log, place } = await open(size)
      keep(log)
      return { log, place, again: async (mode: 'append' | 'read' = 'append') => keep(await reopen(place, mode, size)) }
    }
    const subscribe = async (log: EventLog, group: string, topic: LogTopic = 'readings') =>
      keep(await log.subscribe(group, topic))

    const test = (title: string, body: () => Promise<void>): void => {
      const skipped = skip.find((each) => each.test === title)
      if (skipped) it.skip(`${title} (skipped: ${skipped.reason})`, () => {})
      else it(title, body)
    }

    test('append resolves with offsets from 0 without holes, for each topic and partition', async () => {
      const { log } = await begin()
      const offsets = await Promise.all([
        append(log, 'a'),
        append(log, 'b'),
        append(log, 'c', { partition: 1 }),
        append(log, 'd', { topic: 'anomalies' }),
        append(log, 'e'),
      ])
      expect(offsets).toEqual([0, 1, 0, 0, 2])
      expect(await append(log, 'f')).toBe(3)
    })

    test('beginning and end stand around what there is, in every process', async () => {
      const { log, again } = await begin()
      const none = { '0': 0, '1': 0, '2': 0, '3': 0 }
      expect(Object.fromEntries(await log.beginning('readings'))).toEqual(none)
      for (const text of ['a', 'b']) await append(log, text)
      await append(log, 'c', { partition: 1 })
      for (const each of [log, await again('read')]) {
        expect(Object.fromEntries(await each.beginning('readings'))).toEqual(none)
        // Other processes hear of what is new a moment later.
        await expect
          .poll(async () => Object.fromEntries(await each.end('readings')))
          .toEqual({ ...none, '1': 1, '2': 2 })
        expect(Object.fromEntries(await each.end('anomalies'))).toEqual(none)
      }
    })

    test('append is durable when resolved: it is there after the log was opened again', async () => {
      const { log, again } = await begin()
      await append(log, 'kept', { count: 7, receivedAt: 1_700_000_000_000_123 })
      await log.close()
      const [chunk] = await readAll(await again(), 1)
      expect(chunk).toMatchObject({
        topic: 'readings',
        partition: 2,
        offset: 0,
        count: 7,
        receivedAt: 1_700_000_000_000_123,
      })
      expect(text(chunk!)).toBe('kept')
    })

    test('offsets go on where they were after the log was opened again', async () => {
      const { log, again } = await begin()
      for (const each of ['a', 'b', 'c']) await append(log, each)
      await log.close()
      expect(await append(await again(), 'd')).toBe(3)
    })

    test('appends to one partition keep the order of the calls', async () => {
      const { log } = await begin()
      const sent = Array.from({ length: 500 }, (_, i) => `${i}`)
      await Promise.all(sent.map((each) => append(log, each)))
      expect((await readAll(log, sent.length)).map(text)).toEqual(sent)
    })

    test('empty, large and binary rows survive', async () => {
      const { log, again } = await begin()
      const binary = Uint8Array.from({ length: 4096 }, (_, i) => (i * 31) & 255)
      const large = new Uint8Array(3 * mebibyte).fill(0x57)
      const sent = [new Uint8Array(0), binary, large, Uint8Array.of(0), Uint8Array.of(255, 0, 255)]
      for (const rows of sent) await log.append('dead-letters', 0, rows, 1, 1)
      await log.close()
      const reader = await subscribe(await again(), 'any', 'dead-letters')
      const chunks = await readFrom(reader, sent.length)
      expect(chunks.map((chunk) => Buffer.compare(chunk.rows, sent[chunk.offset]!))).toEqual(sent.map(() => 0))
    })

    test('rows belong to whoever holds them: reading on does not change them', async () => {
      const { log } = await begin()
      const reader = await subscribe(log, 'any')
      await append(log, 'first')
      const [first] = await reader.read(1, never)
      for (let i = 0; i < 50; i++) await append(log, `next ${i}`)
      await readFrom(reader, 50)
      expect(text(first!)).toBe('first')
    })

    test('topics are apart', async () => {
      const { log } = await begin()
      await append(log, 'reading')
      await append(log, 'letter', { topic: 'dead-letters' })
      await append(log, 'reading 2')
      expect((await readAll(log, 2)).map(text)).toEqual(['reading', 'reading 2'])
      expect((await readAll(log, 1, 'dead-letters')).map(text)).toEqual(['letter'])
    })

    test('groups are independent', async () => {
      const { log } = await begin()
      for (const each of ['a', 'b']) await append(log, each)
      const one = await subscribe(log, 'one')
      await one.commit(positionAfter(await readFrom(one, 2)))
      expect((await readFrom(await subscribe(log, 'two'), 2)).map(text)).toEqual(['a', 'b'])
      expect(await log.committed('two', 'readings')).toEqual(new Map())
    })

    test('what was read and not committed is read again; what was committed is not', async () => {
      const { log, again } = await begin()
      for (const each of ['a', 'b', 'c']) await append(log, each)
      const before = await subscribe(log, 'one')
      const chunks = await readFrom(before, 3)
      await before.commit(positionAfter(chunks.slice(0, 1)))
      await before.close()
      await log.close()
      const after = await again()
      expect((await after.committed('one', 'readings')).get(2)).toBe(1)
      expect((await readFrom(await subscribe(after, 'one'), 2)).map(text)).toEqual(['b', 'c'])
    })

    test('commits made at once all resolve, and the newest holds', async () => {
      const { log, again } = await begin()
      for (let i = 0; i < 20; i++) await append(log, `${i}`)
      const reader = await subscribe(log, 'one')
      await readFrom(reader, 20)
      await Promise.all(Array.from({ length: 20 }, (_, i) => reader.commit(new Map([[2, i + 1]]))))
      const elsewhere = await again('read')
      expect((await elsewhere.committed('one', 'readings')).get(2)).toBe(20)
    })

    test('a read waits until there is something, and wakes for it', async () => {
      const { log } = await begin()
      const reader = await subscribe(log, 'one')
      const waiting = reader.read(mebibyte, never)
      await append(log, 'came later')
      expect((await waiting).map(text)).toEqual(['came later'])
    })

    test('a read gives back an empty array when its signal ends the wait', async () => {
      const { log } = await begin()
      const reader = await subscribe(log, 'one')
      const stop = new AbortController()
      const waiting = reader.read(mebibyte, stop.signal)
      stop.abort()
      expect(await waiting).toEqual([])
    })

    test('a read that was ended loses nothing', async () => {
      const { log } = await begin()
      const reader = await subscribe(log, 'one')
      const stop = new AbortController()
      const waiting = reader.read(mebibyte, stop.signal)
      const appended = append(log, 'kept')
      stop.abort()
      const first = await waiting
      await appended
      expect([...first, ...(first.length > 0 ? [] : await reader.read(mebibyte, never))].map(text)).toEqual(['kept'])
    })

    test('a read gives contiguous chunks, about as many bytes as asked for and one chunk at least', async () => {
      const { log } = await begin()
      const rows = new Uint8Array(10_000)
      await Promise.all(Array.from({ length: 40 }, () => log.append('readings', 2, rows, 1, 1)))
      const reader = await subscribe(log, 'one')
      const sizes: number[] = []
      for (let offset = 0; offset < 40; ) {
        const chunks = await reader.read(sizes.length === 0 ? 1 : 100_000, never)
        for (const chunk of chunks) expect(chunk.offset).toBe(offset++)
        sizes.push(chunks.length)
      }
      expect(sizes[0]).toBe(1)
      expect(Math.max(...sizes)).toBeLessThanOrEqual(11)
    })

    test('tail begins at a position; a partition that is missing there begins at its beginning', async () => {
      const { log } = await begin()
      for (const each of ['a', 'b', 'c']) await append(log, each)
      await append(log, 'other', { partition: 0 })
      const chunks = await tailFrom(log, new Map([[2, 1]]), 3)
      expect(chunks.map(text).sort()).toEqual(['b', 'c', 'other'])
    })

    test('tail from the end gives only what comes', async () => {
      const { log } = await begin()
      await append(log, 'before')
      const tail = log.tail('readings', 'end', never)[Symbol.asyncIterator]()
      let first: readonly Chunk[] | undefined
      const got = tail.next().then(({ value }) => {
        first = value
      })
      // Where the end has to be asked for, it is taken a moment after the call: what is appended meanwhile may still lie before it.
      for (let i = 0; !first; i++) await append(log, `after ${i}`)
      await got
      for (const chunk of first) expect(text(chunk)).toMatch(/^after/)
      await tail.return?.()
    })

    test('tail ends with its signal, also while it waits', async () => {
      const { log } = await begin()
      const stop = new AbortController()
      const ended = (async () => {
        for await (const chunks of log.tail('readings', 'end', stop.signal)) expect(chunks).toEqual([])
        return 'ended'
      })()
      await append(log, 'another topic', { topic: 'anomalies' })
      stop.abort()
      expect(await ended).toBe('ended')
    })

    test('end is just past the last durable chunk of each partition', async () => {
      const { log, again } = await begin()
      for (const each of ['a', 'b']) await append(log, each)
      await append(log, 'c', { partition: 3 })
      expect(await log.end('readings')).toEqual(positions(0, 0, 2, 1))
      await log.close()
      expect(await (await again()).end('readings')).toEqual(positions(0, 0, 2, 1))
    })

    test('lag counts the chunks that are durable and not committed', async () => {
      const { log } = await begin()
      const reader = await subscribe(log, 'one')
      expect(await reader.lag()).toBe(0)
      for (const each of ['a', 'b', 'c']) await append(log, each)
      expect(await reader.lag()).toBe(3)
      await reader.commit(positionAfter((await readFrom(reader, 3)).slice(0, 2)))
      expect(await reader.lag()).toBe(1)
    })

    test('receivedAtMax is the highest of a partition, also after the log was opened again', async () => {
      const { log, again } = await begin()
      expect(log.receivedAtMax('readings', 2)).toBe(0)
      for (const receivedAt of [5_000, 9_000, 7_000]) await append(log, 'x', { receivedAt })
      await log.close()
      const after = await again()
      expect([2, 1].map((partition) => after.receivedAtMax('readings', partition))).toEqual([9_000, 0])
    })

    test('another process reads what is appended, and commits for its group', async () => {
      const { log, again } = await begin()
      const elsewhere = await again('read')
      const reader = await subscribe(elsewhere, 'one')
      const waiting = readFrom(reader, 2)
      for (const each of ['a', 'b']) await append(log, each)
      const chunks = await waiting
      expect(chunks.map(text)).toEqual(['a', 'b'])
      await reader.commit(positionAfter(chunks))
      expect(await log.committed('one', 'readings')).toEqual(new Map([[2, 2]]))
    })

    test('append pushes back when the log is full, says so, and goes on by itself when there is room', async () => {
      const { log } = await begin('small')
      const states: string[] = []
      log.onState(({ state }) => states.push(state))
      const keeper = await subscribe(log, 'keeper')
      const { kept, error } = await fill(log)
      expect(error).toBeInstanceOf(LimitError)
      expect(log.state()).toMatchObject({ state: 'full', reason: expect.stringMatching(/\w+ .*\./) })
      const chunks = await readFrom(keeper, kept)
      expect(chunks.at(-1)!.offset, 'nothing that was refused was kept').toBe(kept - 1)
      await keeper.commit(positionAfter(chunks))
      await expect.poll(() => log.state().state).toBe('ok')
      expect(await append(log, 'again')).toBe(kept)
      expect(states).toEqual(['full', 'ok'])
    })

    test('retention never passes a group that is still to read', async () => {
      const { log } = await begin('small')
      const keeper = await subscribe(log, 'keeper')
      const { kept } = await fill(log)
      const offsets = (await readFrom(keeper, kept)).map((chunk) => chunk.offset)
      expect(offsets).toEqual(offsets.map((_, i) => i))
    })

    test('retention never passes what a group is still to read of one topic, however far it is in another', async () => {
      const { log } = await begin('small')
      const keeper = await subscribe(log, 'keeper')
      const letters = await subscribe(log, 'keeper', 'dead-letters')
      await append(log, 'letter', { topic: 'dead-letters' })
      let error: unknown
      for (let kept = 0; kept < 1000 && error === undefined; kept++) {
        error = await append(log, 'A'.repeat(4000)).then(
          () => undefined,
          (refused: unknown) => refused,
        )
        if (error === undefined) await keeper.commit(positionAfter(await readFrom(keeper, 1)))
      }
      expect(error, 'nothing is freed: the letter is in the oldest part').toBeInstanceOf(LimitError)
      const found = await readFrom(letters, 1)
      expect(found.map(text)).toEqual(['letter'])
      await letters.commit(positionAfter(found))
      await expect.poll(() => log.state().state).toBe('ok')
    })

    test('a tail that retention has passed gets an OffsetOutOfRangeError, never a hole', async () => {
      const { log, place } = await begin('small')
      const keeper = await subscribe(log, 'keeper')
      await overwrite(log, keeper)
      await retentionPassed?.(place)
      await expect(tailFrom(log, new Map([[2, 0]]), 1)).rejects.toBeInstanceOf(OffsetOutOfRangeError)
    })

    test('a slow reader that retention passes gets an OffsetOutOfRangeError, never a hole', async () => {
      const { log, place } = await begin('small')
      const keeper = await subscribe(log, 'keeper')
      const slow = await subscribe(log, 'slow')
      await append(log, 'first')
      let expected = (await readFrom(slow, 1)).at(-1)!.offset + 1
      await overwrite(log, keeper)
      await retentionPassed?.(place)
      const readOn = async (): Promise<void> => {
        for (;;) for (const chunk of await slow.read(1, never)) expect(chunk.offset).toBe(expected++)
      }
      await expect(readOn()).rejects.toBeInstanceOf(OffsetOutOfRangeError)
    })

    test('close waits for appends under way; later ones are refused', async () => {
      const { log, again } = await begin()
      const appends = Array.from({ length: 100 }, (_, i) => append(log, `${i}`))
      const closed = log.close()
      await expect(append(log, 'late')).rejects.toThrow()
      await closed
      expect(await Promise.all(appends)).toHaveLength(100)
      expect(await (await again()).end('readings')).toEqual(positions(0, 0, 100, 0))
    })

    test('close may be called again', async () => {
      const { log } = await begin()
      await Promise.all([log.close(), log.close()])
      await log.close()
    })

    test('an append to a partition that is not there is refused', async () => {
      const { log } = await begin()
      for (const partition of [-1, 4, 1.5, Number.NaN]) await expect(append(log, 'x', { partition })).rejects.toThrow()
      expect(log.state()).toEqual({ state: 'ok' })
    })
  })
}

interface AppendOptions {
  readonly topic?: LogTopic
  readonly partition?: number
  readonly count?: number
  readonly receivedAt?: number
}

function append(
  log: EventLog,
  rows: string,
  { topic = 'readings', partition = 2, count = 1, receivedAt = 1 }: AppendOptions = {},
): Promise<number> {
  return log.append(topic, partition, Buffer.from(rows), count, receivedAt)
}

const text = (chunk: Chunk): string => Buffer.from(chunk.rows).toString()
const positions = (...offsets: number[]): LogPosition =>
  new Map(offsets.map((offset, partition) => [partition, offset]))

async function readFrom(reader: LogConsumer, count: number): Promise<Chunk[]> {
  const chunks: Chunk[] = []
  while (chunks.length < count) chunks.push(...(await reader.read(mebibyte, never)))
  return chunks
}

async function readAll(log: EventLog, count: number, topic: LogTopic = 'readings'): Promise<Chunk[]> {
  const reader = await log.subscribe(`reads-${topic}`, topic)
  const chunks = await readFrom(reader, count)
  await reader.close()
  return chunks
}

async function tailFrom(log: EventLog, from: LogPosition, count: number): Promise<Chunk[]> {
  const found: Chunk[] = []
  for await (const chunks of log.tail('readings', from, never)) {
    found.push(...chunks)
    if (found.length >= count) break
  }
  return found
}

/** Appends until the log refuses. */
async function fill(log: EventLog): Promise<{ kept: number; error: unknown }> {
  const rows = new Uint8Array(4000).fill(0x41)
  for (let kept = 0; kept < 1000; kept++) {
    try {
      await log.append('readings', 2, rows, 1, 1)
    } catch (error) {
      return { kept, error }
    }
  }
  throw new Error('the log never got full')
}

/** Appends several times what the log can hold, read and committed by the keeper all along. */
async function overwrite(log: EventLog, keeper: LogConsumer): Promise<void> {
  const rows = new Uint8Array(4000).fill(0x42)
  for (let round = 0; round < 50; round++) {
    const offset = Math.max(
      ...(await Promise.all(Array.from({ length: 10 }, () => log.append('readings', 2, rows, 1, 1)))),
    )
    await keeper.commit(new Map([[2, offset + 1]]))
  }
}
