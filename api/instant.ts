// Instants as people and programs write them in a query (API.md section 1), and as answers give them: epoch milliseconds with the
// microseconds as a fraction.
import { instantFromText, latestInstant } from '../domain/instant.ts'
import type { Micros } from '../domain/reading.ts'

/** A fixed instant, or one that stands in a distance before now. */
export type AskedInstant = { readonly at: Micros } | { readonly beforeNow: Micros }

export function resolveInstant(asked: AskedInstant, now: Micros): Micros {
  return 'at' in asked ? asked.at : Math.max(0, now - asked.beforeNow)
}

/** Epoch milliseconds, exact to the microsecond as far as a double goes (until 2255 it does). */
export function toMillis(micros: Micros): number {
  return micros / 1000
}

const unitMicros: Readonly<Record<string, number>> = {
  s: 1_000_000,
  m: 60_000_000,
  h: 3_600_000_000,
  d: 86_400_000_000,
  w: 604_800_000_000,
}

const forms = 'RFC 3339 text, an epoch number (seconds, milliseconds, microseconds or nanoseconds), now, or now-15m'

/** The sentence says what is wrong. */
export function parseInstant(text: string): AskedInstant | { readonly problem: string } {
  if (text === 'now') return { beforeNow: 0 }
  const distance = /^now-(\d{1,9})([smhdw])$/.exec(text)
  if (distance) return { beforeNow: Number(distance[1]) * unitMicros[distance[2]!]! }
  if (/^-/.test(text)) return { problem: 'is before 1970' }
  const micros = /^\d+(\.\d+)?$/.test(text) ? fromNumber(text) : fromText(text)
  if (Number.isNaN(micros)) return { problem: `is not an instant: give ${forms}` }
  if (micros < 0) return { problem: 'is before 1970' }
  if (micros >= latestInstant) return { problem: 'is after the year 2255' }
  return { at: micros }
}

/** As `instantFromNumber`, by the number's size, but on its digits: NaN where there are too many of them to be one. */
function fromNumber(text: string): Micros {
  if (text.length > 40) return Number.NaN
  const size = Number(text)
  if (size < 1e11) return scale(text, 6)
  if (size < 1e14) return scale(text, 3)
  if (size < 1e17) return scale(text, 0)
  return scale(text, -3)
}

/** Times 10^exponent, rounded to nearest, on the digits: a double has too few of them for nanoseconds. */
function scale(text: string, exponent: number): number {
  const [whole = '', fraction = ''] = text.split('.')
  const point = whole.length + exponent
  const digits = (whole + fraction).padEnd(point + 1, '0')
  return Number(digits.slice(0, point)) + (digits[point]! >= '5' ? 1 : 0)
}

/** The sign of an offset is often sent bare, and a bare plus in a query means a space: no other reading of it makes sense, so it is one. */
function fromText(text: string): Micros {
  return instantFromText(text.replace(/ (?=\d{2}:\d{2}$)/, '+'))
}
