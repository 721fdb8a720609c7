// What every detector promises (detector.ts), for each of them: the list in detectors.test.ts runs it.
import { describe, expect, it } from 'vitest'
import { createRandom } from '../../tests/helpers/random.ts'
import type { Detector, Finding } from './detector.ts'
import { createSlab } from './layout.ts'

const minute = 60_000_000
const startAt = Date.UTC(2026, 0, 1) * 1000

interface Step {
  readonly observedAt: number
  readonly value: number
}

/** A day's rhythm with noise, gaps, repeats, late readings, spikes and a step. */
function readings(count: number, seed: number): Step[] {
  const random = createRandom(seed)
  const steps: Step[] = []
  let observedAt = startAt
  for (let i = 0; i < count; i++) {
    observedAt += (random.next() < 0.002 ? 500 : 5) * minute
    let value = 20 + 5 * Math.sin(i / 46) + random.next() + (i > count * 0.8 ? 4 : 0)
    if (random.next() < 0.003) value *= 2 + random.next()
    steps.push({ observedAt, value })
    if (random.next() < 0.02) steps.push({ observedAt, value })
    if (random.next() < 0.02) steps.push({ observedAt: observedAt - 17 * minute, value: value + 1 })
  }
  return steps
}

export function detectorContract(name: string, create: () => Detector): void {
  describe(name, () => {
    const run = (
      detector: Detector,
      steps: readonly Step[],
      slab = createSlab(detector.blockWords),
      at = 0,
    ): { scores: number[]; findings: Finding[] } => {
      const findings: Finding[] = []
      const scores = steps.map(({ observedAt, value }) => {
        const score = detector.observe(slab, at, observedAt, value)
        if (score > 0) findings.push(detector.explain())
        return score
      })
      return { scores, findings }
    }

    it('finds the same in the same readings', () => {
      const steps = readings(5_000, 1)
      const once = run(create(), steps)
      expect(run(create(), steps)).toEqual(once)
      expect(once.findings.length).toBeGreaterThan(10)
    })

    it('goes on from a copied block, elsewhere and in another detector, as if nothing had been', () => {
      const steps = readings(5_000, 2)
      const whole = run(create(), steps)
      for (const cut of [1, 127, 2_500, 4_999]) {
        const first = create()
        const slab = createSlab(first.blockWords)
        const before = run(first, steps.slice(0, cut), slab)
        const other = createSlab(3 * first.blockWords)
        other.bytes.set(slab.bytes, first.blockWords * 8)
        const after = run(create(), steps.slice(cut), other, first.blockWords)
        expect([...before.scores, ...after.scores]).toEqual(whole.scores)
      }
    })

    it('keeps series apart, in whatever order their readings come', () => {
      const detector = create()
      const both = [readings(2_000, 3), readings(2_000, 4)]
      const alone = both.map((steps) => run(create(), steps).scores)
      const slab = createSlab(2 * detector.blockWords)
      const mixed: number[][] = [[], []]
      for (let i = 0; i < both[0]!.length + both[1]!.length; i++) {
        const which = i % 3 === 0 ? 0 : 1
        const step = both[which]![mixed[which]!.length]
        if (step) mixed[which]!.push(detector.observe(slab, which * detector.blockWords, step.observedAt, step.value))
      }
      for (const which of [0, 1]) expect(mixed[which]).toEqual(alone[which]!.slice(0, mixed[which]!.length))
    })

    it('stays within its block, whatever it is given', () => {
      const detector = create()
      const slab = createSlab(3 * detector.blockWords)
      const guard = 0x5a
      slab.bytes.fill(guard)
      const middle = detector.blockWords
      slab.bytes.fill(0, middle * 8, 2 * middle * 8)
      const random = createRandom(5)
      const odd = [0, -0, 1e308, -1e308, 5e-324, 1e-300, 1, 1 + 2 ** -52, Number.MAX_SAFE_INTEGER]
      for (let i = 0; i < 20_000; i++) {
        const value =
          random.next() < 0.1
            ? odd[random.between(0, odd.length - 1)]!
            : (random.next() - 0.5) * 10 ** random.between(-9, 9)
        const observedAt = random.next() < 0.01 ? 0 : startAt + i * minute
        const score = detector.observe(slab, middle, observedAt, value)
        expect(score >= 0 && score < 1).toBe(true)
        if (score > 0) expect(detector.explain().explanation).not.toMatch(/NaN|undefined/)
      }
      const around = [slab.bytes.subarray(0, middle * 8), slab.bytes.subarray(2 * middle * 8)]
      for (const bytes of around) expect(bytes.every((byte) => byte === guard)).toBe(true)
    })

    it('is not moved back by late readings, and takes a repeat for nothing', () => {
      const steps = readings(3_000, 6).filter((step, i, all) => i === 0 || step.observedAt > all[i - 1]!.observedAt)
      const plain = run(create(), steps).scores
      const repeated = steps.flatMap((step) => [step, step])
      const { scores } = run(create(), repeated)
      expect(scores.filter((_, i) => i % 2 === 0)).toEqual(plain)
      expect(scores.filter((score, i) => i % 2 === 1 && score > 0)).toEqual([])
    })

    it('says why, and what would have been nothing new', () => {
      for (const { explanation, expected, score, evidence } of run(create(), readings(5_000, 7)).findings) {
        expect(explanation).toMatch(/^[-\dT].{20,}\.$/)
        expect(expected.low).toBeLessThanOrEqual(expected.high)
        expect(score).toBeGreaterThan(0)
        expect(JSON.parse(JSON.stringify(evidence))).toEqual(evidence)
      }
    })
  })
}
