import { expect, it } from 'vitest'
import type { Chunk, EventLog, LogPosition } from '../../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { everyName, type NameFilter } from '../parameters.ts'
import type { LiveReadings, LiveRevision } from '../wire.ts'
import type { LiveCursor } from './cursor.ts'
import type { LiveFrame } from './frame.ts'
import { LiveHub } from './hub.ts'
import { LastValues } from './last-values.ts'
import type { ByeReason, ViewerTransport } from './outbox.ts'

const prefix = encodeRowPrefix('default', 'd', 'v')

/** Whose only reading has its offset as value. */
function chunkAt(offset: number): Chunk {
  const writer = new RowWriter()
  writer.number(prefix, offset, offset, offset + 1)
  return { topic: 'readings', partition: 0, offset, count: 1, receivedAt: offset + 1, rows: writer.rows() }
}

/** Whose readings have these values, which are also when they were observed. */
function chunkOf(offset: number, values: readonly number[]): Chunk {
  const writer = new RowWriter()
  for (const value of values) writer.number(prefix, value, value, offset + 1)
  return { topic: 'readings', partition: 0, offset, count: values.length, receivedAt: offset + 1, rows: writer.rows() }
}

class Recorder implements ViewerTransport {
  /** Of readings and revisions. */
  readonly values: (number | undefined)[] = []
  isCaughtUp = false
  /** Takes this one frame more, and then none. */
  isFull = false
  onFrame: (frame: LiveFrame) => void = () => {}

  sizeOf(frame: LiveFrame): number {
    return frame.data().length
  }

  write(frame: LiveFrame): boolean {
    this.onFrame(frame)
    if (frame.event === 'caught-up') this.isCaughtUp = true
    if (frame.event === 'readings')
      this.values.push(...(JSON.parse(frame.data()) as LiveReadings).items.map((reading) => reading.value))
    if (frame.event === 'revision') this.values.push((JSON.parse(frame.data()) as LiveRevision).value)
    return !this.isFull
  }

  ended: ByeReason | undefined
  end(reason: ByeReason): void {
    this.ended = reason
  }
}

it('a viewer that was ahead of the hub joins those with the same question without getting anything twice', async () => {
  let end: LogPosition = new Map([[0, 0]])
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => end, receivedAtMax: () => 0 } as unknown as EventLog,
    lastValues,
    clock: systemClock,
    logger: silentLogger,
    history: async () => [],
    received: async () => [],
  })
  hub.startAt(end)
  const open = async (): Promise<Recorder> => {
    const recorder = new Recorder()
    const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const
    hub.open(subscription, hub.connect(recorder))
    await expect.poll(() => recorder.isCaughtUp).toBe(true)
    return recorder
  }
  const accept = (...offsets: number[]): void => {
    const chunks = offsets.map(chunkAt)
    for (const { rows } of chunks) lastValues.apply(rows)
    hub.accept(chunks)
  }
  const early = await open()
  // The log has two chunks that the hub has not been handed yet: who comes now wants what lies behind them.
  end = new Map([[0, 2]])
  const late = await open()
  accept(0, 1, 2)
  accept(3)
  expect(early.values).toEqual([0, 1, 2, 3])
  expect(late.values).toEqual([2, 3])
  hub.close()
})

it('a viewer of latest that was ahead of the hub joins behind the frame that holds what it has had', async () => {
  let end: LogPosition = new Map([[0, 0]])
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => end, receivedAtMax: () => 0 } as unknown as EventLog,
    ...{ lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  hub.startAt(end)
  const open = async (): Promise<Recorder> => {
    const recorder = new Recorder()
    const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'latest' } as const
    hub.open(subscription, hub.connect(recorder))
    await expect.poll(() => recorder.isCaughtUp).toBe(true)
    return recorder
  }
  const accept = (...offsets: number[]): void => {
    const chunks = offsets.map(chunkAt)
    for (const { rows } of chunks) lastValues.apply(rows)
    hub.accept(chunks)
  }
  const early = await open()
  end = new Map([[0, 2]])
  const late = await open()
  accept(0, 1, 2)
  await expect.poll(() => early.values, { timeout: 20_000 }).toEqual([2])
  accept(3)
  await expect.poll(() => early.values, { timeout: 20_000 }).toEqual([2, 3])
  expect(late.values).toEqual([2, 3])
  hub.close()
})

