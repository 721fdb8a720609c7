// Time is passed in, so that tests can hold it.

export interface Clock {
  /** Epoch microseconds. */
  nowMicros(): number
}

// performance.timeOrigin + now() has a fraction of a millisecond; Date.now() has not, but follows steps of the system clock. The fraction
// is worth nothing across a step, so the system clock leads.
export const systemClock: Clock = { nowMicros: () => Date.now() * 1000 }
