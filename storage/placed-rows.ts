// Readings with where they lie in the log: each row of a chunk, and behind it the chunk's offset, for the table's column `logOffset`. Needed where
// receivedAt does not tell the log's order (EventLog.hasManyAppenders); elsewhere rows go into the table as they are.
import { RowCursor } from '../domain/row-format.ts'

const offsetBytes = 8

/** Behind each of `count` rows the offset, i64 little-endian. Throws a RangeError on bytes that are not that many rows. */
export function placedRows(rows: Uint8Array, count: number, offset: number): Uint8Array {
  const placed = Buffer.allocUnsafeSlow(rows.length + count * offsetBytes)
  const high = Math.floor(offset / 0x1_0000_0000)
  const low = offset - high * 0x1_0000_0000
  const row = new RowCursor(rows)
  let start = 0
  let at = 0
  while (row.next()) {
    if (at + row.end - start + offsetBytes > placed.length) throw new RangeError(`not a chunk of ${count} rows`)
    placed.set(rows.subarray(start, row.end), at)
    at += row.end - start
    placed.writeUInt32LE(low, at)
    placed.writeInt32LE(high, at + 4)
    at += offsetBytes
    start = row.end
  }
  if (at !== placed.length) throw new RangeError(`not a chunk of ${count} rows`)
  return placed
}
