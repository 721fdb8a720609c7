// The detectors against their contract, and the coverage net's own: what is found once, what warms up, what a late reading and a gap do.
import { describe, expect, it } from 'vitest'
import { detectorContract } from './detector.contract.ts'
import type { Finding } from './detector.ts'
import { createDetector, type Tier } from './index.ts'
import { createSlab } from './layout.ts'

for (const tier of [0, 1, 2] as const) detectorContract(`the coverage net, tier ${tier}`, () => createDetector(tier))

const minute = 60_000_000
const startAt = Date.UTC(2026, 0, 1) * 1000

describe('the coverage net', () => {
  const world = (tier: Tier = 1) => {
    const detector = createDetector(tier)
    const slab = createSlab(detector.blockWords)
    return (observedAt: number, value: number): Finding | undefined =>
      detector.observe(slab, 0, observedAt, value) > 0 ? detector.explain() : undefined
  }
  const usual = (i: number): number => 20 + Math.sin(i / 20) * 3 + ((i * 7919) % 100) / 100
  const learn = (see: ReturnType<typeof world>, count: number, step = 5 * minute): void => {
    for (let i = 0; i < count; i++) see(startAt + i * step, usual(i))
  }

  it('tells one spike once, with its sentence', () => {
    const see = world()
    learn(see, 2_000)
    const found = see(startAt + 2_000 * 5 * minute, 55)
    expect(found?.isWarmingUp).toBe(false)
    expect(found?.score).toBeGreaterThan(0.03)
    expect(found?.explanation).toMatch(
      /^55 is above everything in 2,001 readings; closest 2\d(\.\d+)?, .* before; usual /,
    )
    expect(found?.evidence).toMatchObject({ view: 'value', side: 'above', late: false })
    expect(found!.expected.high).toBeLessThan(25)
    expect(see(startAt + 2_001 * 5 * minute, 55)).toBeUndefined()
  })

  it('tells a value that lies between what was seen', () => {
    const see = world(0)
    for (let i = 0; i < 2_000; i++) see(startAt + i * 5 * minute, i % 2 ? 10 + (i % 7) / 10 : 90 + (i % 5) / 10)
    const found = see(startAt + 2_000 * 5 * minute, 50)
    expect(found?.explanation).toContain('50 is where nothing was in 2,001 readings, between 10.6 and 90; closest ')
  })

  it('warms up for 500 readings and a day', () => {
    const soon = world()
    learn(soon, 490)
    expect(soon(startAt + 490 * 5 * minute, 99)?.isWarmingUp).toBe(true)
    const dense = world()
    learn(dense, 1_000, 1_000_000)
    expect(dense(startAt + 1_000 * 1_000_000, 99)?.isWarmingUp).toBe(true)
  })

  it('looks at the value of a late reading, and says that it was late', () => {
    const see = world()
    learn(see, 2_000)
    const found = see(startAt + 100 * 5 * minute + 1, 77)
    expect(found?.explanation).toContain('It came late')
    expect(found?.evidence).toMatchObject({ late: true })
    expect(see(startAt + 200 * 5 * minute + 1, 77)).toBeUndefined()
  })

  it('tells a level that moves within what was seen', () => {
    const see = world()
    let found: Finding | undefined
    for (let i = 0; i < 4_000; i++) {
      // Now and then it goes to 30 for a moment; then it stays.
      const isHigh = i > 3_000 || i % 97 === 0
      const each = see(startAt + i * 5 * minute, (isHigh ? 30 : 20) + ((i * 7919) % 100) / 100)
      if (i > 3_000 && each && each.score > 0.01) found ??= each
    }
    expect(found?.evidence).toMatchObject({ view: 'level' })
    expect(found?.explanation).toMatch(
      /^The level moved: the mean of the last 64 readings, [\d.]+, is [\d.]+ above that of the 64 before. No such move was seen in 3,\d{3} readings; the closest was (none at all|[\d.]+ (up|down)), .+ (before|second)\./,
    )
  })

  it('tells a value that is unusual for the hour alone, and a course that was never taken', () => {
    const views = new Map<string, string>()
    const see = world(2)
    let changed = 0
    for (let i = 0; i < 288 * 24; i++) {
      const hour = (i % 288) / 12
      // Warm by day, cold by night, for twenty days; then one night is as warm as a day, and one day flips to and fro within what was seen.
      const day = Math.floor(i / 288)
      const isDay = day === 21 ? Math.floor(i / 12) % 2 === 0 : day === 20 || (hour >= 8 && hour < 20)
      const noise = ((i * 7_919) % 1_003) / 1_003
      const found = see(startAt + i * 5 * minute, (isDay ? 24 : 16) + noise)
      if (day < 20 || !found) continue
      changed++
      const view = String(found.evidence.view)
      if (!views.has(view)) views.set(view, found.explanation)
      expect(found.expected.low).toBeLessThanOrEqual(found.expected.high)
    }
    expect(changed).toBeGreaterThan(0)
    expect(views.get('season')).toMatch(
      /^2\d(\.\d+)? is unusual for \d\d:00–\d\d:00 UTC, when the mean is 1\d(\.\d+)?: it is \d+(\.\d+)? above that; the closest so far was \d+(\.\d+)? (above|below) that, .+ before\./,
    )
    expect(views.get('shape')).toMatch(
      /^The last 48 readings took a course unlike any before in [\d,]+ readings: the means of each 12 are ([\d.]+(, )?){4}; the closest course differs by \d+ % of the range from 16(\.\d+)? to 2[45](\.\d+)?\./,
    )
  })

  it('compares no levels across a gap', () => {
    const across = (gap: number): boolean => {
      const see = world()
      learn(see, 3_000)
      let isFound = false
      for (let i = 0; i < 120; i++) {
        // Within what was seen, at its upper end.
        const found = see(startAt + (3_000 + i) * 5 * minute + gap, 23.5)
        if (found?.evidence.view === 'level') isFound = true
      }
      return isFound
    }
    expect(across(0)).toBe(true)
    expect(across(24 * 60 * minute)).toBe(false)
  })

  it('forgets what was not seen in 24,000 readings and 30 days', () => {
    const see = world(0)
    learn(see, 2_000)
    expect(see(startAt + 2_000 * 5 * minute, 55)).toBeDefined()
    for (let i = 2_001; i < 40_000; i++) see(startAt + i * 5 * minute, usual(i))
    expect(see(startAt + 40_000 * 5 * minute, 55)).toBeDefined()
  })

  it('recovers after a constant stretch', () => {
    const see = world()
    for (let i = 0; i < 5_000; i++) expect(see(startAt + i * minute, 7)).toBeUndefined()
    expect(see(startAt + 5_000 * minute, 8)).toBeDefined()
    let told = 0
    for (let i = 5_001; i < 20_000; i++) if ((see(startAt + i * minute, usual(i))?.score ?? 0) > 0.03) told++
    // First the range is new, then nothing is.
    expect(told).toBeLessThan(20)
    const late = see(startAt + 20_000 * minute, 90)
    expect(late?.score).toBeGreaterThan(0.1)
  })
})
