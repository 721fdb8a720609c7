// What can't be given is declared, with its cause and bounds, and what comes after it is given: with a log and a table that fail when the test says so.
import { describe, expect, it } from 'vitest'
import type { Chunk, EventLog, LogPosition } from '../../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { LogDamagedError, OffsetOutOfRangeError } from '../../runtime/errors.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { everyName } from '../parameters.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { LiveGap, LiveReadings } from '../wire.ts'
import type { LiveStart } from './catch-up.ts'
import type { LiveMode } from './channel.ts'
import type { LiveCursor } from './cursor.ts'
import type { LiveFrame } from './frame.ts'
import type { HistoryCursor } from './history.ts'
import { LiveHub } from './hub.ts'
import { LastValues } from './last-values.ts'
import { pageRows } from './table-pages.ts'

const nowMicros = Date.UTC(2026, 0, 15) * 1000
const secondMicros = 1_000_000
const dayMs = 86_400_000
const prefix = encodeRowPrefix('default', 'd', 'v')
const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const

function chunkAt(offset: number): Chunk {
  const writer = new RowWriter()
  const receivedAt = nowMicros + offset
  writer.number(prefix, receivedAt, offset, receivedAt)
  return { topic: 'readings', partition: 0, offset, count: 1, receivedAt, rows: writer.rows() }
}

/** A hub at offset 10, on a log that says this to whoever reads from before, and a table with these rows. */
function hubOn(
  failure: Error,
  rows: readonly ReadingRow[] = [],
  { partitions = 1, mode = 'every', tableFailure }: { partitions?: number; mode?: LiveMode; tableFailure?: Error } = {},
) {
  const place = new Map([[0, 10]])
  const log = {
    partitions,
    receivedAtMax: () => nowMicros + 9,
    end: async () => place,
    committed: async () => place,
    newest: async () => new Map([[0, nowMicros + 9]]),
    async *tail(_topic: string, from: LogPosition) {
      if ((from.get(0) ?? 0) < 10) throw failure
      yield []
    },
  }
  const lastValues = new LastValues()
  const hub = new LiveHub({
    ...{ log: log as unknown as EventLog, lastValues, clock: { nowMicros: () => nowMicros + secondMicros } },
    ...{ logger: silentLogger, retentionMs: dayMs },
    history: async () => rows,
    received: async ({ past, after, limit }) => {
      if (after && tableFailure) throw tableFailure
      return rows.filter(({ receivedMicros }) => receivedMicros > (after?.receivedAt ?? past)).slice(0, limit)
    },
  })
  hub.startAt(place)
  return {
    async told(since: LiveStart): Promise<LiveFrame[]> {
      const frames: LiveFrame[] = []
      const write = (frame: LiveFrame) => frames.push(frame) > 0
      hub.open({ ...subscription, mode }, hub.connect({ sizeOf: () => 0, write, end: () => {} }), since)
      await expect.poll(() => frames.at(-1)?.event).toBe('caught-up')
      const chunk = chunkAt(10)
      lastValues.apply(chunk.rows)
      hub.accept([chunk])
      hub.close()
      return frames.slice(0, -1)
    },
  }
}

const gapOf = (frame: LiveFrame): LiveGap => JSON.parse(frame.data()) as LiveGap
const valuesOf = (frame: LiveFrame) => (JSON.parse(frame.data()) as LiveReadings).items.map(({ value }) => value)

