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
import type { LiveCursor } from './cursor.ts'
import type { LiveFrame } from './frame.ts'
import { LiveHub } from './hub.ts'
import { LastValues } from './last-values.ts'

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
function hubOn(failure: Error, rows: readonly ReadingRow[] = []) {
  const place = new Map([[0, 10]])
  const log = {
    partitions: 1,
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
    received: async ({ past }) => rows.filter(({ receivedMicros }) => receivedMicros > past),
  })
  hub.startAt(place)
  return {
    async told(since: LiveStart): Promise<LiveFrame[]> {
      const frames: LiveFrame[] = []
      const write = (frame: LiveFrame) => frames.push(frame) > 0
      hub.open(subscription, hub.connect({ sizeOf: () => 0, write, end: () => {} }), since)
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
})
