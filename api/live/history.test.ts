// Where a row of the table lies: before the seam, or past a cursor, by its place in the log where it says one, else by when it was received.
import { deflateRawSync } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import { type EventLog, partitionOf } from '../../domain/event-log.ts'
import { systemClock } from '../../runtime/clock.ts'
import type { ReadingRow } from '../queries/readings.ts'
import { cursorLengthMax } from './cursor.ts'
import {
  clockDifferenceMax,
  decodeHistoryCursor,
  encodeHistoryCursor,
  findSeam,
  type HistoryCursor,
  isAfter,
  isBeforeSeam,
  type Seam,
  upToAnotherSeam,
} from './history.ts'

const at = 1_700_000_000_000_000
const seam: Seam = { place: new Map([[0, 50]]), receivedBefore: [at] }
const row = (receivedMicros: number, logOffset?: number): ReadingRow => ({
  ...{ device: 'd', metric: 'm', observedMicros: 1, value: 1, text: '', receivedMicros },
  ...(logOffset !== undefined && { logOffset }),
})

describe('a row lies before the seam', () => {
  it.each([
    ['by its offset, whatever its clock said', row(at + 2_000_000, 49), true],
    ['not by a clock that was behind', row(at - 2_000_000, 50), false],
    ['by when it was received, where it says no place', row(at - 1, -1), true],
    ['not when it was received later, where it says no place', row(at, -1), false],
    ['by when it was received, where places were not asked for', row(at - 1), true],
    ['when it was received long before, with an offset of another log', row(at - clockDifferenceMax - 1, 10_000), true],
  ])('%s', (_, given, expected) => {
    expect(isBeforeSeam(seam, 't', given)).toBe(expected)
  })

  it('where the log holds nothing of its partition any more, unless it says a place beyond', () => {
    const emptied: Seam = { place: new Map([[0, 50]]), receivedBefore: [0] }
    expect([row(at, -1), row(at, 49), row(at, 50)].map((each) => isBeforeSeam(emptied, 't', each))).toEqual([
      true,
      true,
      false,
    ])
  })
})

describe('of a log that was begun anew beside the table of another', () => {
  const log = {
    ...{ partitions: 1, hasManyAppenders: false, committed: async () => new Map() },
    ...{ newest: async () => new Map(), end: async () => new Map([[0, 0]]) },
  } as unknown as EventLog

  it('what is in the table lies before the seam also while nothing has come yet, and what comes does not', async () => {
    const begun = await findSeam(log, { ...systemClock, nowMicros: () => at }, new AbortController().signal)
    expect([row(at - 60_000_000), row(at - 1), row(at + 1)].map((each) => isBeforeSeam(begun, 't', each))).toEqual([
      true,
      false,
      false,
    ])
  })
})

describe('a row lies past a cursor', () => {
  const cursor = { by: 'received', past: [at], from: new Map([[0, 20]]), after: undefined, seam } as const
  it.each([
    ['by its offset', row(at - 2_000_000, 20), true],
    ['not by a clock that was ahead', row(at + 2_000_000, 19), false],
    ['by when it was received, where it says no place', row(at + 1, -1), true],
    ['not when it was received long before', row(at - clockDifferenceMax - 1, 10_000), false],
  ])('%s', (_, given, expected) => {
    expect(isAfter(cursor, 't', given)).toBe(expected)
  })

  it('within the chunk at its place by when it was received', () => {
    const begun = { ...cursor, within: new Set([0]) }
    expect([row(at, 20), row(at + 1, 20), row(at - 9, 21)].map((each) => isAfter(begun, 't', each))).toEqual([
      false,
      true,
      true,
    ])
  })

  it('by when it was received, for a cursor that knows no place', () => {
    expect(isAfter({ ...cursor, from: undefined }, 't', row(at + 1, 3))).toBe(true)
  })

  it('and the cursor is the same after a reconnect', () => {
    const after = { observedAt: 1, device: 'd', metric: 'm' }
    const cursors: HistoryCursor[] = [
      { ...cursor, within: new Set() },
      { ...cursor, within: new Set([0]) },
      { ...cursor, from: undefined },
      { ...cursor, within: new Set(), after: { ...after, receivedAt: at } },
      { by: 'observed', since: 5, after, seam },
    ]
    for (const each of cursors) expect(decodeHistoryCursor(encodeHistoryCursor(each), 1)).toEqual(each)
    expect(decodeHistoryCursor(encodeHistoryCursor(cursor), 2)).toBeUndefined()
  })

  it('also on a log of 64 partitions, with the longest names', () => {
    const many = Array.from({ length: 64 }, (_, partition) => partition)
    // Digits that say nothing of each other.
    const digits = (seed: number, count: number) => Math.floor(Math.abs(Math.sin(seed)) * 10 ** count)
    const places = (by: number) => new Map(many.map((each) => [each, 10 ** 10 + digits(each + by, 10)]))
    const instants = (by: number) => many.map((each) => at + digits(each + by, 12))
    const after = { observedAt: at, device: 'd'.repeat(128), metric: '°'.repeat(128), receivedAt: at }
    const full: HistoryCursor = {
      ...{ by: 'received', past: instants(0.1), from: places(0.2), within: new Set(many), after },
      seam: { place: places(0.3), receivedBefore: instants(0.4) },
    }
    const text = encodeHistoryCursor(full)
    expect(text.length).toBeLessThan(cursorLengthMax)
    expect(decodeHistoryCursor(text, 64)).toEqual(full)
  })

  it('and one that unpacks to more than any cursor is none', () => {
    const packed = deflateRawSync(JSON.stringify([1, 'x'.repeat(1_000_000)])).toString('base64url')
    expect(packed.length).toBeLessThan(cursorLengthMax)
    expect(decodeHistoryCursor(`h1z~${packed}`, 1)).toBeUndefined()
    expect(decodeHistoryCursor('h1z~AAAA', 1)).toBeUndefined()
  })
})

it('up to the seam of another log, what the first seam left to the log is yet to come', () => {
  const device = ['a', 'b', 'c', 'd', 'e', 'f'].find((name) => partitionOf('t', name, 3) === 0)!
  const behind: Seam = { place: new Map(), receivedBefore: [at + 100, at + 50, 0] }
  const after = { observedAt: 1, device, metric: 'm', receivedAt: at + 90 }
  const cursor: HistoryCursor = { by: 'received', past: [at, at, at], from: new Map([[0, 7]]), after, seam: behind }
  // Nothing of the first partition twice; of the second from its seam on; of the third, which had none, from the last row on.
  expect(upToAnotherSeam(cursor, seam, 't')).toEqual({
    ...{ by: 'received', past: [at + 90, at + 49, at + 89], from: undefined, after: undefined, seam },
  })
  expect(upToAnotherSeam({ ...cursor, after: undefined }, seam, 't')).toMatchObject({ past: [at, at, at] })
})
