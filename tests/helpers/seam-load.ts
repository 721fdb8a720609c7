// What devices send in the test of the seam: readings that rise, and all that does not: late ones, older than the newest and older than everything, the
// same again, the same instant with another value, texts, several metrics. What message number `index` of a device says is decided by both alone, so a
// message that is sent again is the same.
import { createRandom } from './random.ts'

export interface SentReading {
  readonly metric: string
  readonly observedAt: number
  readonly value: number | string
}

export const firstAt = 1_700_000_000_000
/** So that detection has heard of a day, which it wants first, within a round. */
const stepMs = 300_000
/** Before everything that rises. */
const ancientAt = firstAt - 90 * 86_400_000
/** What is repeated or corrected was sent at most so many messages before, and now and then at any time before. */
const nearMax = 50

/** When the rising reading of this message was observed. */
export function instantOf(index: number): number {
  return firstAt + index * stepMs
}

export function seamReadings(device: number, index: number): readonly SentReading[] {
  const random = createRandom(index * 31 + device * 1_000_003 + 7)
  for (let i = 0; i < 3; i++) random.next()
  const kind = random.next()
  const back = (): number => Math.max(0, index - random.between(1, random.next() < 0.2 ? index + 1 : nearMax))
  if (kind < 0.65 || index < 10) return rising(index)
  if (kind < 0.75) {
    // Between two that rose: an instant of its own, below the newest.
    const observedAt = instantOf(back()) + 1 + random.between(0, stepMs - 2)
    return [{ metric: 'a', observedAt, value: index + 0.25 }]
  }
  if (kind < 0.8) return [{ metric: 'b', observedAt: ancientAt + index, value: index }]
  if (kind < 0.85) return rising(back())
  if (kind < 0.9) return rising(back()).map((reading) => corrected(reading, index))
  // The newest itself, corrected, with a late one in the same payload.
  if (kind < 0.95)
    return [
      ...rising(index),
      ...rising(index).map((reading) => corrected(reading, index)),
      { metric: 'a', observedAt: instantOf(back()) + 5, value: index + 0.75 },
    ]
  return [...rising(index), { metric: 's', observedAt: instantOf(index), value: `text ${index}` }]
}

/** JSON of a message, in order. */
export function seamPayload(device: number, index: number): string {
  return JSON.stringify(
    seamReadings(device, index).map(({ metric, observedAt, value }) => ({
      ts: observedAt,
      values: { [metric]: value },
    })),
  )
}

function rising(index: number): SentReading[] {
  const observedAt = instantOf(index)
  const readings: SentReading[] = [{ metric: 'a', observedAt, value: isOdd(index) ? 10 * index : index }]
  if (index % 3 === 0) readings.push({ metric: 'b', observedAt, value: -index })
  return readings
}

/** Now and then something that detection tells, more each time. */
function isOdd(index: number): boolean {
  return index % 150 === 149
}

function corrected({ metric, observedAt }: SentReading, index: number): SentReading {
  return { metric, observedAt, value: index + 0.5 }
}
