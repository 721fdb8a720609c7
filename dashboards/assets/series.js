// What one chart holds: history as the API gave it, and live readings put into their place. Pure, without a page, so that it can be tested alone.
import { isGap, isSwitch, stepMs } from './format.js'

/** Live readings of which a bucket keeps the instants, so that one that comes again is not counted again. */
const seenMax = 20_000
/** Raw readings that a live chart gathers before it asks for buckets instead. */
export const rawMax = 12_000

export class SeriesStore {
  /** `raw`, or the step of the buckets. */
  resolution = 'raw'
  source = 'raw'
  step = 0
  /** @type {number[]} */
  times = []
  /** Raw values, or means. @type {number[]} */
  values = []
  /** @type {number[]} */
  lows = []
  /** @type {number[]} */
  highs = []
  /** @type {number[]} */
  counts = []
  /** @type {Set<number>} */
  #seen = new Set()

  /** History takes the place of everything; with `keepNewer`, raw readings that came live and are newer than it stay.
   * @param {import('../../api/wire.ts').RawSeries | import('../../api/wire.ts').BucketSeries | undefined} series
   * @param {{ resolution: string, source: string }} answer @param {boolean} keepNewer */
  load(series, { resolution, source }, keepNewer) {
    const kept =
      keepNewer && this.resolution === 'raw' && resolution === 'raw' ? this.#after(series?.observedAt.at(-1) ?? -1) : []
    this.resolution = resolution
    this.source = source
    this.step = stepMs(resolution)
    this.#seen.clear()
    this.times = series ? [...series.observedAt] : []
    this.values = series ? [...('value' in series ? series.value : series.mean)] : []
    this.lows = series && 'min' in series ? [...series.min] : []
    this.highs = series && 'max' in series ? [...series.max] : []
    this.counts = series && 'count' in series ? [...series.count] : []
    for (const [at, value] of kept) this.add(at, value)
  }

  /** @param {number} at @returns {[number, number][]} */
  #after(at) {
    /** @type {[number, number][]} */
    const found = []
    for (let i = this.times.length - 1; i >= 0 && /** @type {number} */ (this.times[i]) > at; i--) {
      found.push([/** @type {number} */ (this.times[i]), /** @type {number} */ (this.values[i])])
    }
    return found.reverse()
  }

  /** Puts a live reading in its place. `late`: it did not come at the end, so what was drawn has changed.
   * @param {number} at @param {number} value @returns {'appended' | 'late' | 'repeat'} */
  add(at, value) {
    return this.step === 0 ? this.#addRaw(at, value) : this.#addToBucket(at, value)
  }

  /** @param {number} at @param {number} value @returns {'appended' | 'late' | 'repeat'} */
  #addRaw(at, value) {
    const { times, values } = this
    const last = times.length - 1
    if (last < 0 || at > /** @type {number} */ (times[last])) {
      times.push(at)
      values.push(value)
      return 'appended'
    }
    const place = lowerBound(times, at)
    if (times[place] === at) {
      // One identity, one reading: the one received later wins.
      if (values[place] === value) return 'repeat'
      values[place] = value
      return 'late'
    }
    times.splice(place, 0, at)
    values.splice(place, 0, value)
    return 'late'
  }

  /** Good until the next answer of the API, which knows the corrections too.
   * @param {number} at @param {number} value @returns {'appended' | 'late' | 'repeat'} */
  #addToBucket(at, value) {
    if (this.#seen.has(at)) return 'repeat'
    if (this.#seen.size >= seenMax) this.#seen.clear()
    this.#seen.add(at)
    const { times, step } = this
    const last = times.length - 1
    const lastAt = times[last]
    // The zone decides where long buckets begin; the last one that began before is the right one while it is not over.
    if (lastAt === undefined || at >= lastAt + step) {
      const start =
        lastAt === undefined ? Math.floor(at / step) * step : lastAt + Math.floor((at - lastAt) / step) * step
      times.push(start)
      this.values.push(value)
      this.lows.push(value)
      this.highs.push(value)
      this.counts.push(1)
      return 'appended'
    }
    const found = lowerBound(times, at)
    const place = times[found] === at ? found : found - 1
    const start = times[place]
    if (start === undefined || at >= start + step) {
      const begin = Math.floor(at / step) * step
      times.splice(place + 1, 0, begin)
      this.values.splice(place + 1, 0, value)
      this.lows.splice(place + 1, 0, value)
      this.highs.splice(place + 1, 0, value)
      this.counts.splice(place + 1, 0, 1)
      return 'late'
    }
    const count = /** @type {number} */ (this.counts[place]) + 1
    const mean = /** @type {number} */ (this.values[place])
    this.counts[place] = count
    this.values[place] = mean + (value - mean) / count
    this.lows[place] = Math.min(/** @type {number} */ (this.lows[place]), value)
    this.highs[place] = Math.max(/** @type {number} */ (this.highs[place]), value)
    return place === last ? 'appended' : 'late'
  }

  /** Lets go of what a sliding window has left behind. @param {number} at */
  dropBefore(at) {
    const place = lowerBound(this.times, at)
    // Not at each reading: moving the rest costs.
    if (place < 200) return
    for (const column of [this.times, this.values, this.lows, this.highs, this.counts]) column.splice(0, place)
  }

  /** Columns for uPlot: time, low, high, value, with an empty point in each gap: of the device, or one that was declared.
   * @param {readonly { from: number, to: number }[]} [declared] @returns {[number[], (number | null)[], (number | null)[], (number | null)[]]} */
  columns(declared = []) {
    const { times, values, lows, highs } = this
    const banded = this.step > 0
    /** @type {number[]} */
    const x = []
    /** @type {(number | null)[]} */
    const low = []
    /** @type {(number | null)[]} */
    const high = []
    /** @type {(number | null)[]} */
    const y = []
    for (let i = 0; i < times.length; i++) {
      const at = /** @type {number} */ (times[i])
      const before = times[i - 1]
      if (before !== undefined && (isGap(times, i, this.step) || isWithin(declared, before, at))) {
        x.push((before + at) / 2)
        low.push(null)
        high.push(null)
        y.push(null)
      }
      x.push(at)
      low.push(banded ? /** @type {number} */ (lows[i]) : null)
      high.push(banded ? /** @type {number} */ (highs[i]) : null)
      y.push(/** @type {number} */ (values[i]))
    }
    return [x, low, high, y]
  }

  /** Only ever off or on: drawn in steps, each held until the next. Of buckets, the least and the most say it. */
  isSwitch() {
    return this.step > 0 ? isSwitch(this.lows) && isSwitch(this.highs) : isSwitch(this.values)
  }

  get length() {
    return this.times.length
  }
}

/** Whether one of these lies between two points. @param {readonly { from: number, to: number }[]} gaps @param {number} before @param {number} after */
function isWithin(gaps, before, after) {
  return gaps.some(({ from, to }) => from < after && to > before)
}

/** The first place whose value is not below. @param {readonly number[]} sorted @param {number} value */
function lowerBound(sorted, value) {
  let low = 0
  let high = sorted.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (/** @type {number} */ (sorted[middle]) < value) low = middle + 1
    else high = middle
  }
  return low
}
