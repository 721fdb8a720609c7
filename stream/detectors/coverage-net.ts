// The detector that Weir runs: novelty by a coverage net, of the value, of the level, of the hour of the day and of the shape (docs/decisions/
// 0012-detection.md has the idea and its sources). Blind to what has happened before, however bad; to a device that falls silent (rules see
// that); to a stuck sensor; and, for a while after it has alarmed, to whatever is not worse.
import type { Detector, Finding } from './detector.ts'
import { type Evidence, explainFinding, type View } from './explain.ts'
import { judge, type Verdict } from './hygiene.ts'
import { blockWords, levelWindow, marksMax, net, type Slab, series, type Tier } from './layout.ts'
import { forget, type Novelty, push, track } from './net.ts'
import { clearLevel, clearShape, isInRing, pushLevel, pushSeason, pushShape } from './views.ts'

const weights: Readonly<Record<View, number>> = { value: 1, level: 0.25, season: 0.0625, shape: 0.1 }

const warmUpReadings = 500
const dayMicros = 24 * 3_600_000_000
const seasonWarmUpDays = 3
/** A gap: this many steps of the longest usual length (the centre and 3 robust standard deviations) without a reading. */
const gapSteps = 10
const stepSpreads = 3 * 1.4826
const stepsMin = 10
const forgetEvery = 256
const markEvery = 3_000
const forgetSecondsMin = 30 * 24 * 3_600

const nothing = (): Novelty => ({
  below: Number.NaN,
  above: Number.NaN,
  nearestVisitedAt: 0,
  low: Number.NaN,
  high: Number.NaN,
  centre: 0,
  spread: 0,
})

export class CoverageNet implements Detector {
  readonly name = 'coverage-net'
  readonly version = 1
  readonly blockWords: number
  private readonly tier: Tier
  private readonly found: Readonly<Record<Exclude<View, 'shape'>, Novelty>> = {
    value: nothing(),
    level: nothing(),
    season: nothing(),
  }
  private readonly novelty: Record<View, number> = { value: 0, level: 0, season: 0, shape: 0 }
  private readonly verdict: Verdict = { score: 0, alarms: 0 }
  private slab: Slab | undefined
  private at = 0
  private observedAt = 0
  private value = 0
  private isLate = false

  constructor(tier: Tier) {
    this.tier = tier
    this.blockWords = blockWords[tier]
  }

  observe(slab: Slab, at: number, observedAt: number, value: number): number {
    const { f64 } = slab
    const readings = f64[at + series.readings]!
    const seconds = Math.floor(observedAt / 1e6)
    if (readings > 0) {
      const lastAt = f64[at + series.lastAt]!
      if (observedAt <= lastAt) {
        // Said twice: nothing new. Said otherwise, or late: order counts for nothing in the value's net, and for all in the others.
        if (observedAt === lastAt && value === f64[at + series.lastValue]!) return 0
        return this.observeLate(slab, at, observedAt, value, seconds)
      }
      this.step(slab, at, (observedAt - lastAt) / 1e6)
    } else f64[at + series.firstAt] = observedAt
    f64[at + series.readings] = readings + 1
    f64[at + series.lastAt] = observedAt
    f64[at + series.lastValue] = value

    const { found } = this
    const ofValue = push(slab, at + series.value, value, seconds, found.value)
    let ofLevel = 0
    let ofSeason = 0
    let ofShape = 0
    if (this.tier > 0) {
      ofLevel = pushLevel(slab, at, value, seconds, found.level)
      if (this.tier > 1) {
        ofSeason = pushSeason(slab, at, value, observedAt, seconds, found.season)
        ofShape = pushShape(slab, at, value, rangeOf(slab, at))
      }
    }
    if ((readings + 1) % forgetEvery === 0) this.forget(slab, at, readings + 1, seconds)
    const novelty =
      ofValue * weights.value + ofLevel * weights.level + ofSeason * weights.season + ofShape * weights.shape
    if (novelty === 0) return 0
    this.novelty.value = ofValue
    this.novelty.level = ofLevel
    this.novelty.season = ofSeason
    this.novelty.shape = ofShape
    judge(slab, at + series.hygiene, readings + 1, novelty, this.verdict)
    return this.remember(slab, at, observedAt, value, false)
  }

  /** Reads what the next `observe` of this block will need, so that several blocks come into the cache at a time. */
  touch({ f64 }: Slab, at: number): number {
    const value = at + series.value
    const sum = f64[at]! + f64[at + 8]! + f64[value]! + f64[value + net.prototypes + f64[value + net.hint]!]!
    if (this.tier === 0) return sum
    const level = at + series.level
    const ring = at + series.ring + f64[at + series.ringNext]!
    return sum + f64[level]! + f64[level + net.prototypes + f64[level + net.hint]!]! + f64[ring]!
  }

