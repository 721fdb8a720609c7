// Where a row of the table lies: before the seam, or past a cursor, by its place in the log where it says one, else by when it was received.
import { describe, expect, it } from 'vitest'
import type { ReadingRow } from '../queries/readings.ts'
import {
  clockDifferenceMax,
  decodeHistoryCursor,
  encodeHistoryCursor,
  type HistoryCursor,
  isAfter,
  isBeforeSeam,
  type Seam,
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
})