it('what a cursor says of the time of what it has seen goes into those of others only as far as it can be so', async () => {
  const seen = 1_000
  const hub = new LiveHub({
    log: { partitions: 2, end: async () => place, receivedAtMax: () => seen } as unknown as EventLog,
    ...{ lastValues: new LastValues(), clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  const place = new Map([
    [0, 5],
    [1, 7],
  ])
  hub.startAt(place)
  const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const
  const cursors: string[] = []
  const open = async (since: LiveCursor | 'now'): Promise<void> => {
    const recorder = new Recorder()
    recorder.onFrame = (frame) => cursors.push(frame.cursor)
    hub.open(subscription, hub.connect(recorder), since)
    await expect.poll(() => recorder.isCaughtUp).toBe(true)
  }
  await open({
    position: place,
    receivedAt: new Map([
      [0, 9_000_000_000_000_000],
      [1, seen],
    ]),
  })
  await open('now')
  hub.accept([{ ...chunkAt(7), partition: 1 }])
  // Nobody has heard of partition 0 since: whoever resumes there out of the table must not be told that all of it has been sent.
  expect(cursors.slice(1).join(' ')).not.toContain('9000000000000000')
  hub.close()
})

it('a viewer that comes back before the hub has a place, to one that begins further on, misses nothing', async () => {
  const lastValues = new LastValues()
  const chunks = [0, 1, 2, 3, 4].map(chunkAt)
  const log = {
    partitions: 1,
    end: async () => new Map([[0, 4]]),
    receivedAtMax: () => 0,
    async *tail(_topic: string, from: LogPosition) {
      for (const chunk of chunks.slice(from.get(0) ?? 0)) yield [chunk]
    },
  }
  const hub = new LiveHub({
    ...{ log: log as unknown as EventLog, lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  const recorder = new Recorder()
  const since: LiveCursor = { position: new Map([[0, 1]]), receivedAt: new Map([[0, 1]]) }
  const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const
  hub.open(subscription, hub.connect(recorder), since)
  await new Promise((go) => setImmediate(go))
  expect(recorder.isCaughtUp).toBe(false)
  hub.startAt(new Map([[0, 3]]))
  await expect.poll(() => recorder.isCaughtUp).toBe(true)
  for (const chunk of chunks.slice(3)) {
    lastValues.apply(chunk.rows)
    hub.accept([chunk])
  }
  expect(recorder.values).toEqual([1, 2, 3, 4])
  hub.close()
})

it('a viewer that comes back in the middle of a chunk, which the hub is yet to be handed, gets the rest of it alone', async () => {
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => new Map([[0, 1]]), receivedAtMax: () => 0 } as unknown as EventLog,
    ...{ lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  hub.startAt(new Map([[0, 0]]))
  const recorder = new Recorder()
  const since: LiveCursor = { position: new Map([[0, 0]]), receivedAt: new Map(), within: new Map([[0, 2]]) }
  const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const
  hub.open(subscription, hub.connect(recorder), since)
  await expect.poll(() => recorder.isCaughtUp).toBe(true)
  for (const chunk of [chunkOf(0, [1, 2, 3, 4]), chunkOf(1, [5])]) {
    lastValues.apply(chunk.rows)
    hub.accept([chunk])
  }
  expect(recorder.values).toEqual([3, 4, 5])
  hub.close()
})

it('a viewer that is let go in the middle of a chunk costs those with another question nothing', async () => {
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => new Map([[0, 0]]), receivedAtMax: () => 0 } as unknown as EventLog,
    ...{ lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
    limits: { queueBytesMax: 1, behindMsMax: 60_000, stuckMsMax: 60_000 },
  })
  hub.startAt(new Map([[0, 0]]))
  const open = async (device: NameFilter): Promise<Recorder> => {
    const recorder = new Recorder()
    hub.open({ tenant: 'default', device, metric: everyName, mode: 'every' }, hub.connect(recorder))
    await expect.poll(() => recorder.isCaughtUp).toBe(true)
    return recorder
  }
  const slow = await open(everyName)
  const other = await open({ names: ['d'], prefixes: [] })
  slow.isFull = true
  // The late one is sent by itself, with what came before it: two frames, of which the slow one takes one.
  const chunk = chunkOf(0, [5, 3, 6])
  lastValues.apply(chunk.rows)
  hub.accept([chunk])
  expect(hub.slowCount).toBe(1)
  expect(other.values).toEqual([5, 3, 6])
  hub.close()
})

it('a frame of newest values that fails lets go of those who wait for it, and of nobody else; the next ones come', async () => {
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => new Map([[0, 0]]), receivedAtMax: () => 0 } as unknown as EventLog,
    ...{ lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  hub.startAt(new Map([[0, 0]]))
  const open = async (mode: 'every' | 'latest'): Promise<Recorder> => {
    const recorder = new Recorder()
    hub.open({ tenant: 'default', device: everyName, metric: everyName, mode }, hub.connect(recorder))
    await expect.poll(() => recorder.isCaughtUp).toBe(true)
    return recorder
  }
  const accept = (offset: number): void => {
    const chunk = chunkAt(offset)
    lastValues.apply(chunk.rows)
    hub.accept([chunk])
  }
  const [every, first] = [await open('every'), await open('latest')]
  const { last } = lastValues
  lastValues.last = () => {
    throw new Error('injected')
  }
  accept(0)
  await expect.poll(() => first.ended).toBe('failed')
  lastValues.last = last
  const second = await open('latest')
  accept(1)
  await expect.poll(() => second.values).toEqual([1])
  expect([every.values, every.ended]).toEqual([[0, 1], undefined])
  hub.close()
})

it('frames of latest come less often than twenty a second where handing them out takes long', async () => {
  const lastValues = new LastValues()
  const hub = new LiveHub({
    log: { partitions: 1, end: async () => new Map([[0, 0]]), receivedAtMax: () => 0 } as unknown as EventLog,
    ...{ lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: async () => [], received: async () => [] },
  })
  hub.startAt(new Map([[0, 0]]))
  const takesMs = 20
  const beganMs: number[] = []
  const recorder = new Recorder()
  recorder.onFrame = ({ event }) => {
    if (event !== 'readings') return
    const began = performance.now()
    beganMs.push(began)
    while (performance.now() < began + takesMs);
  }
  const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'latest' } as const
  hub.open(subscription, hub.connect(recorder))
  await expect.poll(() => recorder.isCaughtUp).toBe(true)
  for (let offset = 0; beganMs.length < 4; offset++) {
    const chunk = chunkAt(offset)
    lastValues.apply(chunk.rows)
    hub.accept([chunk])
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  // A tenth of the time; the first one may have begun before the hub knew how long they take. Slowness only makes the distances larger.
  for (let i = 2; i < 4; i++) expect(beganMs[i]! - beganMs[i - 1]!).toBeGreaterThan(9 * takesMs)
  hub.close()
})
