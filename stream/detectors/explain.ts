// An alert in words: the detector's state is the explanation, so nothing is guessed. The sentence is for a person, the evidence for a program.
import type { Finding } from './detector.ts'
import type { Novelty } from './net.ts'

export type View = 'value' | 'level' | 'season' | 'shape'

/** All that a finding rests on. */
export interface Evidence {
  readonly view: View
  readonly value: number
  readonly score: number
  readonly novelty: number
  readonly observedAt: number
  readonly isLate: boolean
  /** Heard so far. */
  readonly readings: number
  /** Recent alerts that discount this one. */
  readonly alarms: number
  /** What the view's net knew; a shape has none. */
  readonly found: Novelty | undefined
  readonly usual: { readonly centre: number; readonly spread: number }
  /** Least and greatest value known, this one included. */
  readonly range: { readonly low: number; readonly high: number }
  readonly remembered: number
  readonly recentMean: number
  readonly beforeMean: number
  readonly hour: number
  readonly hourMean: number
  readonly shape: readonly number[]
}

type Range = Finding['expected']
type Side = 'above' | 'below' | 'between'

/** 3 robust standard deviations. */
const usualSpreads = 3 * 1.4826

export function explainFinding(evidence: Evidence): Omit<Finding, 'isWarmingUp'> {
  const { found } = evidence
  const { expected, sentence, details } =
    found === undefined ? ofShape(evidence) : tellers[evidence.view](evidence, found)
  const discount = evidence.alarms >= 1 ? ' It counts for less, because much in this series was new lately.' : ''
  const late = evidence.isLate ? ' It came late, out of order.' : ''
  const { view, score, novelty, readings, remembered, alarms } = evidence
  return {
    score,
    value: evidence.value,
    expected,
    explanation: sentence + discount + late,
    evidence: {
      view,
      novelty: rounded(novelty, 6),
      ...details,
      usualCentre: rounded(evidence.usual.centre, 9),
      usualSpread: rounded(evidence.usual.spread, 9),
      readings,
      remembered,
      recentAlarms: rounded(alarms, 4),
      late: evidence.isLate,
    },
  }
}

interface Told {
  readonly expected: Range
  readonly sentence: string
  readonly details: Readonly<Record<string, unknown>>
}

const tellers: Readonly<Record<View, (evidence: Evidence, found: Novelty) => Told>> = {
  value: ofValue,
  level: ofLevel,
  season: ofSeason,
  shape: ofShape,
}

function ofValue(evidence: Evidence, found: Novelty): Told {
  const { value, usual } = evidence
  const place = placeOf(value, found)
  return {
    expected: usualRange(value, found),
    sentence: `${text(value)} is ${placeWords(place, evidence, found)}; usual ${text(usual.centre)} ± ${text(usual.spread)}.`,
    details: place.details,
  }
}

function ofLevel(evidence: Evidence, found: Novelty): Told {
  const { recentMean, beforeMean, readings } = evidence
  const move = recentMean - beforeMean
  const place = placeOf(move, found)
  const range = usualRange(move, found)
  const way = move < 0 ? 'below' : 'above'
  const { nearest } = place
  const known = nearest === 0 ? 'none at all' : `${text(Math.abs(nearest))} ${nearest < 0 ? 'down' : 'up'}`
  return {
    expected: { low: beforeMean + range.low, high: beforeMean + range.high },
    sentence:
      `The level moved: the mean of the last 64 readings, ${text(recentMean)}, is ${text(Math.abs(move))} ${way} that of the 64 before. ` +
      `No such move was seen in ${plural(readings, 'reading')}; the closest was ${known}, ${distance(evidence.observedAt, found)}.`,
    details: { ...place.details, recentMean, beforeMean },
  }
}

function ofSeason(evidence: Evidence, found: Novelty): Told {
  const { value, hour, hourMean } = evidence
  const off = value - hourMean
  const place = placeOf(off, found)
  const range = usualRange(off, found)
  const hours = `${String(hour).padStart(2, '0')}:00–${String((hour + 1) % 24).padStart(2, '0')}:00 UTC`
  return {
    expected: { low: hourMean + range.low, high: hourMean + range.high },
    sentence:
      `${text(value)} is unusual for ${hours}, when the mean is ${text(hourMean)}: it is ${offWords(off)}; ` +
      `the closest so far was ${offWords(place.nearest)}, ${distance(evidence.observedAt, found)}.`,
    details: { ...place.details, hour, hourMean },
  }
}

