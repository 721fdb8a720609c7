// Real series from files: `timestamp,value` or `timestamp,device,metric,value`, with a header, columns in any order. Timestamps are RFC 3339, numbers
// by their size, or `2014-07-01 00:30:00` without a zone, which is UTC.

import { createReadStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { instantFromNumber, instantFromText } from '../../domain/instant.ts'
import { isDeviceName, isMetricName, type Micros, textBytesMax } from '../../domain/reading.ts'
import { StartError } from '../../runtime/errors.ts'

export interface SeriesRow {
  readonly observedAt: Micros
  readonly device: string
  readonly metric: string
  readonly value: number | string
}

export interface SeriesNames {
  /** For rows that don't name their own. */
  readonly device: string
  readonly metric: string
}

const columns = ['timestamp', 'device', 'metric', 'value'] as const
type Column = (typeof columns)[number]
const lineLengthMax = 64 * 1024

/** In the file's order. Rows without a value say nothing and are left out; a row that can't be read is a StartError that names its line. */
export async function* readSeries(file: string, names: SeriesNames): AsyncGenerator<SeriesRow> {
  const stream = createReadStream(file, { encoding: 'utf8' })
  const lines = createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY })
  let header: ReadonlyMap<Column, number> | undefined
  let number = 0
  try {
    for await (const line of lines) {
      number++
      if (line.length > lineLengthMax)
        throw new StartError(`${file}: line ${number} is longer than ${lineLengthMax} characters`)
      const text = number === 1 ? line.replace(/^\ufeff/, '') : line
      if (text.trim() === '') continue
      const fields = splitCsv(text)
      if (header === undefined) {
        header = readHeader(file, fields)
        continue
      }
      const row = readRow(`${file}: line ${number}`, header, fields, names)
      if (row) yield row
    }
  } catch (error) {
    if (error instanceof StartError) throw error
    throw new StartError(`${file} can't be read: ${(error as Error).message}`, { cause: error })
  } finally {
    lines.close()
    stream.destroy()
  }
  if (header === undefined) throw new StartError(`${file} is empty: expected a header such as timestamp,value`)
}

function readHeader(file: string, fields: readonly string[]): ReadonlyMap<Column, number> {
  const names = fields.map((field) => field.trim().toLowerCase())
  const found = new Map<Column, number>()
  for (const column of columns) if (names.includes(column)) found.set(column, names.indexOf(column))
  if (!found.has('timestamp') || !found.has('value')) {
    const given = fields.join(',').slice(0, 100)
    throw new StartError(`${file}: the header is "${given}"; expected timestamp,value or timestamp,device,metric,value`)
  }
  return found
}

function readRow(
  place: string,
  header: ReadonlyMap<Column, number>,
  fields: readonly string[],
  names: SeriesNames,
): SeriesRow | undefined {
  const field = (column: Column): string | undefined => fields[header.get(column) ?? -1]?.trim()
  const given = field('value')
  if (given === '') return undefined
  const timestamp = field('timestamp')
  if (given === undefined || timestamp === undefined) {
    throw new StartError(`${place} has ${fields.length} fields, fewer than the header`)
  }
  const observedAt = parseTimestamp(timestamp)
  if (!(observedAt >= 0)) {
    throw new StartError(
      `${place}: "${timestamp.slice(0, 60)}" is no instant from 1970 on, such as 2014-07-01 00:30:00 (UTC)`,
    )
  }
  const device = field('device') || names.device
  const metric = field('metric') || names.metric
  if (!isDeviceName(device)) throw new StartError(`${place}: "${device.slice(0, 60)}" can't be the name of a device`)
  if (!isMetricName(metric)) throw new StartError(`${place}: "${metric.slice(0, 60)}" can't be the name of a metric`)
  return { observedAt, device, metric, value: parseValue(place, given) }
}

const withoutZone = /^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?)?$/

/** NaN when it is no instant. */
export function parseTimestamp(text: string): Micros {
  if (/^\d+(\.\d+)?$/.test(text)) return instantFromNumber(Number(text))
  if (!withoutZone.test(text)) return instantFromText(text)
  const missing = text.length === 10 ? 'T00:00:00' : text.length === 16 ? ':00' : ''
  return instantFromText(`${text}${missing}Z`)
}

function parseValue(place: string, text: string): number | string {
  const number = Number(text)
  if (Number.isFinite(number)) return number
  if (/^[+-]?(nan|inf|infinity)$/i.test(text))
    throw new StartError(`${place}: the value ${text} is not a number that can be kept`)
  if (Buffer.byteLength(text) > textBytesMax)
    throw new StartError(`${place}: the text is longer than ${textBytesMax} bytes`)
  return text
}

/** One line of RFC 4180: fields may be quoted, a quote inside is doubled. */
export function splitCsv(line: string): string[] {
  if (!line.includes('"')) return line.split(',')
  const fields: string[] = []
  let at = 0
  while (at <= line.length) {
    if (line[at] !== '"') {
      const comma = line.indexOf(',', at)
      const end = comma === -1 ? line.length : comma
      fields.push(line.slice(at, end))
      at = end + 1
      continue
    }
    let field = ''
    for (at++; at < line.length; at++) {
      if (line[at] !== '"') field += line[at]
      else if (line[at + 1] === '"') field += line[++at]
      else break
    }
    fields.push(field)
    const comma = line.indexOf(',', at)
    at = comma === -1 ? line.length + 1 : comma + 1
  }
  return fields
}
