// What a detector is: a pure function of a series' readings in the order in which they came, with all its state in one flat block that it does not
// own. No clock, no chance: the same readings give the same findings, and a block that is copied away and back goes on as if nothing had been.
// detector.contract.ts holds every detector of index.ts to this.
import type { Slab } from './layout.ts'

export interface Detector {
  /** Stands in each anomaly, with the version: `coverage-net`. */
  readonly name: string
  /** Changes whenever the same readings would give another finding (its words apart), or a block another meaning; an older block is then not read. */
  readonly version: number
  /** Of a series, in words of 8 bytes. A block of zeros is a series that was never heard. */
  readonly blockWords: number
  /**
   * Takes one reading in and returns its score: 0 for nearly every one, else below 1, the higher the odder. `at`: the first word of the series'
   * block in `slab`; `observedAt` in epoch microseconds; `value` finite. Allocates nothing.
   */
  observe(slab: Slab, at: number, observedAt: number, value: number): number
  /** Reads a little of a block that `observe` will soon need: of several in a row the caches then wait at the same time. */
  touch(slab: Slab, at: number): number
  /** Why, for the last reading that scored above 0; valid until the next reading. */
  explain(): Finding
}

export interface Finding {
  readonly score: number
  readonly value: number
  /** What would have been nothing new. */
  readonly expected: { readonly low: number; readonly high: number }
  /** For a person, one or two sentences. */
  readonly explanation: string
  /** The same for a program: plain JSON. */
  readonly evidence: Readonly<Record<string, unknown>>
  /** Still learning: not to be told to anyone. */
  readonly isWarmingUp: boolean
}
