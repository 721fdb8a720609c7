// What a codec is: bytes to readings. It knows one format and nothing of devices, partitions or the log; bounds that hold for every format
// (names, text length, the future, how many) are kept by the sink that it writes into. `codec.contract.ts` holds every codec to this.

import type { RejectReason } from '../../domain/outcome.ts'
import type { Micros } from '../../domain/reading.ts'
import type { SeriesCache } from '../series-cache.ts'

/** The names that topics (`devices/d/telemetry/{codec}`), dead letters and instruments use. */
export type CodecName = 'json' | 'ndjson'

export interface Codec {
  readonly name: CodecName
  /** Reads bytes[start, end) and tells the sink of every reading and every refusal. Never throws for bad input; keeps nothing of `bytes`. */
  decode(bytes: Buffer, start: number, end: number, out: ReadingSink): void
}

/** In place of an instant: the device gave none, so that the moment of arrival stands in. */
export const withoutClock = -1

/** Takes the readings of one payload. */
export interface ReadingSink {
  /** A new element begins: its readings without a clock share one instant. */
  element(): void
  /** `observedAt` in microseconds, or `withoutClock`; the value may be anything that a number can be (it is refused when not finite). */
  number(metric: string, observedAt: Micros, value: number): void
  text(metric: string, observedAt: Micros, text: string): void
  /** Something that can't be used. `count`: how many readings it stands for; `metric` where the rest of the payload is usable. */
  reject(reason: RejectReason, detail: string, metric?: string, count?: number): void
  /** Nothing of this payload is used, whatever else is said of it: it is refused whole. */
  abandon(reason: RejectReason, detail: string): void
  /** The latest instant that is believed. */
  readonly observedAtMax: Micros

  // For codecs that compare names as bytes: nothing is checked here that the cache has checked already.
  /** Series of this device that were seen before. */
  readonly series: SeriesCache
  /** As `number`, for a series by its place in `series`; the value is finite and `observedAt` in bounds. */
  known(place: number, observedAt: Micros, value: number): void
  /** Remembers where the rows stand; `rewind` takes back what came since, the element too. */
  mark(): void
  rewind(): void
}
