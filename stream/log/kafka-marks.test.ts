// The text of a mark, and how much of what was read is remembered for the next one.
import { describe, expect, it } from 'vitest'
import type { Chunk } from '../../domain/event-log.ts'
import { decodeMark, encodeMark, marksMax, ReadMarks } from './kafka-marks.ts'

const chunk = (offset: number, receivedAt: number, partition = 2): Chunk => ({
  topic: 'readings',
  partition,
  offset,
  count: 1,
  receivedAt,
  rows: new Uint8Array(1),
})

describe('the mark beside a position', () => {
  it('is read back, and what others wrote there is no mark', () => {
    const receivedAt = 1_767_225_600_000_001
    expect(encodeMark(receivedAt)).toBe('r1 1767225600000001')
    expect(decodeMark(encodeMark(receivedAt))).toEqual({ mark: receivedAt })
    for (const other of [null, '', 'r2 1767225600000001', 'r1 ', 'r1 -5', 'r1 5 6', 'consumer on host-7'])
      expect(decodeMark(other)).toEqual({})
  })

  it('says where what was read is kept, within what Kafka takes', () => {
    const keptIn = 'the store /srv/weir in a hall\non host-7'
    expect(decodeMark(encodeMark(5, keptIn))).toEqual({ mark: 5, keptIn })
    const long = encodeMark(5, '温'.repeat(5_000))
    expect(Buffer.byteLength(long)).toBeLessThan(4_096)
    expect(decodeMark(long)).toEqual({ mark: 5, keptIn: '温'.repeat(1_000) })
  })

  it('is of the chunk below, for each border of what was read and not committed', () => {
    const marks = new ReadMarks()
    for (let offset = 5; offset < 9; offset++) marks.add(chunk(offset, 100 + offset))
    marks.add(chunk(0, 7, 3))
    const of = (...offsets: number[]) => offsets.map((offset) => marks.below(2, offset))
    expect(of(5, 6, 9, 10)).toEqual([undefined, 105, 108, undefined])
    marks.forget(2, 7)
    expect(of(6, 7, 8, 9)).toEqual([undefined, undefined, 107, 108])
    expect([marks.below(3, 1), marks.below(1, 1)]).toEqual([7, undefined])
    // Everything, and the next chunk.
    marks.forget(2, 9)
    marks.add(chunk(9, 109))
    expect(of(9, 10)).toEqual([undefined, 109])
  })

  it('of what is read again is of what was read last', () => {
    const marks = new ReadMarks()
    for (let offset = 0; offset < 5; offset++) marks.add(chunk(offset, offset))
    marks.add(chunk(3, 33))
    expect([marks.below(2, 4), marks.below(2, 5)]).toEqual([33, 4])
    // After a hole, and before what is remembered, it begins anew.
    marks.add(chunk(9, 99))
    expect([marks.below(2, 5), marks.below(2, 10)]).toEqual([undefined, 99])
    marks.add(chunk(1, 11))
    expect([marks.below(2, 2), marks.below(2, 10)]).toEqual([11, undefined])
  })

  it('is kept for so many chunks at most, the newest', () => {
    const marks = new ReadMarks()
    for (let offset = 0; offset <= marksMax; offset++) marks.add(chunk(offset, offset))
    expect(marks.below(2, marksMax + 1)).toBe(marksMax)
    expect(marks.below(2, marksMax / 2)).toBeUndefined()
    expect(marks.below(2, marksMax / 2 + 1)).toBe(marksMax / 2)
  })
})
