// The coverage net: a small ascending set of values ("prototypes") such that every value so far lies close to one. A value is novel by its distance
// to the nearest, in units of the range seen, on a scale that is fine near the middle and coarse in the tails. What was novel becomes a
// prototype, so it is said once. State is fixed in size: when there are too many, they are thinned and the resolution is coarser from then on.
import { net, prototypesMax, type Slab } from './layout.ts'

const radiusFirst = 0.005
const radiusGrowth = 1.15
const thinnedMax = 0.9 * prototypesMax
const keptMin = 2
const refreshEvery = 32
/** 3 robust standard deviations. */
const scaleSpreads = 3 * 1.4826

/** What a novel value was held against; of the last push that was novel. */
export interface Novelty {
  /** Neighbours before it came in; NaN where there is none. */
  below: number
  above: number
  /** Of the nearer one, epoch seconds. */
  nearestVisitedAt: number
  low: number
  high: number
  centre: number
  spread: number
}

const mapped = new Float64Array(prototypesMax + 2)

/** Tracks median and median absolute deviation at O(1) in `state[at]` (how many), `[at + 1]` and `[at + 2]`. Returns how many. */
export function track(state: Float64Array, countAt: number, centreAt: number, value: number): void {
  const count = state[countAt]! + 1
  state[countAt] = count
  if (count === 1) {
    state[centreAt] = value
    return
  }
  const step = count < 1_000 ? (count < 3 ? 1 : 2 / count) : 0.002
  const centre = state[centreAt]!
  const spread = state[centreAt + 1]!
  const off = value - centre
  const size = Math.abs(off)
  const unit = step * (spread === 0 ? size : spread)
  if (off > 0) state[centreAt] = centre + 1.5 * unit
  else if (off < 0) state[centreAt] = centre - 1.5 * unit
  if (size > spread) state[centreAt + 1] = spread + unit
  else if (size < spread) state[centreAt + 1] = Math.max(0, spread - unit)
}

/**
 * Takes a value in and returns how novel it was: 0, or more than the radius (below 1, about, within the range seen). `seconds`: when it was
 * observed. `found` is filled when it was novel.
 */
export function push(slab: Slab, at: number, value: number, seconds: number, found: Novelty): number {
  const { f64, u32 } = slab
  const count = f64[at + net.count]!
  const first = at + net.prototypes
  const visits = (at + net.visits) * 2
  if (count === 0) {
    begin(slab, at, value, seconds)
    return 0
  }
  const low = place(f64, first, count, f64[at + net.hint]!, value)
  f64[at + net.hint] = low
  let nearest = low
  let novelty = 0
  const above = low < count ? f64[first + low]! : Number.POSITIVE_INFINITY
  if (above !== value) {
    const below = low > 0 ? f64[first + low - 1]! : Number.NEGATIVE_INFINITY
    const gapAbove = above - value
    const gapBelow = value - below
    if (gapBelow < gapAbove) nearest = low - 1
    if (count === 1) novelty = 1
    else {
      if (f64[at + net.pushed]! - f64[at + net.scaledAt]! >= refreshEvery) rescale(f64, at)
      const centre = f64[at + net.centre]!
      const scale = f64[at + net.scale]!
      const range = f64[at + net.range]!
      const radius = f64[at + net.radius]!
      // asinh has a slope of at most 1 / sqrt(1 + w²) beyond w: nearly every value is near enough by that alone.
      const gap = Math.min(gapBelow, gapAbove)
      const nearValue = gapBelow < gapAbove ? below : above
      const off = value - centre
      const nearOff = nearValue - centre
      const inner = off > 0 === nearOff > 0 ? Math.min(Math.abs(off), Math.abs(nearOff)) : 0
      const reach = radius * range
      if (gap * gap > reach * reach * (scale * scale + inner * inner)) {
        const own = Math.asinh(off / scale)
        const toBelow = low > 0 ? own - Math.asinh((below - centre) / scale) : Number.POSITIVE_INFINITY
        const toAbove = low < count ? Math.asinh((above - centre) / scale) - own : Number.POSITIVE_INFINITY
        nearest = toBelow < toAbove ? low - 1 : low
        const distance = Math.min(toBelow, toAbove) / range
        if (distance > radius) novelty = distance
      }
    }
  }
  if (novelty > 0) {
    found.below = low > 0 ? f64[first + low - 1]! : Number.NaN
    found.above = low < count ? above : Number.NaN
    found.nearestVisitedAt = u32[visits + nearest]!
    found.low = f64[first]!
    found.high = f64[first + count - 1]!
    found.centre = f64[at + net.centre]!
    found.spread = f64[at + net.spread]!
    insert(slab, at, low, count, value, seconds)
  } else if (u32[visits + nearest]! < seconds) u32[visits + nearest] = seconds
  track(f64, at + net.pushed, at + net.centre, value)
  return novelty
}

