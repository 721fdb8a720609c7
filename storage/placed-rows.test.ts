import { describe, expect, it } from 'vitest'
import { encodeRowPrefix, RowCursor, RowWriter } from '../domain/row-format.ts'
import { placedRows } from './placed-rows.ts'

function chunk(): RowWriter {
  const writer = new RowWriter()
  for (let i = 0; i < 3; i++) writer.number(encodeRowPrefix('t', `device-${i}`, 'm'), i, i, 10 + i)
  writer.text(encodeRowPrefix('t', 'd', 'état'), 4, Buffer.from('x'.repeat(300)), 20)
  return writer
}

describe('rows with their place', () => {
  it.each([0, 7, 2 ** 40 + 3])('hold the offset %d behind each row', (offset) => {
    const { count, ...writer } = chunk()
    const rows = Buffer.from(writer.bytes.subarray(0, writer.length))
    const placed = Buffer.from(placedRows(rows, count, offset))
    const cursor = new RowCursor(rows)
    let start = 0
    let at = 0
    while (cursor.next()) {
      const row = rows.subarray(start, cursor.end)
      expect(placed.subarray(at, at + row.length)).toEqual(row)
      at += row.length
      expect(placed.readBigInt64LE(at)).toBe(BigInt(offset))
      at += 8
      start = cursor.end
    }
    expect(at).toBe(placed.length)
  })

  it.each([-1, 1])('of a chunk with another count (%d more) are refused', (more) => {
    const writer = chunk()
    expect(() => placedRows(writer.rows(), writer.count + more, 1)).toThrow(RangeError)
  })
})
