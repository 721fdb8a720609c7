// What a chart's axis of values spans and says. Pure, without a page, so that it can be tested alone.
import { formatNumber } from './format.js'

/** Figures of a power of ten that labels are written out to; above, and below its inverse, they are short: 1.3e+15. */
const writtenOutMax = 12
const writtenOutMin = -6

/** Room above and below, so that a line does not run along the edge and a flat one has a place.
 * @param {number | null} min @param {number | null} max @returns {[number, number]} */
export function roomFor(min, max) {
  if (min === null || max === null || !Number.isFinite(min) || !Number.isFinite(max)) return [0, 1]
  // What is off, or on, all the time stands where it would stand if it changed.
  if (min === max && (min === 0 || min === 1)) return roomFor(0, 1)
  if (min === max) {
    const room = Math.abs(min) * 0.05
    return [min - room, max + room]
  }
  const room = (max - min) * 0.08
  // Zero is a floor that means something: no room below what is never negative and comes near it.
  return [min >= 0 && min - room < 0 ? 0 : min - room, max + room]
}

/** Labels that tell neighbours apart, however small a step is beside the values: 101,325.2 and 101,325.4.
 * @param {readonly number[]} splits @param {number} step between them @returns {string[]} */
export function valueLabels(splits, step) {
  const largest = Math.max(...splits.map(Math.abs))
  if (!(step > 0) || !Number.isFinite(largest) || largest === 0) return splits.map(formatNumber)
  const size = Math.floor(Math.log10(largest))
  // A step may have two figures itself: 2.5.
  const finest = Math.floor(Math.log10(step)) - (Number(step.toPrecision(2)) === Number(step.toPrecision(1)) ? 0 : 1)
  if (size >= writtenOutMax || finest < writtenOutMin) {
    const figures = Math.min(Math.max(size - finest, 0), 15)
    return splits.map((value) => (Math.abs(value) < step / 2 ? '0' : shortOf(value.toExponential(figures))))
  }
  const written = new Intl.NumberFormat('en', { maximumFractionDigits: Math.max(-finest, 0) })
  // Steps add up to a zero that is not quite one.
  return splits.map((value) => written.format(Math.abs(value) < step / 2 ? 0 : value))
}

/** @param {string} exponential */
function shortOf(exponential) {
  return exponential.replace(/(\.\d*?)0+e/, '$1e').replace('.e', 'e')
}

const narrowest = 64
const digitPx = 7
/** As wide as its longest label, and usually as wide as every other's, so that charts below one another agree.
 * @param {readonly string[] | null} labels @returns {number} */
export function axisWidth(labels) {
  const longest = Math.max(0, ...(labels ?? []).map((label) => label.length))
  return Math.max(narrowest, 8 * Math.ceil((longest * digitPx + 12) / 8))
}
