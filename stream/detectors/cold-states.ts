// Blocks of series that were not heard for long, in one file of places of one size. A place that the last durable snapshot speaks of is not
// written over before the next one is durable: so a snapshot and this file always belong together, whenever the process dies.
import { closeSync, fsyncSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'

/** Places that may lie idle until a snapshot, however few series there are. */
const idlePlacesMin = 4_096

export class ColdStates {
  /** Series that there was no room for on disk either, or that could not be read back: they begin anew. */
  dropped = 0
  private readonly file: string
  private readonly blockBytes: number
  private readonly seriesMax: number
  private descriptor: number | undefined
  /** By the key's bytes as latin1, the longest there first. */
  private readonly places = new Map<string, number>()
  private free: number[] = []
  /** Of the last snapshot, taken back since. */
  private freedSince: number[] = []
  private end = 0
  private isChanged = false

  constructor(file: string, blockBytes: number, seriesMax: number) {
    this.file = file
    this.blockBytes = blockBytes
    this.seriesMax = seriesMax
  }

  get isEmpty(): boolean {
    return this.places.size === 0
  }

  get count(): number {
    return this.places.size
  }

  /** As many places lie idle as are in use: only a snapshot lets them be written over, and keeps the file from growing on. */
  get needsSnapshot(): boolean {
    return this.freedSince.length > Math.max(idlePlacesMin, this.places.size)
  }

  put(key: Buffer, block: Uint8Array): void {
    if (this.places.size >= this.seriesMax) this.dropOldest()
    const place = this.free.pop() ?? this.end++
    writeWhole(this.opened(), block, place * this.blockBytes)
    this.places.set(key.latin1Slice(), place)
    this.isChanged = true
  }

  /** Back into memory; false when it is not here. */
  take(key: Buffer, block: Uint8Array): boolean {
    const name = key.latin1Slice()
    const place = this.places.get(name)
    if (place === undefined) return false
    this.places.delete(name)
    this.freedSince.push(place)
    if (readSync(this.opened(), block, 0, block.length, place * this.blockBytes) === block.length) return true
    this.dropped++
    return false
  }

  entries(): IterableIterator<[string, number]> {
    return this.places.entries()
  }

  /** Before a snapshot that speaks of these places. */
  sync(): void {
    if (this.isChanged && this.descriptor !== undefined) fsyncSync(this.descriptor)
    this.isChanged = false
  }

  /** The snapshot is durable: what was taken back before it may be written over. */
  snapshotIsDurable(): void {
    this.free.push(...this.freedSince)
    this.freedSince = []
  }

  /** As a snapshot says; nothing: the file begins anew. */
  restore(entries: readonly (readonly [string, number])[]): void {
    this.places.clear()
    this.end = 0
    const taken = new Set<number>()
    for (const [name, place] of entries) {
      this.places.set(name, place)
      taken.add(place)
      this.end = Math.max(this.end, place + 1)
    }
    this.free = []
    for (let place = 0; place < this.end; place++) if (!taken.has(place)) this.free.push(place)
    this.freedSince = []
    if (this.descriptor !== undefined) ftruncateSync(this.descriptor, this.end * this.blockBytes)
  }

  close(): void {
    if (this.descriptor !== undefined) closeSync(this.descriptor)
    this.descriptor = undefined
  }

  private dropOldest(): void {
    const oldest = this.places.entries().next().value
    if (!oldest) return
    this.places.delete(oldest[0])
    this.freedSince.push(oldest[1])
    this.dropped++
  }

  private opened(): number {
    if (this.descriptor === undefined) {
      this.descriptor = openForBoth(this.file)
      ftruncateSync(this.descriptor, this.end * this.blockBytes)
    }
    return this.descriptor
  }
}

function openForBoth(file: string): number {
  try {
    return openSync(file, 'r+', 0o600)
  } catch {
    return openSync(file, 'w+', 0o600)
  }
}

function writeWhole(descriptor: number, bytes: Uint8Array, at: number): void {
  let done = 0
  while (done < bytes.length) done += writeSync(descriptor, bytes, done, bytes.length - done, at + done)
}
