// What a reading looks like from further away: the level it moves to (the mean of the last 64 readings against the 64 before), how far it is off what
// this hour of the day usually has, and the shape of the last 48 readings. Level and season have a net each; shapes have a set of their own.
import { hoursOfDay, levelWindow, type Slab, series, shapeLength, shapeStep, shapesMax } from './layout.ts'
import { begin, type Novelty, push } from './net.ts'

const ringMask = 2 * levelWindow - 1
const hourMs = 3_600_000_000
const hourWeightMin = 0.3
const shapeGapMin = 0.05
const shapeDrift = 0.02

/** The level's ring begins anew after a gap: means across it compare nothing. */
export function clearLevel({ f64 }: Slab, at: number): void {
  f64[at + series.ringCount] = 0
  f64[at + series.ringNext] = 0
  f64[at + series.ringRecent] = 0
  f64[at + series.ringBefore] = 0
}

/** Whether the last readings hold this very value. */
export function isInRing({ f64 }: Slab, at: number, value: number): boolean {
  const ring = at + series.ring
  const end = ring + f64[at + series.ringCount]!
  for (let i = ring; i < end; i++) if (f64[i] === value) return true
  return false
}

export function pushLevel(slab: Slab, at: number, value: number, seconds: number, found: Novelty): number {
  const { f64 } = slab
  const ring = at + series.ring
  const next = f64[at + series.ringNext]!
  const count = f64[at + series.ringCount]!
  const middle = ring + ((next + levelWindow) & ringMask)
  let recent = f64[at + series.ringRecent]! + value
  let before = f64[at + series.ringBefore]!
  if (count >= levelWindow) {
    const passing = f64[middle]!
    recent -= passing
    before += passing
  }
  if (count > ringMask) before -= f64[ring + next]!
  f64[ring + next] = value
  const after = (next + 1) & ringMask
  f64[at + series.ringNext] = after
  if (count <= ringMask) f64[at + series.ringCount] = count + 1
  else if (after === 0) {
    // Once a round the sums are made anew, so that rounding never adds up.
    recent = 0
    before = 0
    for (let i = 0; i < levelWindow; i++) {
      before += f64[ring + i]!
      recent += f64[ring + levelWindow + i]!
    }
  }
  f64[at + series.ringRecent] = recent
  f64[at + series.ringBefore] = before
  if (count < ringMask) return 0
  const net = at + series.level
  if (f64[net] === 0) begin(slab, net, 0, seconds)
  return push(slab, net, (recent - before) / levelWindow, seconds, found)
}

export function pushSeason(
  slab: Slab,
  at: number,
  value: number,
  observedAt: number,
  seconds: number,
  found: Novelty,
): number {
  const { f64 } = slab
  const hour = Math.floor(observedAt / hourMs)
  const current = f64[at + series.hour]!
  if (hour !== current) {
    const readings = f64[at + series.hourCount]!
    if (readings > 0) {
      const place = current % hoursOfDay
      const heard = f64[at + series.hoursHeard + place]!
      const mean = f64[at + series.hourSum]! / readings
      const weight = Math.max(hourWeightMin, 1 / (heard + 1))
      const means = at + series.hourMeans + place
      f64[means] = f64[means]! + weight * (mean - f64[means]!)
      f64[at + series.hoursHeard + place] = heard + 1
    }
    f64[at + series.hour] = hour
    f64[at + series.hourSum] = 0
    f64[at + series.hourCount] = 0
  }
  f64[at + series.hourSum] = f64[at + series.hourSum]! + value
  f64[at + series.hourCount] = f64[at + series.hourCount]! + 1
  const place = hour % hoursOfDay
  if (f64[at + series.hoursHeard + place]! === 0) return 0
  return push(slab, at + series.season, value - f64[at + series.hourMeans + place]!, seconds, found)
}

export function clearShape({ f64 }: Slab, at: number): void {
  f64[at + series.shapeSum] = 0
  f64[at + series.shapeReadings] = 0
  f64[at + series.shapeMeansCount] = 0
}

/** `range`: of all readings. */
export function pushShape(slab: Slab, at: number, value: number, range: number): number {
  const { f64 } = slab
  const sum = f64[at + series.shapeSum]! + value
  const readings = f64[at + series.shapeReadings]! + 1
  if (readings < shapeStep) {
    f64[at + series.shapeSum] = sum
    f64[at + series.shapeReadings] = readings
    return 0
  }
  f64[at + series.shapeSum] = 0
  f64[at + series.shapeReadings] = 0
  const means = at + series.shapeMeans
  f64.copyWithin(means, means + 1, means + shapeLength)
  f64[means + shapeLength - 1] = sum / shapeStep
  const known = f64[at + series.shapeMeansCount]! + 1
  if (known < shapeLength) {
    f64[at + series.shapeMeansCount] = known
    return 0
  }
  return matchShape(slab, at, range)
}

function matchShape({ f64, f32, u32 }: Slab, at: number, range: number): number {
  const means = at + series.shapeMeans
  const shapes = (at + series.shapes) * 2
  const visits = (at + series.shapeVisits) * 2
  const count = f64[at + series.shapeCount]!
  const turn = f64[at + series.shapeTurn]! + 1
  f64[at + series.shapeTurn] = turn
  const [a, b, c, d] = [f64[means]!, f64[means + 1]!, f64[means + 2]!, f64[means + 3]!]
  let nearest = -1
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i < count; i++) {
    const shape = shapes + i * shapeLength
    let gap = Math.abs(a - f32[shape]!)
    if (gap >= least) continue
    gap = Math.max(gap, Math.abs(b - f32[shape + 1]!))
    gap = Math.max(gap, Math.abs(c - f32[shape + 2]!), Math.abs(d - f32[shape + 3]!))
    if (gap < least) {
      least = gap
      nearest = i
    }
  }
  const novelty = count === 0 ? 0 : least / range
  if (nearest >= 0 && !(novelty > shapeGapMin)) {
    const shape = shapes + nearest * shapeLength
    for (let i = 0; i < shapeLength; i++) {
      f32[shape + i] = f32[shape + i]! + shapeDrift * (f64[means + i]! - f32[shape + i]!)
    }
    u32[visits + nearest] = turn
    return 0
  }
  let place = count
  if (count < shapesMax) f64[at + series.shapeCount] = count + 1
  else {
    place = 0
    for (let i = 1; i < count; i++) if (u32[visits + i]! < u32[visits + place]!) place = i
  }
  const shape = shapes + place * shapeLength
  for (let i = 0; i < shapeLength; i++) f32[shape + i] = f64[means + i]!
  u32[visits + place] = turn
  return Number.isFinite(novelty) ? novelty : 1
}
