// The state of every series, found by the bytes that its rows begin with: blocks in pooled slabs, as many as may be in memory. The least recently
// heard go to disk (cold-states.ts), not away. What is found does not depend on what lies where: a block is copied as it is.
import type { ColdStates } from './cold-states.ts'
import { createSlab, type Slab } from './layout.ts'

const slabBlocks = 256
/** Moved to disk at a time, as a share of those in memory. */
const movedShare = 1 / 8
/** Most series that are looked for in one turn. */
export const turnSeriesMax = 32
const seriesInMemoryMin = 4 * turnSeriesMax

export class SeriesStates {
  /** Series in memory; slots are 0 to count-1. */
  count = 0
  private readonly blockWords: number
  private readonly seriesMax: number
  private readonly cold: ColdStates
  private readonly slabs: Slab[] = []
  /** Open addressing: slot + 1, or 0 where free. */
  private table = new Int32Array(2_048)
  private hashes: Int32Array
  private keyStarts: Float64Array
  private keyLengths: Uint16Array
  /** The turn in which each was last heard. */
  private heardIn: Float64Array
  private keys = Buffer.allocUnsafe(64 * 1024)
  private keysLength = 0
  private turn = 1

  constructor(blockWords: number, seriesMax: number, cold: ColdStates) {
    if (seriesMax < seriesInMemoryMin) throw new RangeError(`at least ${seriesInMemoryMin} series are kept in memory`)
    this.blockWords = blockWords
    this.seriesMax = seriesMax
    this.cold = cold
    this.hashes = new Int32Array(seriesMax)
    this.keyStarts = new Float64Array(seriesMax)
    this.keyLengths = new Uint16Array(seriesMax)
    this.heardIn = new Float64Array(seriesMax)
  }

  /** Between two turns the least recently heard may be moved; within one, slots stay as they are. */
  nextTurn(): void {
    this.turn++
    if (this.count > this.seriesMax - turnSeriesMax) this.moveOldest()
  }

  /** The slot of a series, whose block is in memory then. */
  find(bytes: Uint8Array, start: number, end: number): number {
    const hash = hashOf(bytes, start, end)
    const mask = this.table.length - 1
    let place = hash & mask
    for (;;) {
      const slot = this.table[place]! - 1
      if (slot < 0) return this.add(bytes, start, end, hash, place)
      if (this.hashes[slot] === hash && this.isKey(slot, bytes, start, end)) {
        this.heardIn[slot] = this.turn
        return slot
      }
      place = (place + 1) & mask
    }
  }

  slabOf(slot: number): Slab {
    return this.slabs[Math.floor(slot / slabBlocks)]!
  }

  /** The block's first word in its slab. */
  wordOf(slot: number): number {
    return (slot % slabBlocks) * this.blockWords
  }

  block(slot: number): Uint8Array {
    const at = this.wordOf(slot) * 8
    return this.slabOf(slot).bytes.subarray(at, at + this.blockWords * 8)
  }

  key(slot: number): Buffer {
    return this.keys.subarray(this.keyStarts[slot]!, this.keyStarts[slot]! + this.keyLengths[slot]!)
  }

  /** One that a snapshot holds; its block is to be filled by the caller. */
  restore(key: Uint8Array): number {
    return this.find(key, 0, key.length)
  }

  get bytesHeld(): number {
    return this.slabs.length * slabBlocks * this.blockWords * 8 + this.keys.length + this.seriesMax * 22
  }

  private add(bytes: Uint8Array, start: number, end: number, hash: number, place: number): number {
    if (this.count >= this.seriesMax) throw new Error('more series in one turn than there is room for')
    const slot = this.count++
    if (slot % slabBlocks === 0 && this.slabs.length * slabBlocks <= slot) {
      this.slabs.push(createSlab(slabBlocks * this.blockWords))
    }
    this.setKey(slot, bytes.subarray(start, end), hash)
    this.heardIn[slot] = this.turn
    this.table[place] = slot + 1
    if (this.count * 2 > this.table.length) this.rehash(this.table.length * 2)
    const block = this.block(slot)
    if (this.cold.isEmpty || !this.cold.take(this.key(slot), block)) block.fill(0)
    return slot
  }

  private setKey(slot: number, key: Uint8Array, hash: number): void {
    if (this.keysLength + key.length > this.keys.length) {
      const larger = Buffer.allocUnsafe(Math.max(this.keys.length * 2, this.keysLength + key.length))
      this.keys.copy(larger, 0, 0, this.keysLength)
      this.keys = larger
    }
    this.keys.set(key, this.keysLength)
    this.hashes[slot] = hash
    this.keyStarts[slot] = this.keysLength
    this.keyLengths[slot] = key.length
    this.keysLength += key.length
  }

  /** Makes room: the least recently heard eighth goes to disk, the others close up. */
  private moveOldest(): void {
    const moved = Math.max(turnSeriesMax, Math.floor(this.count * movedShare))
    const turns = this.heardIn.slice(0, this.count).sort()
    const before = turns[moved]!
    /** Of those heard in that very turn, as many as are still wanted. */
    let alike = moved - turns.indexOf(before)
    let kept = 0
    const keys = this.keys
    this.keys = Buffer.allocUnsafe(keys.length)
    this.keysLength = 0
    for (let slot = 0; slot < this.count; slot++) {
      const key = keys.subarray(this.keyStarts[slot]!, this.keyStarts[slot]! + this.keyLengths[slot]!)
      if (this.heardIn[slot]! < before || (this.heardIn[slot] === before && alike-- > 0)) {
        this.cold.put(key, this.block(slot))
        continue
      }
      if (kept !== slot) this.block(kept).set(this.block(slot))
      this.heardIn[kept] = this.heardIn[slot]!
      this.setKey(kept++, key, this.hashes[slot]!)
    }
    this.count = kept
    this.rehash(this.table.length)
  }

  private rehash(size: number): void {
    this.table = new Int32Array(size)
    for (let slot = 0; slot < this.count; slot++) {
      let place = this.hashes[slot]! & (size - 1)
      while (this.table[place] !== 0) place = (place + 1) & (size - 1)
      this.table[place] = slot + 1
    }
  }

  private isKey(slot: number, bytes: Uint8Array, start: number, end: number): boolean {
    if (this.keyLengths[slot] !== end - start) return false
    const keys = this.keys
    let at = this.keyStarts[slot]!
    for (let i = start; i < end; i++) if (keys[at++] !== bytes[i]) return false
    return true
  }
}

/** Of this process alone: nobody can choose names that all fall into one place. */
const seed = (Math.random() * 0x1_0000_0000) | 0

/** Four bytes a step. */
function hashOf(bytes: Uint8Array, start: number, end: number): number {
  let hash = seed
  let at = start
  for (; at + 4 <= end; at += 4) {
    const word = bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)
    hash = Math.imul(hash ^ word, 0x9e3779b1)
    hash ^= hash >>> 15
  }
  for (; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x01000193)
  return hash ^ (hash >>> 13)
}
