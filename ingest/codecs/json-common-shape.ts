// Reads the common shapes of JSON telemetry straight from the bytes, without a string or an object:
//
//   {"name": number, …}   {"ts": digits, "name": number, …}   {"ts": digits, "values": {"name": number, …}}
//
// with names that are known already, plain numbers of at most 15 digits, blanks where JSON allows them. It says false, having written nothing,
// to everything else; JSON.parse decides then. What it does read, it reads exactly as JSON.parse would (json-common-shape.test.ts).

import { instantFromNumber } from '../../domain/instant.ts'
import { type ReadingSink, withoutClock } from './codec.ts'

const tab = 0x09
const lineFeed = 0x0a
const carriageReturn = 0x0d
const blank = 0x20
const quote = 0x22
const comma = 0x2c
const minus = 0x2d
const dot = 0x2e
const digit0 = 0x30
const digit9 = 0x39
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d

/** With at most 15 digits, both the digits as a whole number and the power of ten are exact, so one division rounds as JSON.parse does. */
const digitsMax = 15
const headDigits = 9
const powersOfTen = Float64Array.from({ length: digitsMax + 1 }, (_, power) => 10 ** power)

/** Where reading a number or a name ended; beside the value, so that nothing is allocated for the pair. */
let position = 0

export function decodeCommonShape(bytes: Buffer, start: number, end: number, out: ReadingSink): boolean {
  // The last byte is the closing brace: every scan below stops at it, so none needs to look at `end` for each byte.
  let last = end - 1
  while (last > start && bytes[last] === blank) last--
  while (last > start && isBlank(bytes[last]!)) last--
  if (bytes[last] !== closeBrace) return false
  let at = skipBlanks(bytes, start)
  if (bytes[at] !== openBrace || at >= last) return false
  at = skipBlanks(bytes, at + 1)
  let observedAt = withoutClock
  let isNested = false
  if (isTs(bytes, at, last)) {
    at = skipBlanks(bytes, at + 4)
    if (bytes[at] !== colon) return false
    at = skipBlanks(bytes, at + 1)
    // Whole and positive, as instants in payloads are; anything else is looked at in full.
    if (!isDigit(bytes[at]!)) return false
    observedAt = instantFromNumber(readNumber(bytes, at))
    if (!(observedAt >= 0 && observedAt <= out.observedAtMax)) return false
    at = skipBlanks(bytes, position)
    if (bytes[at] !== comma) return false
    at = skipBlanks(bytes, at + 1)
    if (isValues(bytes, at, last)) {
      at = skipBlanks(bytes, at + 8)
      if (bytes[at] !== colon) return false
      at = skipBlanks(bytes, at + 1)
      if (bytes[at] !== openBrace) return false
      at = skipBlanks(bytes, at + 1)
      isNested = true
    }
  }
  out.element()
  out.mark()
  if (readPairs(bytes, at, last, observedAt, out)) {
    // At the brace that closed the pairs: the last one, or the one before it.
    if (!isNested ? position === last : position < last && skipBlanks(bytes, position + 1) === last) return true
  }
  out.rewind()
  return false
}

/** `"name": number, …` up to the closing brace, at which `position` then stands. */
function readPairs(bytes: Buffer, start: number, last: number, observedAt: number, out: ReadingSink): boolean {
  const { series } = out
  series.beginObject()
  let at = start
  for (;;) {
    if (bytes[at] !== quote) return false
    const place = series.find(bytes, at + 1, last)
    if (place < 0) return false
    at += series.nameLength(place) + 2
    if (bytes[at] !== colon) at = skipBlanks(bytes, at)
    if (bytes[at] !== colon) return false
    const value = readNumber(bytes, skipBlanks(bytes, at + 1))
    // NaN: not a plain number.
    if (Number.isNaN(value)) return false
    out.known(place, observedAt, value)
    at = skipBlanks(bytes, position)
    const byte = bytes[at]
    if (byte === closeBrace) {
      position = at
      return true
    }
    if (byte !== comma) return false
    at = skipBlanks(bytes, at + 1)
  }
}

/**
 * NaN when it is not a plain number (RFC 8259 section 6, without exponent) of at most 15 digits. The digits are gathered in two halves that fit
 * in 32 bits: whole-number arithmetic is twice as fast as floating point here.
 */
function readNumber(bytes: Buffer, start: number): number {
  let at = start
  const isNegative = bytes[at] === minus
  if (isNegative) at++
  const isZeroFirst = bytes[at] === digit0
  let head = 0
  let tail = 0
  let count = 0
  let wholeCount = -1
  for (;;) {
    const byte = bytes[at]!
    const digit = byte - digit0
    if (digit >= 0 && digit <= 9) {
      if (count < headDigits) head = (head * 10 + digit) | 0
      else tail = (tail * 10 + digit) | 0
      if (++count > digitsMax) return Number.NaN
    } else if (byte === dot && wholeCount < 0) {
      wholeCount = count
    } else break
    at++
  }
  position = at
  const decimals = wholeCount < 0 ? 0 : count - wholeCount
  if (wholeCount < 0) wholeCount = count
  else if (decimals === 0) return Number.NaN
  if (wholeCount === 0 || (isZeroFirst && wholeCount > 1)) return Number.NaN
  const digits = count <= headDigits ? head : head * powersOfTen[count - headDigits]! + tail
  const value = decimals === 0 ? digits : digits / powersOfTen[decimals]!
  return isNegative ? -value : value
}

function isBlank(byte: number): boolean {
  return byte <= blank && (byte === blank || byte === lineFeed || byte === tab || byte === carriageReturn)
}

function isDigit(byte: number): boolean {
  return byte >= digit0 && byte <= digit9
}

function skipBlanks(bytes: Buffer, start: number): number {
  let at = start
  while (isBlank(bytes[at]!)) at++
  return at
}

function isTs(bytes: Buffer, at: number, last: number): boolean {
  // "ts"
  return (
    at + 4 < last && bytes[at] === quote && bytes[at + 1] === 0x74 && bytes[at + 2] === 0x73 && bytes[at + 3] === quote
  )
}

function isValues(bytes: Buffer, at: number, last: number): boolean {
  // "values"
  return (
    at + 8 < last &&
    bytes[at] === quote &&
    bytes[at + 1] === 0x76 &&
    bytes[at + 2] === 0x61 &&
    bytes[at + 3] === 0x6c &&
    bytes[at + 4] === 0x75 &&
    bytes[at + 5] === 0x65 &&
    bytes[at + 6] === 0x73 &&
    bytes[at + 7] === quote
  )
}
