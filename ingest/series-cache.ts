// The row prefixes (tenant, device, metric as bytes) of series seen before, so that a known reading costs neither a string nor an encode.
// One cache a device, shared by its connections; bounded a device and over all, since names come from outside.

import { isMetricName } from '../domain/reading.ts'
import { encodeRowPrefix } from '../domain/row-format.ts'

/** Names kept a device; further ones are encoded anew each time. */
const namesMax = 1024
/** How far a search goes by comparing bytes; beyond it a string and a map are cheaper. */
const comparedMax = 16
/** What a kept name costs beside its bytes (objects, map entry), roughly. */
const nameOverheadBytes = 200
/** What a device costs before its first name (lists, a map, the cache itself), measured. */
const deviceOverheadBytes = 1_050

const quote = 0x22
const backslash = 0x5c

export class SeriesCache {
  readonly tenant: string
  readonly device: string
  prefixes: Buffer[] = []
  /** Bytes of the name at the end of each prefix; 0 where it must not be compared as bytes. */
  private nameLengths: number[] = []
  private readonly places = new Map<string, number>()
  /** In which object each series was last seen: finds a name that comes twice in one. */
  private seenIn: number[] = []
  private object = 0
  private next = 0
  private readonly caches: SeriesCaches
  bytes = 0

  constructor(tenant: string, device: string, caches: SeriesCaches) {
    this.tenant = tenant
    this.device = device
    this.caches = caches
  }

  /** The place of a metric, kept from now on; -1 when it isn't kept (`prefixOf` then). The name must have been checked, or be found here. */
  placeOf(metric: string): number {
    return this.places.get(metric) ?? -1
  }

  /** The prefix of a metric that has no place yet; undefined when the name is not allowed. */
  add(metric: string): Buffer | undefined {
    if (!isMetricName(metric)) return undefined
    const prefix = encodeRowPrefix(this.tenant, this.device, metric)
    if (this.prefixes.length < namesMax) {
      const place = this.prefixes.length
      this.prefixes.push(prefix)
      this.nameLengths.push(isComparable(metric) ? Buffer.byteLength(metric) : 0)
      this.seenIn.push(0)
      this.places.set(metric, place)
      const bytes = prefix.length + nameOverheadBytes + (place === 0 ? deviceOverheadBytes : 0)
      this.bytes += bytes
      this.caches.grew(this, bytes)
    }
    return prefix
  }

  /** A new object begins: `find` answers each series once in it. */
  beginObject(): void {
    this.object++
  }

  /**
   * The place of the series whose name stands at `at` and is closed by a quote before `end`; -1 when it is not known, has escapes, or was found
   * before in this object. Metrics mostly come in the same order, so the one after the last is tried first.
   */
  find(bytes: Buffer, at: number, end: number): number {
    const count = this.prefixes.length
    let place = this.next < count ? this.next : 0
    if (count === 0) return -1
    if (!this.matches(place, bytes, at, end)) {
      place = 0
      const compared = Math.min(count, comparedMax)
      while (place < compared && !this.matches(place, bytes, at, end)) place++
      if (place === compared) {
        if (count === compared) return -1
        place = this.findByText(bytes, at, end)
        if (place < 0) return -1
      }
    }
    if (this.seenIn[place] === this.object) return -1
    this.seenIn[place] = this.object
    this.next = place + 1
    return place
  }

  nameLength(place: number): number {
    return this.nameLengths[place]!
  }

  private matches(place: number, bytes: Buffer, at: number, end: number): boolean {
    const length = this.nameLengths[place]!
    if (length === 0 || at + length >= end || bytes[at + length] !== quote) return false
    const prefix = this.prefixes[place]!
    const offset = prefix.length - length
    for (let i = 0; i < length; i++) if (prefix[offset + i] !== bytes[at + i]) return false
    return true
  }

  private findByText(bytes: Buffer, at: number, end: number): number {
    let to = at
    for (; ; to++) {
      const byte = bytes[to]!
      if (to >= end || byte >= 0x80 || byte < 0x20 || byte === backslash) return -1
      if (byte === quote) break
    }
    const place = this.places.get(bytes.latin1Slice(at, to)) ?? -1
    return place >= 0 && this.nameLengths[place]! > 0 ? place : -1
  }

  clear(): void {
    this.prefixes = []
    this.nameLengths = []
    this.seenIn = []
    this.places.clear()
    this.next = 0
    this.bytes = 0
  }
}

/**
 * Names that mean the same as bytes in a JSON object wherever they stand: no escapes, none that JSON payloads give another meaning, and none that
 * a JavaScript object would put into another order.
 */
function isComparable(metric: string): boolean {
  if (metric === 'ts' || metric === 'time' || metric === 'timestamp' || metric === 'values') return false
  const first = metric.charCodeAt(0)
  return !(first >= 0x30 && first <= 0x39) && !metric.includes('"') && !metric.includes('\\')
}

/** All caches of a process, under one budget: the ones that began to fill first are emptied when it is used up. */
export class SeriesCaches {
  private readonly bytesMax: number
  private readonly filled = new Set<SeriesCache>()
  private readonly byDevice = new Map<string, SeriesCache>()
  bytes = 0

  constructor(bytesMax = 64 * 1024 * 1024) {
    this.bytesMax = bytesMax
  }

  of(tenant: string, device: string): SeriesCache {
    return this.byDevice.get(keyOf(tenant, device)) ?? new SeriesCache(tenant, device, this)
  }

  /** A connection may go on filling a cache that was emptied, while a newer one of the same device exists: both count. */
  grew(cache: SeriesCache, bytes: number): void {
    this.filled.add(cache)
    const key = keyOf(cache.tenant, cache.device)
    if (!this.byDevice.has(key)) this.byDevice.set(key, cache)
    this.bytes += bytes
    for (const other of this.filled) {
      if (this.bytes <= this.bytesMax) break
      if (other !== cache) this.empty(other)
    }
  }

  private empty(cache: SeriesCache): void {
    const key = keyOf(cache.tenant, cache.device)
    this.bytes -= cache.bytes
    cache.clear()
    this.filled.delete(cache)
    if (this.byDevice.get(key) === cache) this.byDevice.delete(key)
  }
}

function keyOf(tenant: string, device: string): string {
  return `${tenant}\0${device}`
}
