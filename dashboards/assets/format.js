// How numbers, ages and small drawings look, in one place for the server (dashboards/format.ts loads this file) and for the browser.

const grouped = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const tenths = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const precise = new Intl.NumberFormat('en', { maximumSignificantDigits: 5 })
const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 })

/** A reading's value: sensible digits, never more than about ten characters.
 * @param {number} value @returns {string} */
export function formatNumber(value) {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  if (size !== 0 && (size < 1e-4 || size >= 1e12)) return value.toExponential(3)
  if (size >= 1e7) return compact.format(value)
  if (size >= 1e5) return grouped.format(value)
  if (size >= 1e4) return tenths.format(value)
  return precise.format(value)
}

/** Readings a second.
 * @param {number} rate @returns {string} */
export function formatRate(rate) {
  if (rate <= 0) return '0'
  if (rate < 10) return tenths.format(Math.max(rate, 0.1))
  return rate < 1e6 ? grouped.format(rate) : compact.format(rate)
}

/** A whole number: with thousands, or short when it is long.
 * @param {number} count @returns {string} */
export function formatCount(count) {
  return count < 1e7 ? grouped.format(count) : compact.format(count)
}

/** A span of time in its one or two largest units: "12 s", "3 min", "2 h 5 min", "4 d".
 * @param {number} ms @returns {string} */
export function formatDuration(ms) {
  if (ms < 1_000) return `${Math.max(0, Math.round(ms))} ms`
  const seconds = Math.floor(ms / 1_000)
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 10 && minutes % 60 > 0) return `${hours} h ${minutes % 60} min`
  if (hours < 48) return `${hours} h`
  return `${formatCount(Math.floor(hours / 24))} d`
}

/** How long ago, in whole seconds at the finest.
 * @param {number} ms @returns {string} */
export function formatAge(ms) {
  if (ms < -1_000) return `in ${formatDuration(-ms)}`
  return ms < 1_000 ? 'now' : formatDuration(ms)
}

/** The same as words: "12 s ago", "just now".
 * @param {number} ms @returns {string} */
export function formatAgo(ms) {
  const age = formatAge(ms)
  return age === 'now' ? 'just now' : ms < 0 ? age : `${age} ago`
}

/** What is not known is a dash, never 0.
 * @param {number | null | undefined} value @param {(value: number) => string} format @returns {string} */
export function orDash(value, format) {
  return value === null || value === undefined ? '–' : format(value)
}