describe('a viewer is told of a gap', () => {
  const cursor: LiveCursor = { position: new Map([[0, 3]]), receivedAt: new Map([[0, nowMicros + 2000]]) }

  it('where the log is damaged', async () => {
    const { told } = hubOn(new LogDamagedError('0001.log', 4096, 'not what was written there'))
    const frames = await told(cursor)
    expect(frames.map(({ event }) => event)).toEqual(['gap', 'caught-up', 'readings'])
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'log-unreadable', from: nowMicros / 1000 + 2 })
    expect(valuesOf(frames[2]!)).toEqual([10])
    // Who comes back with it stands behind the damage.
    expect(frames[0]!.cursor).toMatch(/^l2~0\.10\./)
  })

  const old = nowMicros - 3 * dayMs * 1000
  const kept = (nowMicros + secondMicros) / 1000 - dayMs
  const inTable: ReadingRow = {
    ...{ device: 'd', metric: 'v', value: 7, text: '' },
    ...{ observedMicros: nowMicros - 5, receivedMicros: nowMicros - 5 },
  }

  it('where it asks for what the table has forgotten', async () => {
    const { told } = hubOn(new Error('not asked'), [inTable])
    const frames = await told({ instant: old })
    expect(frames.map(({ event }) => event)).toEqual(['gap', 'readings', 'caught-up', 'readings'])
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'table-retention', from: old / 1000, to: kept })
    expect([valuesOf(frames[1]!), valuesOf(frames[3]!)]).toEqual([[7], [10]])
  })

  it('where it comes back when neither the log nor the table reach back to it', async () => {
    const { told } = hubOn(new OffsetOutOfRangeError('past'), [inTable])
    const frames = await told({ position: new Map([[0, 1]]), receivedAt: new Map([[0, old]]) })
    expect(frames.map(({ event }) => event)).toEqual(['gap', 'readings', 'caught-up', 'readings'])
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'table-retention', from: old / 1000, to: kept })
    expect([valuesOf(frames[1]!), valuesOf(frames[3]!)]).toEqual([[7], [10]])
  })

  it('at once, where its cursor is of a log with more partitions', async () => {
    const { told } = hubOn(new Error('not read'))
    const frames = await told({ position: new Map([[5, 1]]), receivedAt: new Map() })
    expect(frames.map(({ event }) => event)).toEqual(['gap', 'caught-up', 'readings'])
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'unknown-cursor', from: null })
  })

  it('no earlier than what it had, where a partition held nothing yet', async () => {
    const { told } = hubOn(new OffsetOutOfRangeError('past'), [], { partitions: 2 })
    const recent = nowMicros - 3600 * secondMicros
    const fresh = await told({ position: new Map([[0, 1]]), receivedAt: new Map([[0, recent]]) })
    expect(fresh.map(({ event }) => event)).toEqual(['caught-up', 'readings'])
    const late = hubOn(new OffsetOutOfRangeError('past'), [], { partitions: 2 })
    const frames = await late.told({ position: new Map([[0, 1]]), receivedAt: new Map([[0, old]]) })
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'table-retention', from: old / 1000 })
  })

  const stood: HistoryCursor = {
    ...{ by: 'received', past: [nowMicros - 1_000_000], from: undefined, after: undefined },
    seam: { place: new Map([[0, 5]]), receivedBefore: [nowMicros - 10] },
  }
  const rowOf = (device: string, receivedMicros: number): ReadingRow => ({
    ...{ device, metric: 'v', value: receivedMicros, text: '', observedMicros: receivedMicros, receivedMicros },
  })
  const devicesOf = (frames: readonly LiveFrame[]) =>
    frames
      .filter(({ event }) => event === 'readings')
      .flatMap((frame) => (JSON.parse(frame.data()) as LiveReadings).items.map(({ device }) => device))

  it('in latest, but gets what was gathered from the table before the log was found to reach back no further', async () => {
    const rows = [rowOf('a', nowMicros - 20), rowOf('b', nowMicros - 5)]
    const { told } = hubOn(new OffsetOutOfRangeError('past'), rows, { mode: 'latest' })
    const frames = await told(stood)
    expect(frames.map(({ event }) => event)).toEqual(['readings', 'readings', 'caught-up'])
    expect(devicesOf(frames)).toEqual(['a', 'b'])
  })

  it('in latest, but gets what was gathered before the table was away, also if it is cut off behind the gap', async () => {
    const rows = Array.from({ length: pageRows.received }, (_, i) => rowOf('a', nowMicros - 500_000 + i))
    const { told } = hubOn(new Error('not read'), rows, { mode: 'latest', tableFailure: new Error('broken') })
    const frames = await told({ ...stood, seam: { ...stood.seam, place: new Map([[0, 10]]) } })
    expect(frames.map(({ event }) => event)).toEqual(['gap', 'readings', 'caught-up'])
    expect(gapOf(frames[0]!)).toMatchObject({ cause: 'store-away', by: 'receivedAt' })
    expect(frames[0]!.cursor).toMatch(/^r1~/)
    expect(frames[1]!.cursor).toMatch(/^l2~0\.10\./)
    expect(devicesOf(frames)).toEqual(['a'])
  })
})