  private observeLate(slab: Slab, at: number, observedAt: number, value: number, seconds: number): number {
    const { f64 } = slab
    // A device that sends again what was not acknowledged says what was said, a little later: nothing of it counts twice.
    if (this.tier > 0 && isInRing(slab, at, value)) return 0
    const reading = f64[at + series.lateReadings]! + 1
    f64[at + series.lateReadings] = reading
    if (observedAt < f64[at + series.firstAt]!) f64[at + series.firstAt] = observedAt
    const novelty = push(slab, at + series.value, value, seconds, this.found.value)
    if (novelty === 0) return 0
    this.novelty.value = novelty
    this.novelty.level = this.novelty.season = this.novelty.shape = 0
    judge(slab, at + series.lateHygiene, reading, novelty, this.verdict)
    return this.remember(slab, at, observedAt, value, true)
  }

  private remember(slab: Slab, at: number, observedAt: number, value: number, late: boolean): number {
    this.slab = slab
    this.at = at
    this.observedAt = observedAt
    this.value = value
    this.isLate = late
    return this.verdict.score
  }

  /** Windows that count readings mean nothing across a gap. */
  private step(slab: Slab, at: number, seconds: number): void {
    const { f64 } = slab
    if (this.tier > 0 && f64[at + series.steps]! >= stepsMin) {
      const usual = f64[at + series.stepCentre]! + stepSpreads * f64[at + series.stepSpread]!
      if (seconds > gapSteps * usual) {
        clearLevel(slab, at)
        if (this.tier > 1) clearShape(slab, at)
      }
    }
    track(f64, at + series.steps, at + series.stepCentre, seconds)
  }

  /** What was not seen in 21,000 to 24,000 readings and 30 days is new again. */
  private forget(slab: Slab, at: number, readings: number, seconds: number): void {
    const marks = (at + series.marks) * 2
    const mark = Math.floor(readings / markEvery)
    const place = marks + (mark % marksMax)
    // The oldest mark is eight behind until it is written over, by the first look after another 3,000 readings.
    if (readings - mark * markEvery < forgetEvery) slab.u32[place] = seconds
    if (readings < markEvery * marksMax) return
    const oldest = slab.u32[marks + ((mark + 1) % marksMax)]!
    const before = Math.min(oldest, seconds - forgetSecondsMin)
    forget(slab, at + series.value, before)
    if (this.tier > 0) forget(slab, at + series.level, before)
    if (this.tier > 1) forget(slab, at + series.season, before)
  }

  explain(): Finding {
    const { slab, at, novelty, verdict } = this
    if (!slab) throw new Error('nothing was found yet')
    const { f64 } = slab
    const view = strongest(novelty)
    const readings = f64[at + series.readings]! + f64[at + series.lateReadings]!
    const isWarmingUp = this.isWarmingUp(f64, at, view)
    const evidence: Evidence = {
      view,
      value: this.value,
      score: verdict.score,
      novelty: novelty[view],
      observedAt: this.observedAt,
      isLate: this.isLate,
      readings,
      alarms: verdict.alarms,
      found: view === 'shape' ? undefined : this.found[view],
      usual: { centre: f64[at + series.value + net.centre]!, spread: f64[at + series.value + net.spread]! },
      range: { low: f64[at + series.value + net.prototypes]!, high: highOf(f64, at) },
      remembered: f64[at + series.value + net.count]!,
      recentMean: this.tier > 0 ? f64[at + series.ringRecent]! / levelWindow : Number.NaN,
      beforeMean: this.tier > 0 ? f64[at + series.ringBefore]! / levelWindow : Number.NaN,
      hour: Math.floor(this.observedAt / 3_600_000_000) % 24,
      hourMean: this.tier > 1 ? hourMeanOf(f64, at, this.observedAt) : Number.NaN,
      shape: this.tier > 1 ? [...f64.subarray(at + series.shapeMeans, at + series.shapeMeans + 4)] : [],
    }
    return { ...explainFinding(evidence), isWarmingUp }
  }

  private isWarmingUp(f64: Float64Array, at: number, view: View): boolean {
    const firstAt = f64[at + series.firstAt]!
    const heardFor = f64[at + series.lastAt]! - firstAt
    const days = view === 'season' ? seasonWarmUpDays : 1
    return f64[at + series.value + net.pushed]! <= warmUpReadings || heardFor < days * dayMicros
  }
}

function strongest(novelty: Readonly<Record<View, number>>): View {
  let best: View = 'value'
  for (const view of ['level', 'season', 'shape'] as const) {
    if (novelty[view] * weights[view] > novelty[best] * weights[best]) best = view
  }
  return best
}

function highOf(f64: Float64Array, at: number): number {
  return f64[at + series.value + net.prototypes + f64[at + series.value + net.count]! - 1]!
}

function rangeOf({ f64 }: Slab, at: number): number {
  return highOf(f64, at) - f64[at + series.value + net.prototypes]!
}

function hourMeanOf(f64: Float64Array, at: number, observedAt: number): number {
  return f64[at + series.hourMeans + (Math.floor(observedAt / 3_600_000_000) % 24)]!
}
