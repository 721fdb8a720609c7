// JSON in the forms of API.md section 2; docs/payloads.md says how the unclear cases are read. Common shapes are read from the bytes
// (json-common-shape.ts), everything else goes through JSON.parse here.

import { isUtf8 } from 'node:buffer'
import { instantFromNumber, instantFromText } from '../../domain/instant.ts'
import type { RejectReason } from '../../domain/outcome.ts'
import type { Micros } from '../../domain/reading.ts'
import { type Codec, type ReadingSink, withoutClock } from './codec.ts'
import { decodeCommonShape } from './json-common-shape.ts'

/** Objects within objects, the outermost counted. */
const depthMax = 8

/** What an element's instant may be called; the first that is there counts, any other is a metric. */
const instantKeys = ['ts', 'time', 'timestamp'] as const

type JsonObject = { readonly [key: string]: unknown }

export const json: Codec = {
  name: 'json',
  decode(bytes, start, end, out) {
    decodeText(bytes, start, end, out)
  },
}

/** False: this is no JSON, and was refused as such. */
export function decodeText(bytes: Buffer, start: number, end: number, out: ReadingSink): boolean {
  return decodeCommonShape(bytes, start, end, out) || decodeJson(bytes, start, end, out)
}

/** The whole of JSON; exported so that the common shapes can be held against it. */
export function decodeJson(bytes: Buffer, start: number, end: number, out: ReadingSink): boolean {
  const parsed = parse(bytes, start, end, out)
  if (parsed === undefined) return false
  if (Array.isArray(parsed)) for (const element of parsed) decodeElement(element, out)
  else decodeElement(parsed, out)
  return true
}

function parse(bytes: Buffer, start: number, end: number, out: ReadingSink): unknown {
  const text = bytes.utf8Slice(start, end)
  // Bytes that are not UTF-8 come out as U+FFFD; the character itself is fine.
  if (text.includes('\ufffd') && !isUtf8(bytes.subarray(start, end))) {
    out.reject('malformed-payload', 'the payload is not UTF-8')
    return undefined
  }
  // Where the error came from is not asked, and costs two thirds of it: bad payloads may come as fast as good ones.
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 0
  try {
    return JSON.parse(text)
  } catch (error) {
    const cause = text.startsWith('\ufeff') ? 'it begins with a byte order mark' : (error as Error).message
    out.reject('malformed-payload', `the payload is not JSON: ${cause.slice(0, 200).toWellFormed()}`)
    return undefined
  } finally {
    Error.stackTraceLimit = stackTraceLimit
  }
}

function decodeElement(element: unknown, out: ReadingSink): void {
  if (!isObject(element)) {
    out.reject(
      'not-an-object',
      `expected an object of metrics, or an array of such objects, and found ${kindOf(element)}`,
    )
    return
  }
  out.element()
  const instantKey = instantKeys.find((key) => element[key] !== undefined)
  const instant = instantKey === undefined ? null : element[instantKey]
  if (instantKey !== undefined && Array.isArray(instant) && isObject(element.values)) {
    decodeColumns(element, instantKey, instant, element.values, out)
    return
  }
  const observedAt = instant === null ? withoutClock : toInstant(instant)
  const problem = instant === null ? undefined : problemOf(observedAt, out)
  if (problem) {
    const readings = countReadings({ ...element, [instantKey ?? '']: null }, 0)
    out.reject(problem, instantDetail(problem, instantKey ?? '', instant), undefined, Math.max(1, readings))
    return
  }
  for (const key of Object.keys(element)) {
    if (key === instantKey) continue
    const value = element[key]
    if (key === 'values' && isObject(value)) decodeObject(value, '', 1, observedAt, out)
    else decodeValue(key, value, 1, observedAt, out)
  }
}

function decodeObject(object: JsonObject, prefix: string, depth: number, observedAt: Micros, out: ReadingSink): void {
  if (depth >= depthMax) {
    out.reject('nested-too-deep', `objects are nested more than ${depthMax} deep`, prefix.slice(0, -1), 1)
    return
  }
  for (const key of Object.keys(object)) decodeValue(prefix + key, object[key], depth + 1, observedAt, out)
}

function decodeValue(metric: string, value: unknown, depth: number, observedAt: Micros, out: ReadingSink): void {
  if (typeof value === 'number') out.number(metric, observedAt, value)
  else if (typeof value === 'boolean') out.number(metric, observedAt, value ? 1 : 0)
  else if (typeof value === 'string') out.text(metric, observedAt, value)
  else if (Array.isArray(value)) {
    out.reject(
      'array-value',
      'an array is no value; arrays of values go with an array of instants (columnar form)',
      metric,
    )
  } else if (isObject(value)) decodeObject(value, `${metric}.`, depth, observedAt, out)
}

