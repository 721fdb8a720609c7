// Chance that can be repeated: the same seed gives the same numbers (mulberry32).

export interface Random {
  readonly seed: number
  /** From 0 to below 1. */
  next(): number
  /** A whole number from `min` to `max`, both in. */
  between(min: number, max: number): number
  bytes(length: number): Buffer
  shuffle<T>(items: readonly T[]): T[]
}

/** WEIR_TEST_SEED repeats a run that failed. */
export function createRandom(seed = Number(process.env.WEIR_TEST_SEED ?? Math.floor(Math.random() * 2 ** 32))): Random {
  let state = seed >>> 0
  const next = (): number => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
  const between = (min: number, max: number): number => min + Math.floor(next() * (max - min + 1))
  return {
    seed,
    next,
    between,
    bytes: (length) => Buffer.from(Array.from({ length }, () => between(0, 255))),
    shuffle(items) {
      const shuffled = [...items]
      for (let i = shuffled.length - 1; i > 0; i--) {
        const j = between(0, i)
        ;[shuffled[i], shuffled[j]] = [shuffled[j]!, shuffled[i]!]
      }
      return shuffled
    },
  }
}
