// CRC-32 (ISO 3309, as zlib's) with a start value. zlib's own is several GB/s, but each call costs 0.15 µs, more than a frame of a few
// hundred bytes takes in JavaScript; both give the same number.

import { crc32 } from 'node:zlib'

const nativeFromBytes = 512

const tables = makeTables()
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables

/** `words` and `bytes` are views of one buffer; `start` and `end` are bytes, multiples of 8 from one another, `start` a multiple of 4. */
export function checksum(bytes: Uint8Array, words: Int32Array, start: number, end: number, seed: number): number {
  if (end - start >= nativeFromBytes) return crc32(bytes.subarray(start, end), seed)
  let crc = ~seed
  const last = end >> 2
  for (let i = start >> 2; i < last; i += 2) {
    const low = crc ^ words[i]!
    const high = words[i + 1]!
    crc =
      t7[low & 255]! ^
      t6[(low >>> 8) & 255]! ^
      t5[(low >>> 16) & 255]! ^
      t4[low >>> 24]! ^
      t3[high & 255]! ^
      t2[(high >>> 8) & 255]! ^
      t1[(high >>> 16) & 255]! ^
      t0[high >>> 24]!
  }
  return ~crc >>> 0
}

type Table = Int32Array
function makeTables(): readonly [Table, Table, Table, Table, Table, Table, Table, Table] {
  const made = Array.from({ length: 8 }, () => new Int32Array(256))
  for (let n = 0; n < 256; n++) {
    let crc = n
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
    made[0]![n] = crc
  }
  for (let n = 0; n < 256; n++) {
    let crc = made[0]![n]!
    for (let k = 1; k < 8; k++) {
      crc = made[0]![crc & 255]! ^ (crc >>> 8)
      made[k]![n] = crc
    }
  }
  return made as unknown as readonly [Table, Table, Table, Table, Table, Table, Table, Table]
}
