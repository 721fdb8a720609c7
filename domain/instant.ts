// Instants as devices and callers write them, to epoch microseconds (API.md section 1). Payloads and parameters are read by the same rules; a
// number in a parameter is text and may have more digits than a double, which api/instant.ts sees to.

import type { Micros } from './reading.ts'

/** Whole microseconds are exact up to here, in the year 2255. */
export const latestInstant: Micros = Number.MAX_SAFE_INTEGER

/**
 * A number by its size: below 1e11 seconds, below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Rounded to the nearest
 * microsecond. Negative for an instant before 1970; `latestInstant` for any that lies beyond it; NaN when the number is not finite.
 */
export function instantFromNumber(number: number): Micros {
  const size = Math.abs(number)
  const micros = size < 1e11 ? number * 1e6 : size < 1e14 ? number * 1e3 : size < 1e17 ? number : number / 1e3
  if (!Number.isFinite(micros)) return Number.NaN
  // -0 (of -0.1 µs) is 0.
  return Math.min(Math.round(micros) + 0, latestInstant)
}

const rfc3339 = /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,30}))?(?:[Zz]|([+-])(\d{2}):(\d{2}))$/

/**
 * RFC 3339 text, always with a zone. Digits beyond the microsecond are rounded. Negative before 1970; NaN when it is not an instant: a day that
 * the calendar hasn't got, a leap second (it has no place on the epoch's line), a missing zone.
 */
export function instantFromText(text: string): Micros {
  const match = rfc3339.exec(text)
  if (!match) return Number.NaN
  const [year, month, day, hour, minute, second] = [1, 2, 3, 4, 5, 6].map((group) => Number(match[group])) as [
    number,
    number,
    number,
    number,
    number,
    number,
  ]
  if (month < 1 || month > 12 || day < 1 || day > daysOf(year, month) || hour > 23 || minute > 59 || second > 59) {
    return Number.NaN
  }
  const [offsetHour, offsetMinute] = [Number(match[9] ?? 0), Number(match[10] ?? 0)]
  if (offsetHour > 23 || offsetMinute > 59) return Number.NaN
  // Date.UTC takes the years 0–99 for 1900–1999; all that counts of them is that they lie before 1970.
  if (year < 1900) return -1
  const offsetMinutes = (offsetHour * 60 + offsetMinute) * (match[8] === '-' ? -1 : 1)
  const millis = Date.UTC(year, month - 1, day, hour, minute, second) - offsetMinutes * 60_000
  return Math.min(millis * 1000 + microsOf(match[7] ?? ''), latestInstant)
}

function microsOf(fraction: string): number {
  return Number(fraction.slice(0, 6).padEnd(6, '0')) + (fraction.charCodeAt(6) >= 53 ? 1 : 0)
}

function daysOf(year: number, month: number): number {
  if (month === 2) return (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0 ? 29 : 28
  return month === 4 || month === 6 || month === 9 || month === 11 ? 30 : 31
}
