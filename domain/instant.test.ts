import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { instantFromNumber, instantFromText, latestInstant } from './instant.ts'

const noon = 1_767_268_800_000_000 // 2026-01-01T12:00:00Z

describe('an instant as a number', () => {
  it.each([
    ['seconds', 1_700_000_000, 1_700_000_000_000_000],
    ['seconds with a fraction', 1_700_000_000.25, 1_700_000_000_250_000],
    ['milliseconds', 1_700_000_000_000, 1_700_000_000_000_000],
    ['milliseconds with a fraction', 1_700_000_000_000.125, 1_700_000_000_000_125],
    ['microseconds', 1_700_000_000_000_001, 1_700_000_000_000_001],
    ['nanoseconds', 1_700_000_000_000_000_000, 1_700_000_000_000_000],
    ['the first instant', 0, 0],
    ['just below 1e11: seconds', 99_999_999_999, latestInstant],
    ['1e11: milliseconds', 1e11, 1e14],
    ['1e14: microseconds', 1e14, 1e14],
    ['1e17: nanoseconds', 1e17, 1e14],
    ['beyond what is exact', 1e30, latestInstant],
  ])('is read by its size: %s', (_, number, micros) => {
    expect(instantFromNumber(number)).toBe(micros)
  })

  it('is negative before 1970, and none at all when not finite', () => {
    expect(instantFromNumber(-1)).toBe(-1_000_000)
    expect(instantFromNumber(-1_700_000_000_000)).toBeLessThan(0)
    expect(instantFromNumber(Number.POSITIVE_INFINITY)).toBeNaN()
    expect(instantFromNumber(Number.NaN)).toBeNaN()
    expect(Object.is(instantFromNumber(-1e-9), 0)).toBe(true)
  })
})

describe('an instant as text', () => {
  it.each([
    ['2026-01-01T12:00:00Z', noon],
    ['2026-01-01t12:00:00z', noon],
    ['2026-01-01 12:00:00Z', noon],
    ['2026-01-01T12:00:00.5Z', noon + 500_000],
    ['2026-01-01T12:00:00.123456Z', noon + 123_456],
    ['2026-01-01T12:00:00.1234564Z', noon + 123_456],
    ['2026-01-01T12:00:00.1234565Z', noon + 123_457],
    ['2026-01-01T11:59:59.9999999Z', noon],
    ['2026-01-01T14:00:00+02:00', noon],
    ['2025-12-31T19:30:00-16:30', noon],
    ['2026-01-01T12:00:00-00:00', noon],
    ['2024-02-29T00:00:00Z', 1_709_164_800_000_000],
    ['2000-02-29T00:00:00Z', 951_782_400_000_000],
    ['1970-01-01T00:00:00Z', 0],
    ['1969-12-31T23:30:00-01:00', 1_800_000_000],
    ['9999-12-31T23:59:59Z', latestInstant],
  ])('is read: %s', (text, micros) => {
    expect(instantFromText(text)).toBe(micros)
  })

  it.each(['1969-12-31T23:59:59Z', '1970-01-01T00:00:00+00:01', '1900-01-01T00:00:00Z', '0070-01-01T00:00:00Z'])(
    'is negative before 1970: %s',
    (text) => {
      expect(instantFromText(text)).toBeLessThan(0)
    },
  )

  it.each([
    '',
    'now',
    '1700000000',
    '2026-01-01',
    '2026-01-01T12:00Z',
    '2026-01-01T12:00:00',
    '2026-1-1T12:00:00Z',
    '2026-00-01T12:00:00Z',
    '2026-13-01T12:00:00Z',
    '2026-01-32T12:00:00Z',
    '2026-02-29T12:00:00Z',
    '1900-02-29T12:00:00Z',
    '2026-04-31T12:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01T12:60:00Z',
    '2016-12-31T23:59:60Z',
    '2026-01-01T12:00:00.Z',
    '2026-01-01T12:00:00,5Z',
    '2026-01-01T12:00:00+24:00',
    '2026-01-01T12:00:00+02:60',
    '2026-01-01T12:00:00+0200',
    ' 2026-01-01T12:00:00Z',
    '2026-01-01T12:00:00Z\n',
    '٢٠٢٦-01-01T12:00:00Z',
  ])('is refused: %j', (text) => {
    expect(instantFromText(text)).toBeNaN()
  })

  it('comes back from what Date writes', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4_102_444_800_000 }), (millis) => {
        expect(instantFromText(new Date(millis).toISOString())).toBe(millis * 1000)
      }),
    )
  })
})
