import { describe, expect, it } from 'vitest'
import { parseInstant, resolveInstant } from './instant.ts'

const second = 1_700_000_000_000_000

describe('an instant in a query', () => {
  it.each([
    ['1700000000', second],
    ['1700000000.123456', second + 123_456],
    ['1700000000.1234567', second + 123_457],
    ['1700000000123', second + 123_000],
    ['1700000000123.456', second + 123_456],
    ['1700000000123456', second + 123_456],
    ['1700000000123456.5', second + 123_457],
    ['1700000000123456499', second + 123_456],
    ['1700000000123456500', second + 123_457],
    ['0', 0],
    ['5', 5_000_000],
    ['99999999999', 'is after the year 2255'],
    ['100000000000', 100_000_000_000_000],
    ['2023-11-14T22:13:20Z', second],
    ['2023-11-14t22:13:20.5z', second + 500_000],
    ['2023-11-14T22:13:20.1234565Z', second + 123_457],
    ['2023-11-14T22:13:20.9999999Z', second + 1_000_000],
    ['2023-11-15T00:13:20+02:00', second],
    ['2023-11-15T00:13:20 02:00', second],
    ['2023-11-14T17:43:20-04:30', second],
    ['2024-02-29T00:00:00Z', Date.UTC(2024, 1, 29) * 1000],
    ['1969-12-31T23:59:59Z', 'is before 1970'],
    ['1970-01-01T00:00:00+01:00', 'is before 1970'],
    ['-1', 'is before 1970'],
    ['2023-02-29T00:00:00Z', 'is not an instant'],
    ['2023-13-01T00:00:00Z', 'is not an instant'],
    ['2023-11-14T24:00:00Z', 'is not an instant'],
    ['2016-12-31T23:59:60Z', 'is not an instant'],
    ['2023-11-14T22:13:20', 'is not an instant'],
    ['2023-11-14', 'is not an instant'],
    ['now+1h', 'is not an instant'],
    ['now-1y', 'is not an instant'],
    ['1e12', 'is not an instant'],
    ['0x10', 'is not an instant'],
    ['', 'is not an instant'],
    ['9'.repeat(41), 'is not an instant'],
    ['9999-12-31T23:59:59Z', 'is after the year 2255'],
  ])('%s', (text, expected) => {
    const parsed = parseInstant(text)
    if (typeof expected === 'number') expect(parsed).toEqual({ at: expected })
    else expect((parsed as { problem: string }).problem).toContain(expected)
  })

  it.each([
    ['now', 0],
    ['now-90s', 90],
    ['now-15m', 900],
    ['now-1h', 3600],
    ['now-7d', 604_800],
    ['now-2w', 1_209_600],
  ])('%s stands before now', (text, seconds) => {
    const parsed = parseInstant(text)
    if ('problem' in parsed) throw new Error(parsed.problem)
    expect(resolveInstant(parsed, second)).toBe(second - seconds * 1_000_000)
  })
})