function offWords(off: number): string {
  if (off === 0) return 'just that'
  return `${text(Math.abs(off))} ${off < 0 ? 'below' : 'above'} that`
}

function ofShape(evidence: Evidence): Told {
  const { shape, range, novelty, readings } = evidence
  return {
    expected: { ...range },
    sentence:
      `The last 48 readings took a course unlike any before in ${plural(readings, 'reading')}: the means of each 12 are ${shape.map(text).join(', ')}; ` +
      `the closest course differs by ${percent(novelty)} of the range from ${text(range.low)} to ${text(range.high)}.`,
    details: { shape },
  }
}

interface Place {
  readonly side: Side
  readonly nearest: number
  readonly details: Readonly<Record<string, unknown>>
}

function placeOf(value: number, { below, above, low, high, nearestVisitedAt }: Novelty): Place {
  const side = Number.isNaN(above) ? 'above' : Number.isNaN(below) ? 'below' : 'between'
  const nearest = side === 'above' ? below : side === 'below' ? above : value - below < above - value ? below : above
  const gap = Math.abs(value - nearest)
  return {
    side,
    nearest,
    details: {
      side,
      nearest,
      nearestAt: nearestVisitedAt * 1000,
      gap: rounded(gap, 9),
      gapShare: high > low ? rounded(gap / (high - low), 6) : null,
    },
  }
}

function placeWords({ side, nearest }: Place, evidence: Evidence, found: Novelty): string {
  const among = plural(evidence.readings, 'reading')
  if (side === 'between') {
    const hole = `between ${text(found.below)} and ${text(found.above)}`
    return `where nothing was in ${among}, ${hole}; closest ${text(nearest)}, ${distance(evidence.observedAt, found)}`
  }
  return `${side} everything in ${among}; closest ${text(nearest)}, ${distance(evidence.observedAt, found)}`
}

/** The usual band, within what was seen; never around the value itself. */
function usualRange(value: number, { below, above, low, high, centre, spread }: Novelty): Range {
  const wide = usualSpreads * spread
  const range = { low: Math.max(low, centre - wide), high: Math.min(high, centre + wide) }
  // A trend leaves the trackers behind: then what was seen is all that is known.
  if (range.low > range.high) return { low, high }
  if (value > range.high || value < range.low) return range
  return value >= centre
    ? { low: Math.min(range.low, below), high: below }
    : { low: above, high: Math.max(range.high, above) }
}

/** From the odd reading itself, not from whoever reads the sentence: it is true whenever it is read. */
function distance(observedAt: number, { nearestVisitedAt }: Novelty): string {
  const seconds = Math.floor(observedAt / 1e6) - nearestVisitedAt
  if (seconds < 0) return `${span(-seconds)} after`
  return seconds === 0 ? 'in the same second' : `${span(seconds)} before`
}

function span(seconds: number): string {
  if (seconds < 100) return `${seconds} s`
  if (seconds < 6_000) return `${Math.round(seconds / 60)} min`
  if (seconds < 48 * 3_600) return `${Math.round(seconds / 3_600)} h`
  return `${Math.round(seconds / 86_400)} days`
}

function plural(count: number, word: string): string {
  const whole = Math.max(1, Math.round(count))
  return `${String(whole).replace(/\B(?=(\d{3})+$)/g, ',')} ${word}${whole === 1 ? '' : 's'}`
}

function percent(share: number): string {
  return Number.isFinite(share) ? `${Math.round(share * 100)} %` : 'more than all'
}

/** Four digits that count, or all before the point. */
function text(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value)
  const size = Math.abs(value)
  if (size >= 1e15) return value.toExponential(3)
  if (size >= 1_000) {
    return (value < 0 ? '-' : '') + String(Math.round(size)).replace(/\B(?=(\d{3})+$)/g, ',')
  }
  return String(Number(value.toPrecision(4)))
}

function rounded(value: number, digits: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(digits)) : null
}