/** `{"ts": [instants], "values": {"metric": [values]}}`: the value at a place belongs to the instant at that place. */
function decodeColumns(
  element: JsonObject,
  instantKey: string,
  instants: readonly unknown[],
  values: JsonObject,
  out: ReadingSink,
): void {
  const observedAts = new Float64Array(instants.length)
  const metrics = countReadings(values, 0)
  for (let place = 0; place < instants.length; place++) {
    const observedAt = toInstant(instants[place])
    const problem = problemOf(observedAt, out)
    observedAts[place] = problem ? Number.NaN : observedAt
    if (problem && metrics > 0) {
      out.reject(
        problem,
        `${instantDetail(problem, instantKey, instants[place])}, at place ${place}`,
        undefined,
        metrics,
      )
    }
  }
  for (const key of Object.keys(element)) {
    if (key === instantKey) continue
    const value = element[key]
    if (key === 'values') decodeColumnObject(values, '', 1, observedAts, out)
    else if (value !== null) {
      out.reject(
        'invalid-value',
        `it stands outside "values" and has no instant, since "${instantKey}" is an array`,
        key,
      )
    }
  }
}

function decodeColumnObject(
  object: JsonObject,
  prefix: string,
  depth: number,
  observedAts: Float64Array,
  out: ReadingSink,
): void {
  for (const key of Object.keys(object)) {
    const metric = prefix + key
    const column = object[key]
    if (Array.isArray(column)) decodeColumn(metric, column, observedAts, out)
    else if (isObject(column)) {
      if (depth + 1 < depthMax) decodeColumnObject(column, `${metric}.`, depth + 1, observedAts, out)
      else out.reject('nested-too-deep', `objects are nested more than ${depthMax} deep`, metric)
    } else if (column !== null) {
      out.reject('invalid-value', 'with an array of instants each metric needs an array of values', metric)
    }
  }
}

function decodeColumn(metric: string, column: readonly unknown[], observedAts: Float64Array, out: ReadingSink): void {
  if (column.length !== observedAts.length) {
    out.reject(
      'columns-differ-in-length',
      `${column.length} values for ${observedAts.length} instants`,
      metric,
      Math.max(1, column.length),
    )
    return
  }
  // The first number makes the series known (or finds its name unusable); the others need no look-up.
  let known = -1
  for (let place = 0; place < column.length; place++) {
    const observedAt = observedAts[place]!
    if (Number.isNaN(observedAt)) continue
    const value = column[place]
    if (known >= 0 && typeof value === 'number' && Number.isFinite(value)) {
      out.known(known, observedAt, value)
      continue
    }
    if (isObject(value)) out.reject('invalid-value', 'an object is no value in a column', metric)
    else decodeValue(metric, value, depthMax, observedAt, out)
    if (known < 0) known = out.series.placeOf(metric)
  }
}

function toInstant(instant: unknown): Micros {
  if (typeof instant === 'number') return instantFromNumber(instant)
  return typeof instant === 'string' ? instantFromText(instant) : Number.NaN
}

function problemOf(observedAt: Micros, out: ReadingSink): RejectReason | undefined {
  if (Number.isNaN(observedAt)) return 'invalid-timestamp'
  if (observedAt < 0) return 'observed-before-1970'
  return observedAt > out.observedAtMax ? 'observed-in-future' : undefined
}

function instantDetail(problem: RejectReason, key: string, instant: unknown): string {
  const shown =
    typeof instant === 'string' || typeof instant === 'number' ? JSON.stringify(instant).slice(0, 60) : kindOf(instant)
  const what = `"${key}" is ${shown.toWellFormed()}`
  if (problem === 'observed-before-1970') return `${what}, before 1970`
  if (problem === 'observed-in-future') return `${what}, more than 24 hours ahead of our clock`
  return `${what}: expected RFC 3339 text with a zone, or a number of seconds, milliseconds, microseconds or nanoseconds since 1970`
}

/** How many readings an element would have been, for the count of what was refused. */
function countReadings(value: unknown, depth: number): number {
  if (value === null) return 0
  if (!isObject(value)) return 1
  if (depth >= depthMax) return 1
  let count = 0
  for (const key of Object.keys(value)) count += countReadings(value[key], depth + 1)
  return count
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function kindOf(value: unknown): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return 'an array'
  return typeof value === 'object' ? 'an object' : `a ${typeof value}`
}
