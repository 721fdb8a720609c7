import { describe, expect, it } from 'vitest'
import { RateLimits } from './rate-limits.ts'

describe('the rate of a device', () => {
  const time = { ms: 1_000_000 }
  const limits = (perS: number): RateLimits => new RateLimits(perS, () => time.ms)

  it('lets a second’s worth come at once, and asks for patience beyond it, in proportion', () => {
    const bucket = limits(100).of('default', 'd')
    expect(bucket.waitMs()).toBe(0)
    expect(bucket.spend(100)).toBe(0)
    expect(bucket.spend(50)).toBe(500)
    time.ms += 200
    expect(bucket.waitMs()).toBe(300)
    time.ms += 300
    expect(bucket.waitMs()).toBe(0)
    expect(bucket.spend(1)).toBe(10)
    time.ms += 3_600_000
    // A long rest is worth no more than a short one.
    expect(bucket.spend(200)).toBe(1_000)
  })

  it('holds in the long run, however the readings are cut', () => {
    const bucket = limits(10).of('default', 'd')
    const began = time.ms
    let sent = 0
    for (let i = 1; sent < 10_000; i++) {
      const some = 1 + ((i * 7) % 40)
      time.ms += bucket.spend(some)
      sent += some
    }
    expect(sent / ((time.ms - began) / 1000 + 1)).toBeCloseTo(10, 5)
  })

  it('is one for all connections of a device, and another for another', () => {
    const all = limits(1)
    all.of('default', 'd').spend(10)
    expect(all.of('default', 'd').waitMs()).toBe(9_000)
    expect(all.of('default', 'e').waitMs()).toBe(0)
  })

  it('is remembered for a bounded number of devices: those that owe nothing are forgotten first', () => {
    const all = limits(1)
    all.of('default', 'debtor').spend(1_000_000)
    for (let i = 0; i < 250_000; i++) all.of('default', `d${i}`)
    expect(all.count).toBeLessThanOrEqual(100_000)
    expect(all.of('default', 'debtor').waitMs()).toBeGreaterThan(0)
  })

  it('does not scan all of them for each new one where all of them owe', () => {
    const all = limits(1)
    for (let i = 0; i < 150_000; i++) all.of('default', `d${i}`).spend(1_000)
    expect(all.count).toBeLessThanOrEqual(100_000)
    expect(all.of('default', 'd149999').waitMs()).toBeGreaterThan(0)
  })
})
