import { describe, expect, it } from 'vitest'
import { decodeCursor, encodeCursor, hasReached } from './cursor.ts'

describe('a cursor', () => {
  it.each([
    [new Map()],
    [new Map([[0, 0]])],
    [
      new Map([
        [0, 5],
        [3, 9_007_199_254_740_991],
      ]),
    ],
  ])('comes back as it went out', (position) => {
    const cursor = { position, receivedAt: 1_700_000_000_000_123 }
    expect(decodeCursor(encodeCursor(cursor))).toEqual(cursor)
  })

  it('needs no escaping in a URL or a header', () => {
    const text = encodeCursor({
      position: new Map([
        [0, 5],
        [1, 6],
      ]),
      receivedAt: 5,
    })
    expect(encodeURIComponent(text)).toBe(text)
  })

  it.each([
    '',
    'l1',
    'l1~~',
    'l1~5~0.',
    'l1~5~0.1_',
    'l1~5~-1.4',
    'l1~x~0.1',
    'l2~5~0.1',
    '2026-01-01T00:00:00Z',
    '5',
    `l1~5~${'0.1_'.repeat(2000)}0.1`,
  ])('%s is none', (text) => {
    expect(decodeCursor(text)).toBeUndefined()
  })

  it('has reached another where it is as far in every partition', () => {
    const at = (...offsets: number[]) => new Map(offsets.map((offset, partition) => [partition, offset]))
    expect(hasReached(at(1, 2), at(1, 2))).toBe(true)
    expect(hasReached(at(1, 2), at(1, 3))).toBe(false)
    expect(hasReached(at(1), at(1, 0))).toBe(true)
    expect(hasReached(at(), at(0, 1))).toBe(false)
    expect(hasReached(at(5, 5), at())).toBe(true)
  })
})
