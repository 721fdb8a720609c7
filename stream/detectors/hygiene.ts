// One alert an event: after one, no other for a while unless it is worse; a series that keeps alarming is discounted, and recovers. Four numbers.
import type { Slab } from './layout.ts'

const refractoryReadings = 90
const recoveryReadings = 3_000

/** In a series' block, from the first word. */
const hygiene = { envelope: 0, lastAt: 1, alarms: 2 } as const

export interface Verdict {
  /** 0 to 1; 0 says nothing. */
  score: number
  /** Alerts that discount this one, faded. */
  alarms: number
}

/** `reading`: which one of the series this is, from 1. `novelty` is above 0. */
export function judge({ f64 }: Slab, at: number, reading: number, novelty: number, verdict: Verdict): void {
  const envelope = f64[at + hygiene.envelope]!
  const since = reading - f64[at + hygiene.lastAt]!
  const isOpen = since < refractoryReadings
  if (isOpen && novelty <= envelope) {
    verdict.score = 0
    return
  }
  const alarms = f64[at + hygiene.alarms]! * Math.exp(-since / recoveryReadings)
  const discounted = novelty / (1 + alarms)
  verdict.score = discounted / (1 + discounted)
  verdict.alarms = alarms
  f64[at + hygiene.alarms] = alarms + Math.max(0, Math.min(novelty, 1) - (isOpen ? Math.min(envelope, 1) : 0))
  f64[at + hygiene.envelope] = novelty
  f64[at + hygiene.lastAt] = reading
}
