// The parser for common shapes and JSON.parse must be one and the same to a sender: bit for bit, on documents near the common shape and on
// bytes that only look like them.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { SeriesCaches } from '../series-cache.ts'
import { type Decoded, decodeWith } from './codec.contract.ts'
import { decodeJson, json } from './json.ts'
import { decodeCommonShape } from './json-common-shape.ts'

const knownNames = ['temperature', 'a', 'motor.rpm', 'température', 'Inputs/A', '__proto__', 'b c']

/** A device whose names are known, so that the common shapes apply. */
function knownSeries() {
  const series = new SeriesCaches().of('default', 'd')
  for (const name of [...knownNames, 'ts', 'time', 'values', '10', 'with "quotes"', 'back\\slash']) series.add(name)
  return series
}

function isCommonShape(text: string): boolean {
  let isTaken = false
  const bytes = Buffer.from(text)
  decodeWith(
    (given, start, end, out) => {
      isTaken = decodeCommonShape(given, start, end, out)
    },
    bytes,
    0,
    bytes.length,
    knownSeries(),
  )
  return isTaken
}

function bothWays(bytes: Buffer, start: number, end: number): { common: Decoded; parsed: Decoded } {
  const [commonSeries, parsedSeries] = [knownSeries(), knownSeries()]
  return {
    common: decodeWith((...given) => json.decode(...given), bytes, start, end, commonSeries),
    parsed: decodeWith(decodeJson, bytes, start, end, parsedSeries),
  }
}

function expectSame(text: string | Buffer): void {
  const payload = Buffer.from(text as string)
  // Bytes around it that would complete it, if they were looked at.
  const bytes = Buffer.concat([Buffer.from('{"a":'), payload, Buffer.from('9}}" ')])
  const { common, parsed } = bothWays(bytes, 5, 5 + payload.length)
  expect(common).toStrictEqual(parsed)
  for (const [place, reading] of common.readings.entries()) {
    // toStrictEqual tells -0 from 0 (Object.is), and NaN can't be a value.
    expect(Object.is(reading.value, parsed.readings[place]?.value)).toBe(true)
  }
}

