// What setting a position comes to, counted: what is skipped, gone or still there, and what is read again.
import { describe, expect, it } from 'vitest'
import { StartError } from '../../runtime/errors.ts'
import { isOutOfRange, type PartitionOffsets, planReset } from './kafka-offsets.ts'

const standing = (oldest: number, end: number, committed: number | undefined): PartitionOffsets => ({
  partition: 2,
  oldest,
  end,
  committed,
  lost: Math.max(0, oldest - (committed ?? oldest)),
  isPastEnd: (committed ?? 0) > end,
  isOtherLog: false,
})
const outgrown = (oldest: number, end: number, committed: number): PartitionOffsets => ({
  ...standing(oldest, end, committed),
  isOtherLog: true,
})

describe('a position that is reset', () => {
  it.each<[string, PartitionOffsets, 'oldest' | 'newest' | number, number, number, number, number]>([
    ['passed by retention, to the oldest', standing(7, 10, 3), 'oldest', 7, 4, 0, 0],
    ['passed by retention, to the newest', standing(7, 10, 3), 'newest', 10, 4, 3, 0],
    ['passed by retention, to one between', standing(7, 10, 3), 9, 9, 4, 2, 0],
    ['in range, on', standing(0, 10, 3), 5, 5, 0, 2, 0],
    ['in range, back', standing(1, 10, 8), 'oldest', 1, 0, 0, 7],
    ['where it stands', standing(0, 10, 3), 3, 3, 0, 0, 0],
    ['past the end of a topic that was made anew, to its oldest', standing(0, 4, 9), 'oldest', 0, 0, 0, 0],
    ['past the end of a topic that was made anew, to its newest', standing(0, 4, 9), 'newest', 4, 0, 4, 0],
    ['in a topic that was made anew and has outgrown it, to its oldest', outgrown(0, 12, 9), 'oldest', 0, 0, 0, 0],
    ['in a topic that was made anew and has outgrown it, to its newest', outgrown(0, 12, 9), 'newest', 12, 0, 12, 0],
    ['of a group that never read', standing(5, 9, undefined), 'newest', 9, 0, 4, 0],
    ['of an empty partition', standing(4, 4, 4), 'oldest', 4, 0, 0, 0],
  ])('%s', (_name, offsets, to, target, skippedGone, skippedThere, again) => {
    expect(planReset(offsets, to)).toEqual({
      partition: 2,
      from: offsets.committed,
      to: target,
      skippedGone,
      skippedThere,
      again,
    })
  })

  it.each([6, 11])('never to where the topic holds nothing (%d)', (to) => {
    expect(() => planReset(standing(7, 10, 3), to)).toThrow(StartError)
    expect(() => planReset(standing(7, 10, 3), to)).toThrow(`partition 2 holds 7 to 10: it can't be set to ${to}`)
  })

  it('is out of range before the oldest, past the end and in another log, nowhere else', () => {
    const at = [2, 3, 10, 11, undefined].map((committed) => isOutOfRange(standing(3, 10, committed)))
    expect(at).toEqual([true, false, false, true, false])
    expect(isOutOfRange(outgrown(3, 10, 7))).toBe(true)
  })
})
