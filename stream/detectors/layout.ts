// Where things lie in the block of one series: numbers of 8 bytes in a pooled buffer, seen through views of three widths. A block of nothing but
// zeros is a series that was never heard, so that a snapshot, a move to disk and a new series are flat copies. What one reading touches lies
// together: with thousands of series it is cache misses, not arithmetic, that set the speed.

/** One slab of a pool, or one block: the same bytes through each view. */
export interface Slab {
  readonly bytes: Uint8Array
  readonly f64: Float64Array
  readonly f32: Float32Array
  readonly u32: Uint32Array
}

export function createSlab(words: number): Slab {
  const buffer = new ArrayBuffer(words * 8)
  return {
    bytes: new Uint8Array(buffer),
    f64: new Float64Array(buffer),
    f32: new Float32Array(buffer),
    u32: new Uint32Array(buffer),
  }
}

/** Prototypes that a net keeps; one more lies in it for the moment before it is thinned. */
export const prototypesMax = 128

/** In a net, from its first word. */
export const net = {
  /** Prototypes in use; 0: nothing was pushed yet. */
  count: 0,
  /** Values pushed. */
  pushed: 1,
  /** Stands for the median. */
  centre: 2,
  /** Stands for the median absolute deviation. */
  spread: 3,
  /** Values further than this from every prototype are novel; a share of the range, on the net's scale. */
  radius: 4,
  /** Cached: the scale's unit, and the range on it. */
  scale: 5,
  range: 6,
  /** `pushed` when these two were last made. */
  scaledAt: 7,
  /** Where the last value belonged: the next one is hardly ever far from it. */
  hint: 8,
  /** Ascending. */
  prototypes: 9,
  /** Two a word: when each was last visited, in epoch seconds. */
  visits: 9 + prototypesMax + 2,
  words: 9 + prototypesMax + 2 + (prototypesMax + 2) / 2,
} as const

export const levelWindow = 64
export const hoursOfDay = 24
export const shapeStep = 12
export const shapeLength = 4
export const shapesMax = 200
export const marksMax = 8

/** In a series' block. */
export const series = {
  /** Readings in order of time. */
  readings: 0,
  firstAt: 1,
  lastAt: 2,
  lastValue: 3,
  /** The usual step between two readings, in seconds, tracked as a net tracks its centre. */
  steps: 4,
  stepCentre: 5,
  stepSpread: 6,
  /** Hygiene: of readings in order of time, then of late ones. */
  hygiene: 7,
  lateReadings: 11,
  lateHygiene: 12,
  /** Level: readings in the ring, where the next goes, and the sums of its newer and its older half. */
  ringCount: 16,
  ringNext: 17,
  ringRecent: 18,
  ringBefore: 19,
  /** When each 3,000th reading was heard (epoch seconds, two a word): how long ago some 21,000 readings are. */
  marks: 20,
  value: 24,
  /** Tier 1 from here. */
  level: 24 + net.words,
  ring: 24 + 2 * net.words,
  /** Tier 2 from here. */
  hour: 24 + 2 * net.words + 2 * levelWindow,
  hourSum: 25 + 2 * net.words + 2 * levelWindow,
  hourCount: 26 + 2 * net.words + 2 * levelWindow,
  hourMeans: 28 + 2 * net.words + 2 * levelWindow,
  hoursHeard: 28 + 2 * net.words + 2 * levelWindow + hoursOfDay,
  season: 28 + 2 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeSum: 28 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeReadings: 29 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeMeans: 30 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeMeansCount: 34 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeCount: 35 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  shapeTurn: 36 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  /** Four of 4 bytes a shape. */
  shapes: 37 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay,
  /** The turn of each shape's last visit, two a word. */
  shapeVisits: 37 + 3 * net.words + 2 * levelWindow + 2 * hoursOfDay + (shapesMax * shapeLength) / 2,
} as const

export type Tier = 0 | 1 | 2

/** Words of a series' block. */
export const blockWords: Readonly<Record<Tier, number>> = {
  0: series.level,
  1: series.hour,
  2: series.shapeVisits + shapesMax / 2,
}