/** @param {number} bytes @returns {string} */
export function formatBytes(bytes) {
  if (bytes < 1_024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  let size = bytes / 1_024
  let unit = 0
  while (size >= 1_024 && unit < units.length - 1) {
    size /= 1_024
    unit++
  }
  return `${tenths.format(size)} ${units[unit]}`
}

/** A stage of the pipeline that is behind by more than this is late, and stands still when nothing comes through it either. */
const lateMs = 5_000

/** @typedef {{ perSecond: number | null, lagMs: number | null }} Stage */

/** @param {Stage} stage @returns {'flows' | 'rests' | 'late' | 'stands' | 'unknown'} */
export function stageState({ perSecond, lagMs }) {
  if (perSecond === null && lagMs === null) return 'unknown'
  if (lagMs !== null && lagMs > lateMs) return perSecond === 0 ? 'stands' : 'late'
  return perSecond !== null && perSecond > 0 ? 'flows' : 'rests'
}

/** How far behind a stage is, in words. @param {Stage} stage @returns {string} */
export function lagText(stage) {
  const { lagMs } = stage
  if (lagMs === null) return 'not known here'
  if (stageState(stage) === 'stands') return `stands still for ${formatDuration(lagMs)}`
  return lagMs > 0 ? `${formatDuration(lagMs)} behind` : 'nothing waits'
}

/** The longest of what is known; null: nothing is. @param {readonly Stage[]} stages @returns {number | null} */
export function slowestLag(stages) {
  /** @type {number | null} */
  let slowest = null
  for (const { lagMs } of stages) if (lagMs !== null && lagMs > (slowest ?? -1)) slowest = lagMs
  return slowest
}

/** @type {Readonly<Record<string, string>>} */
const limitKinds = {
  'connection-closed': 'MQTT connection closed',
  'publish-refused': 'MQTT publish refused',
  'subscription-refused': 'MQTT subscription refused',
  'message-dropped': 'message kept from an MQTT subscriber',
  'reading-stopped': 'all sockets left unread for a while',
  'socket-closed': 'gateway WebSocket closed',
  'request-refused': 'gateway request refused',
  'viewer-closed': 'live viewer let go',
  'frame-held-back': 'live frame held back',
}
/** @param {string} kind @returns {string} */
export function limitText(kind) {
  return limitKinds[kind] ?? kind
}

/** Where a device's page is.
 * @param {string} device @returns {string} */
export function deviceHref(device) {
  return `/devices/${encodeURIComponent(device)}`
}

/** Shown on either side of an anomaly that someone goes to. */
const aroundMs = 86_400_000

/** The stretch of time around an instant, as a query. @param {number} at @returns {string} */
export function aroundQuery(at) {
  return `from=${Math.max(0, Math.floor(at - aroundMs))}&to=${Math.ceil(at + aroundMs)}`
}

/** @type {Readonly<Record<string, string>>} */
const gapCauses = {
  'log-retention': 'the log had let go of what came between',
  'log-unreadable': 'the log could not be read',
  'unknown-cursor': 'the server no longer knew where this page stood',
  'store-away': 'the table could not be asked',
  'table-retention': 'the table had let go of what came between',
}
/** Why readings are missing between what was sent live. @param {string} cause @returns {string} */
export function gapCauseText(cause) {
  return gapCauses[cause] ?? cause
}

/** Only where the table has said so. */
export const nothingFoundText = 'Nothing odd has been found yet.'

/** Of what was found, newest first: the newest of each device, then the others. A device that is odd all day hides nobody.
 * @template {{ device: string }} T @param {readonly T[]} anomalies @param {number} max @returns {T[]} */
export function newestOfEach(anomalies, max) {
  /** @type {Set<string>} */
  const devices = new Set()
  /** @type {T[]} */
  const first = []
  /** @type {T[]} */
  const others = []
  for (const each of anomalies) {
    if (devices.has(each.device)) others.push(each)
    else first.push(each)
    devices.add(each.device)
  }
  return [...first, ...others].slice(0, max)
}

/** Where a sparkline begins: with the first point when that is well inside of the window, so that a line says no more than it knows.
 * @param {ArrayLike<number>} times @param {number} from @param {number} to @returns {number} */
export function sparkFrom(times, from, to) {
  const first = times[0]
  return first !== undefined && times.length > 1 && first > from + (to - from) / 4 ? first : from
}

/** What a sparkline's length is called. @param {number} points @param {number} from @param {number} to @returns {string} */
export function trendText(points, from, to) {
  return points > 1 ? formatDuration(to - from) : 'new'
}

/** Width and height of a sparkline's own coordinates. */
export const sparkWidth = 120
export const sparkHeight = 28
const sparkEdge = 3

/** @typedef {{ from: number, to: number, min: number, max: number }} SparkFrame */

/** What a sparkline shows: all of its values, with room above and below a flat one.
 * @param {readonly number[]} values @param {number} from @param {number} to @returns {SparkFrame} */
export function sparkFrame(values, from, to) {
  let min = Number.POSITIVE_INFINITY
  let max = Number.NEGATIVE_INFINITY
  for (const value of values) {
    if (value < min) min = value
    if (value > max) max = value
  }
  if (min > max) return { from, to, min: 0, max: 1 }
  if (min === max) return { from, to, min: min - 1, max: max + 1 }
  return { from, to, min, max }
}

/** Whether these are states, off or on: what holds until the next reading is drawn in steps.
 * @param {readonly number[]} values @returns {boolean} */
export function isSwitch(values) {
  for (const value of values) if (value !== 0 && value !== 1) return false
  return values.length > 0
}

/** The `points` of a polyline; of a switch, in steps.
 * @param {readonly number[]} times @param {readonly number[]} values @param {SparkFrame} frame @returns {string} */
export function sparkPoints(times, values, frame) {
  const width = Math.max(frame.to - frame.from, 1)
  const height = Math.max(frame.max - frame.min, Number.MIN_VALUE)
  const isHeld = isSwitch(values)
  let points = ''
  let before = 0
  for (let i = 0; i < times.length; i++) {
    const x = /** @type {number} */ ((times[i] - frame.from) / width) * sparkWidth
    const y = sparkEdge + (1 - /** @type {number} */ (values[i] - frame.min) / height) * (sparkHeight - 2 * sparkEdge)
    // A bucket may begin a little before the window does.
    const column = round(Math.min(Math.max(x, 0), sparkWidth))
    if (isHeld && i > 0) points += ` ${column},${before}`
    before = round(y)
    points += `${i > 0 ? ' ' : ''}${column},${before}`
  }
  return points
}

/** What a drawn sparkline holds, so that the browser can go on where the server stopped.
 * @param {string} points @param {SparkFrame} frame @returns {{ times: number[], values: number[] }} */
export function sparkRead(points, frame) {
  /** @type {number[]} */
  const times = []
  /** @type {number[]} */
  const values = []
  let columnBefore = Number.NaN
  for (const pair of points.split(' ')) {
    const [x, y] = pair.split(',').map(Number)
    if (x === undefined || y === undefined || Number.isNaN(x) || Number.isNaN(y)) continue
    // The corner of a step is no point of its own: the one above or below it is.
    if (x === columnBefore) {
      times.pop()
      values.pop()
    }
    columnBefore = x
    times.push(frame.from + (x / sparkWidth) * (frame.to - frame.from))
    values.push(frame.min + (1 - (y - sparkEdge) / (sparkHeight - 2 * sparkEdge)) * (frame.max - frame.min))
  }
  return { times, values }
}

/** @param {number} value */
function round(value) {
  return Math.round(value * 100) / 100
}

/** The ranges that a device page offers, shortest first. */
export const ranges = /** @type {const} */ ([
  { name: '15m', label: '15 min', ms: 900_000 },
  { name: '1h', label: '1 h', ms: 3_600_000 },
  { name: '6h', label: '6 h', ms: 21_600_000 },
  { name: '24h', label: '24 h', ms: 86_400_000 },
  { name: '7d', label: '7 d', ms: 604_800_000 },
  { name: '30d', label: '30 d', ms: 2_592_000_000 },
  { name: '90d', label: '90 d', ms: 7_776_000_000 },
])

/** The milliseconds of a bucket's step; months and years by their usual length. 0 for `raw`.
 * @param {string} resolution @returns {number} */
export function stepMs(resolution) {
  const match = /^(\d+)(s|mo|m|h|d|w|y)$/.exec(resolution)
  if (!match) return 0
  const units = { s: 1e3, m: 6e4, h: 36e5, d: 864e5, w: 6048e5, mo: 2592e6, y: 31536e6 }
  return Number(match[1]) * units[/** @type {keyof typeof units} */ (match[2])]
}

/** @param {number} points @returns {string} */
export function pointsText(points) {
  return `${formatCount(points)} ${points === 1 ? 'point' : 'points'}`
}

/** A resolution as people say it.
 * @param {string} resolution @returns {string} */
export function resolutionText(resolution) {
  const match = /^(\d+)(s|mo|m|h|d|w|y)$/.exec(resolution)
  if (!match) return 'every reading'
  const units = { s: 'second', m: 'minute', h: 'hour', d: 'day', w: 'week', mo: 'month', y: 'year' }
  const unit = units[/** @type {keyof typeof units} */ (match[2])]
  return match[1] === '1' ? `one point a ${unit}` : `one point every ${match[1]} ${unit}s`
}

/** How many distances on either side say what is usual. */
const gapNeighbours = 5
const gapFactor = 3.5
/** @type {number[]} */
const sortedDistances = []

/** Whether the line breaks before this point: it lies much further from the one before than is usual just there, on both sides. Judged by what is
 * near, so that a device that came to report more often keeps the line of its slower days.
 * @param {ArrayLike<number>} times in order @param {number} index @param {number} step of the buckets; 0 for raw readings @returns {boolean} */
export function isGap(times, index, step) {
  const distance = distanceTo(times, index)
  if (index < 1 || distance <= Math.max(2.5 * step, 1_000)) return false
  const before = index > 1 ? distanceTo(times, index - 1) : Number.POSITIVE_INFINITY
  const after = index + 1 < times.length ? distanceTo(times, index + 1) : Number.POSITIVE_INFINITY
  // Nearly every point ends here: its distance is like that of a neighbour on each side.
  if (distance <= gapFactor * Math.min(before, after)) return false
  const usual = Math.max(
    usualDistance(times, index - gapNeighbours, index),
    usualDistance(times, index + 1, index + 1 + gapNeighbours),
  )
  return usual > 0 && distance > gapFactor * usual
}

/** @param {ArrayLike<number>} times @param {number} index */
function distanceTo(times, index) {
  return /** @type {number} */ (times[index]) - /** @type {number} */ (times[index - 1])
}

/** The median of the distances to the points [first, end). @param {ArrayLike<number>} times @param {number} first @param {number} end */
function usualDistance(times, first, end) {
  sortedDistances.length = 0
  for (let i = Math.max(1, first); i < Math.min(end, times.length); i++) sortedDistances.push(distanceTo(times, i))
  sortedDistances.sort((a, b) => a - b)
  return sortedDistances[sortedDistances.length >> 1] ?? 0
}
