// CRC-32C (Castagnoli), which Kafka puts over each batch of records. Node has none; eight tables make it four times as fast as kafkajs' one, which
// writes it and never checks it.

const polynomial = 0x82f63b78
const tables = makeTables()
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables

export function crc32c(bytes: Uint8Array, start: number, end: number): number {
  let crc = ~0
  let i = start
  for (; i + 8 <= end; i += 8) {
    crc =
      t7[(crc ^ bytes[i]!) & 255]! ^
      t6[((crc >>> 8) ^ bytes[i + 1]!) & 255]! ^
      t5[((crc >>> 16) ^ bytes[i + 2]!) & 255]! ^
      t4[(crc >>> 24) ^ bytes[i + 3]!]! ^
      t3[bytes[i + 4]!]! ^
      t2[bytes[i + 5]!]! ^
      t1[bytes[i + 6]!]! ^
      t0[bytes[i + 7]!]!
  }
  for (; i < end; i++) crc = t0[(crc ^ bytes[i]!) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}

type Table = Int32Array
function makeTables(): readonly [Table, Table, Table, Table, Table, Table, Table, Table] {
  const made = Array.from({ length: 8 }, () => new Int32Array(256))
  for (let n = 0; n < 256; n++) {
    let crc = n
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1
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
