import { describe, expect, it } from 'vitest'
import { cursorLengthMax, decodeCursor, encodeCursor, hasReached } from './cursor.ts'

describe('a cursor', () => {
  const places = (...offsets: number[]) => new Map(offsets.map((offset, partition) => [partition, offset]))

  it.each([
    { position: new Map(), receivedAt: new Map() },
    { position: places(0), receivedAt: new Map() },
    { position: places(5, 9_007_199_254_740_991), receivedAt: places(1_700_000_000_000_123) },
    { position: places(5, 6, 7), receivedAt: places(1, 2, 3), within: new Map([[1, 40]]) },
  ])('comes back as it went out', (cursor) => {
    const back = decodeCursor(encodeCursor(cursor))!
    expect([...back.position]).toEqual([...cursor.position])
    expect([...back.receivedAt]).toEqual([...cursor.receivedAt])
    expect([...(back.within ?? [])]).toEqual([...(cursor.within ?? [])])
  })

  it('needs no escaping in a URL or a header', () => {
    const cursor = { position: places(5, 6), receivedAt: places(5), within: new Map([[0, 3]]) }
    const text = encodeCursor(cursor)
    expect(encodeURIComponent(text)).toBe(text)
  })

  it('stays short enough with as many partitions as there may be', () => {
    const many = (value: number) => new Map(Array.from({ length: 64 }, (_, partition) => [partition, value]))
    const large = many(Number.MAX_SAFE_INTEGER)
    const text = encodeCursor({ position: large, receivedAt: large, within: many(999_999_999) })
    expect(text.length).toBeLessThan(cursorLengthMax)
    expect(decodeCursor(text)).toBeDefined()
  })

  it.each([
    '',
    'l2',
    'l2~0',
    'l2~0.1',
    'l2~0.1.',
    'l2~0.1.x',
    'l2~-1.4.0',
    'l2~0.9999999999999999.0',
    'l2~0.5.9999999999999999',
    'l2~0.5.1_0.6.1',
    'l1~5~0.1',
    '2026-01-01T00:00:00Z',
    '5',
    `l2~${'0.1.1_'.repeat(2000)}0.1.1`,
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