describe('the common shapes of JSON', () => {
  it.each([
    '{"temperature":21.5}',
    '{"ts":1700000000000,"temperature":21.5}',
    '{"ts":1700000000000,"values":{"temperature":21.5}}',
    '{"ts":1700000000000,"values":{"temperature":21.5,"a":-1,"motor.rpm":0,"b c":-0}}          ',
    ' \t\r\n{ "ts" : 1700000000 , "values" : { "temperature" : 21.5 , "a" : 1 } } \r\n',
    '{"température":1,"Inputs/A":0.000123,"__proto__":5}',
    '{"a":123456789012345,"temperature":12345678.9012345}',
    '{"ts":0,"a":1}',
    '{"ts":1700000000.25,"a":1}',
  ])('are read from the bytes: %s', (text) => {
    expect(isCommonShape(text)).toBe(true)
    expectSame(text)
  })

  it.each([
    ['a name not seen before', '{"unknown":1}'],
    ['a name with an escape', '{"\\u0061":1}'],
    ['a name that comes twice', '{"a":1,"temperature":2,"a":3}'],
    ['a name that means an instant elsewhere', '{"time":1700000000}'],
    ['a name that is a whole number', '{"10":1,"a":2}'],
    ['an exponent', '{"a":1e5}'],
    ['more than 15 digits', '{"a":1234567890123456}'],
    ['a fraction of more than 15 digits', '{"a":0.1234567890123456}'],
    ['text', '{"a":"x"}'],
    ['true', '{"a":true}'],
    ['null', '{"a":null}'],
    ['an instant as text', '{"ts":"2026-01-01T00:00:00Z","a":1}'],
    ['an instant after the metrics', '{"a":1,"ts":1700000000000}'],
    ['something after values', '{"ts":1700000000000,"values":{"a":1},"b c":2}'],
    ['nothing at all', '{}'],
    ['no metrics', '{"ts":1700000000000,"values":{}}'],
    ["an instant that isn't believed", '{"ts":4000000000000,"a":1}'],
    ['a negative instant', '{"ts":-1,"a":1}'],
    ['an array', '[{"a":1}]'],
  ])('leave %s to JSON.parse', (_, text) => {
    expect(isCommonShape(text)).toBe(false)
    expectSame(text)
  })

  it.each([
    '{"a":01}',
    '{"a":-01}',
    '{"a":1.}',
    '{"a":.5}',
    '{"a":-}',
    '{"a":+1}',
    '{"a":1.2.3}',
    '{"a":--1}',
    '{"a":1 2}',
    '{"a":1,}',
    '{,"a":1}',
    '{"a" 1}',
    '{"a":1',
    '{"a":1}}',
    '{"ts":1700000000000,"values":{"a":1}',
    '{"ts":1700000000000,"values":{"a":1}}}',
    '{"ts":01700000000000,"a":1}',
    '{"ts":1700000000000 "a":1}',
    '{"ts":1700000000000,}',
    '{"a',
    '{"',
    '{',
    '}',
    '',
    '{"a\u0000":1}',
    '{"a":1\u00a0}',
    '{"a":1\v}',
  ])('are never seen in what is not JSON: %j', (text) => {
    expect(isCommonShape(text)).toBe(false)
    if (text !== '') expectSame(text)
  })

  const blanks = fc.stringMatching(/^[ \t\n\r]{0,2}$/)
  const name = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...knownNames) },
    fc.constantFrom('ts', 'time', 'x', '10', '\\u0061'),
  )
  const plainNumber = fc
    .tuple(fc.stringMatching(/^-?(0|[1-9]\d{0,16})$/), fc.option(fc.stringMatching(/^\d{1,16}$/)))
    .map(([whole, decimals]) => (decimals === null ? whole : `${whole}.${decimals}`))
  const value = fc.oneof(
    { weight: 8, arbitrary: plainNumber },
    fc.double().map((number) => String(number)),
    fc.constantFrom('null', 'true', '"text"', '1e3', '{}', '[]', '00', '{"a":1}', '1E400', '-0', '-0.0', '0.0'),
  )
  const instant = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1_600_000_000_000, max: 1_893_500_000_000 }).map(String) },
    plainNumber,
    fc.constantFrom('"2026-01-01T00:00:00Z"', 'null', '[1]', '1e12'),
  )
  const document = fc
    .record({
      blanks: fc.array(blanks, { minLength: 8, maxLength: 8 }),
      instant: fc.option(instant),
      isNested: fc.boolean(),
      pairs: fc.array(fc.tuple(name, value), { maxLength: 5 }),
      after: fc.constantFrom('', '', '', ' '.repeat(50), '}', ',', ' x'),
    })
    .map((given) => {
      const [b0, b1, b2, b3, b4, b5, b6, b7] = given.blanks
      const pairs = given.pairs.map(([key, number]) => `"${key}"${b3}:${b4}${number}`).join(`${b5},${b6}`)
      const metrics = given.isNested ? `"values"${b0}:${b1}{${b2}${pairs}${b7}}` : pairs
      const time = given.instant === null ? '' : `"ts"${b1}:${b2}${given.instant}${b3},`
      return `${b0}{${b1}${time}${b4}${metrics}${b2}}${given.after}`
    })

  it('mean what JSON.parse makes of them, bit for bit', () => {
    let taken = 0
    fc.assert(
      fc.property(document, (text) => {
        if (isCommonShape(text)) taken++
        expectSame(text)
      }),
      { numRuns: 3_000 },
    )
    // Otherwise the test would compare JSON.parse with itself.
    expect(taken).toBeGreaterThan(200)
  })

  it('mean the same for numbers of any length', () => {
    fc.assert(
      fc.property(plainNumber, (number) => {
        expectSame(`{"a":${number}}`)
        expect(isCommonShape(`{"a":${number}}`)).toBe(number.replace(/\D/g, '').length <= 15)
      }),
      { numRuns: 5_000 },
    )
  })

  it('are not seen in mangled bytes that JSON.parse refuses', () => {
    fc.assert(
      fc.property(
        document,
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        (text, changes) => {
          const bytes = Buffer.from(text)
          for (const [at, byte] of changes) bytes[at % bytes.length] = byte
          expectSame(bytes)
        },
      ),
      { numRuns: 3_000 },
    )
  })
})