/** How many prototypes are below the value: in steps that double, from where the last one was; then by halves. */
function place(f64: Float64Array, first: number, count: number, hint: number, value: number): number {
  let low = 0
  let high = count
  let step = 1
  let probe = hint < count ? hint : count - 1
  if (f64[first + probe]! < value) {
    for (;;) {
      low = probe + 1
      probe += step
      if (probe >= count) break
      if (f64[first + probe]! >= value) {
        high = probe
        break
      }
      step += step
    }
  } else {
    for (;;) {
      high = probe
      probe -= step
      if (probe < 0) break
      if (f64[first + probe]! < value) {
        low = probe + 1
        break
      }
      step += step
    }
  }
  while (low < high) {
    const middle = (low + high) >>> 1
    if (f64[first + middle]! < value) low = middle + 1
    else high = middle
  }
  return low
}

/** A net that knows one value. */
export function begin({ f64, u32 }: Slab, at: number, value: number, seconds: number): void {
  f64[at + net.count] = 1
  f64[at + net.pushed] = 1
  f64[at + net.centre] = value
  f64[at + net.radius] = radiusFirst
  f64[at + net.prototypes] = value
  u32[(at + net.visits) * 2] = seconds
}

function insert(slab: Slab, at: number, place: number, count: number, value: number, seconds: number): void {
  const { f64, u32 } = slab
  const first = at + net.prototypes
  const visits = (at + net.visits) * 2
  f64.copyWithin(first + place + 1, first + place, first + count)
  u32.copyWithin(visits + place + 1, visits + place, visits + count)
  f64[first + place] = value
  u32[visits + place] = seconds
  f64[at + net.count] = count + 1
  rescale(f64, at)
  if (count + 1 > prototypesMax) {
    thin(slab, at)
    rescale(f64, at)
  }
}

function rescale(f64: Float64Array, at: number): void {
  const first = at + net.prototypes
  const low = f64[first]!
  const high = f64[first + f64[at + net.count]! - 1]!
  const centre = f64[at + net.centre]!
  const scale = scaleSpreads * f64[at + net.spread]! + 0.001 * (high - low) + 1e-12
  f64[at + net.scale] = scale
  f64[at + net.range] = Math.asinh((high - centre) / scale) - Math.asinh((low - centre) / scale)
  f64[at + net.scaledAt] = f64[at + net.pushed]!
}

/** A coarser radius until few enough are left; the two ends always stay. */
function thin({ f64, u32 }: Slab, at: number): void {
  const first = at + net.prototypes
  const visits = (at + net.visits) * 2
  const centre = f64[at + net.centre]!
  const scale = f64[at + net.scale]!
  const range = f64[at + net.range]!
  let count = f64[at + net.count]!
  for (let i = 0; i < count; i++) mapped[i] = Math.asinh((f64[first + i]! - centre) / scale) / range
  let radius = f64[at + net.radius]!
  while (count > thinnedMax) {
    radius *= radiusGrowth
    let kept = 0
    for (let i = 1; i < count; i++) {
      if (i === count - 1 || mapped[i]! - mapped[kept]! > radius) {
        kept++
        mapped[kept] = mapped[i]!
        f64[first + kept] = f64[first + i]!
        u32[visits + kept] = u32[visits + i]!
      } else if (u32[visits + i]! > u32[visits + kept]!) u32[visits + kept] = u32[visits + i]!
    }
    count = kept + 1
  }
  f64[at + net.radius] = radius
  f64[at + net.count] = count
}

/** Drops what was not visited since, the longest unvisited first where few are left. */
export function forget({ f64, u32 }: Slab, at: number, beforeSeconds: number): void {
  const first = at + net.prototypes
  const visits = (at + net.visits) * 2
  const count = f64[at + net.count]!
  if (count <= keptMin) return
  let fresh = 0
  for (let i = 0; i < count; i++) if (u32[visits + i]! >= beforeSeconds) fresh++
  if (fresh === count || fresh < keptMin) return
  let kept = 0
  for (let i = 0; i < count; i++) {
    if (u32[visits + i]! < beforeSeconds) continue
    f64[first + kept] = f64[first + i]!
    u32[visits + kept] = u32[visits + i]!
    kept++
  }
  f64[at + net.count] = kept
  rescale(f64, at)
}
