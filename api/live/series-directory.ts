// Every series that was seen, as a small integer: found by the bytes that its rows begin with, so that no string is made per reading. Names
// are decoded once a series. Bounded: past the limit new series are refused, and said so in the api's health.

export interface SeriesNames {
  readonly tenant: string
  readonly device: string
  readonly metric: string
}

/** Answer of `find` for a series that there is no room for. */
export const noSeries = -1

export class SeriesDirectory {
  /** Series known; ids are 0 to count-1, in order of appearance. */
  count = 0
  private readonly seriesMax: number
  private readonly seed = (Math.random() * 0x1_0000_0000) | 0
  /** Open addressing: id + 1, or 0 where free. */
  private slots = new Int32Array(2_048)
  private hashes = new Int32Array(1_024)
  private keyStarts = new Float64Array(1_024)
  private keyLengths = new Uint16Array(1_024)
  private keys = Buffer.allocUnsafe(64 * 1024)
  private keysLength = 0

  constructor(seriesMax: number) {
    this.seriesMax = seriesMax
  }

  /** The id of the series whose prefix is these bytes; a new one (`count` rose) when it was not known; `noSeries` when full. */
  find(bytes: Uint8Array, start: number, end: number): number {
    const hash = this.hash(bytes, start, end)
    const mask = this.slots.length - 1
    let slot = hash & mask
    for (;;) {
      const id = this.slots[slot]! - 1
      if (id < 0) return this.add(bytes, start, end, hash, slot)
      if (this.hashes[id] === hash && this.equals(id, bytes, start, end)) return id
      slot = (slot + 1) & mask
    }
  }

  private add(bytes: Uint8Array, start: number, end: number, hash: number, slot: number): number {
    if (this.count >= this.seriesMax) return noSeries
    const length = end - start
    if (this.keysLength + length > this.keys.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.keys.length * 2, this.keysLength + length))
      this.keys.copy(larger, 0, 0, this.keysLength)
      this.keys = larger
    }
    const id = this.count++
    if (id === this.hashes.length) this.growIds()
    this.hashes[id] = hash
    this.keyStarts[id] = this.keysLength
    this.keyLengths[id] = length
    this.keys.set(bytes.subarray(start, end), this.keysLength)
    this.keysLength += length
    this.slots[slot] = id + 1
    if (this.count * 2 > this.slots.length) this.growSlots()
    return id
  }

  private equals(id: number, bytes: Uint8Array, start: number, end: number): boolean {
    if (this.keyLengths[id] !== end - start) return false
    const keys = this.keys
    let at = this.keyStarts[id]!
    for (let i = start; i < end; i++) if (keys[at++] !== bytes[i]) return false
    return true
  }

  /** Four bytes a step; seeded, so that nobody can choose names that all fall into one slot. */
  private hash(bytes: Uint8Array, start: number, end: number): number {
    let hash = this.seed
    let at = start
    for (; at + 4 <= end; at += 4) {
      const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
      hash = Math.imul(hash ^ word, 0x9e3779b1)
      hash ^= hash >>> 15
    }
    for (; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193)
    hash ^= hash >>> 16
    hash = Math.imul(hash, 0x85ebca6b)
    return hash ^ (hash >>> 13)
  }

  private growIds(): void {
    const size = this.hashes.length * 2
    this.hashes = enlarged(this.hashes, new Int32Array(size))
    this.keyStarts = enlarged(this.keyStarts, new Float64Array(size))
    this.keyLengths = enlarged(this.keyLengths, new Uint16Array(size))
  }

  private growSlots(): void {
    const slots = new Int32Array(this.slots.length * 2)
    const mask = slots.length - 1
    for (let id = 0; id < this.count; id++) {
      let slot = this.hashes[id]! & mask
      while (slots[slot] !== 0) slot = (slot + 1) & mask
      slots[slot] = id + 1
    }
    this.slots = slots
  }
}

/** The larger array, with what the smaller one holds. */
export function enlarged<Column extends Float64Array | Int32Array | Uint16Array | Uint8Array>(
  from: Column,
  to: Column,
): Column {
  to.set(from)
  return to
}
