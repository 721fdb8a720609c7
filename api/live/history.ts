// What a viewer that asks for an instant gets before live: the table from that instant on, then the log from where the table ends. The seam is
// the writer's committed place, taken first: what lies before it in the log comes from the table, and everything else from the log. Nothing is missing,
// nothing comes twice, whatever the writer does meanwhile. A row of the table says where it lies by its logOffset where several processes append, else
// by receivedAt, which only rises within a partition that one process appends to.
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { type EventLog, type LogPosition, type Partition, partitionOf } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LogDamagedError } from '../../runtime/errors.ts'
import type { ReadingKey, ReadingRow } from '../queries/readings.ts'
import type { ReceivedKey } from '../queries/received-readings.ts'
import { cursorLengthMax } from './cursor.ts'

/** Where the table ends and the log begins. */
export interface Seam {
  readonly place: LogPosition
  /** By partition: the table's part was received before this; 0: not known. */
  readonly receivedBefore: readonly Micros[]
}

/**
 * By how much clocks of processes that take readings in may differ. A row that was received longer before the seam lies before it whatever its
 * offset says, which may be that of a log that was there before this one.
 */
export const clockDifferenceMax: Micros = 600_000_000

/** What was received longer ago is in the log, or never will be. */
const appendMicrosMax: Micros = 10_000_000

/** Above this a cursor is packed: that of a log with 64 partitions would be longer than what we take back, or fits an address. */
const plainBytesMax = 1_024
/** Unpacked, what no cursor of ours comes near to. */
const jsonBytesMax = 16 * 1024

/** Where a viewer stands in history. */
export type HistoryCursor =
  | {
      readonly by: 'observed'
      /** Readings observed from here on. */
      readonly since: Micros
      /** The last reading that was sent; undefined: none yet. */
      readonly after: ReadingKey | undefined
      readonly seam: Seam
    }
  | {
      readonly by: 'received'
      /** By partition: readings received after this. */
      readonly past: readonly Micros[]
      /** Readings from this place in the log on, where rows say where they lie; undefined: a cursor of before they did. */
      readonly from: LogPosition | undefined
      /** Partitions where the chunk at that place was begun: what of it was received up to `past` is known. */
      readonly within?: ReadonlySet<Partition>
      readonly after: ReceivedKey | undefined
      readonly seam: Seam
    }

/** Up to here the table has it all. Where the file that says so can't be read (the writer says that), the whole log is read instead. */
export async function writersPlace(log: EventLog): Promise<LogPosition> {
  try {
    return await log.committed('writer', 'readings')
  } catch (error) {
    if (error instanceof LogDamagedError) return new Map()
    throw error
  }
}

export async function findSeam(log: EventLog, clock: Clock, signal: AbortSignal): Promise<Seam> {
  // Of a partition that holds nothing yet. What a log before this one has left in the table lies before the seam; what is on its way into this one does not.
  const noneYet = log.hasManyAppenders ? -1 : Math.max(0, clock.nowMicros() - appendMicrosMax)
  const place = await writersPlace(log)
  // In this order: what is appended in between lies beyond the place, and makes its partition one that has a row there.
  const newest = await log.newest('readings')
  const receivedBefore = Array.from(
    { length: log.partitions },
    (_, partition) => (newest.get(partition) ?? noneYet) + 1,
  )
  const end = await log.end('readings')
  const beyond = new Set(
    [...end].filter(([partition, offset]) => offset > (place.get(partition) ?? 0)).map(([partition]) => partition),
  )
  if (beyond.size === 0) return { place, receivedBefore }
  for await (const chunks of log.tail('readings', place, signal)) {
    for (const chunk of chunks) {
      if (!beyond.delete(chunk.partition)) continue
      const row = new RowCursor(chunk.rows)
      if (row.next()) receivedBefore[chunk.partition] = row.receivedAt
    }
    if (beyond.size === 0) break
  }
  return { place, receivedBefore }
}

/** Whether this row of the table lies before the seam. */
export function isBeforeSeam({ place, receivedBefore }: Seam, tenant: string, row: ReadingRow): boolean {
  const partition = partitionOf(tenant, row.device, receivedBefore.length)
  const before = receivedBefore[partition]!
  if (saysWhere(row) && before - row.receivedMicros <= clockDifferenceMax)
    return row.logOffset < (place.get(partition) ?? 0)
  return before === 0 || row.receivedMicros < before
}

/** Whether this row of the table lies past the place where somebody stood. */
export function isAfter(
  { past, from, within }: Extract<HistoryCursor, { by: 'received' }>,
  tenant: string,
  row: ReadingRow,
): boolean {
  const partition = partitionOf(tenant, row.device, past.length)
  const receivedAt = past[partition]!
  if (from && saysWhere(row) && Math.abs(row.receivedMicros - receivedAt) <= clockDifferenceMax) {
    const next = from.get(partition) ?? 0
    // A chunk is one process', so its rows are in the order of its clock.
    if (row.logOffset !== next || !within?.has(partition)) return row.logOffset >= next
  }
  return row.receivedMicros > receivedAt
}

function saysWhere(row: ReadingRow): row is ReadingRow & { readonly logOffset: number } {
  return row.logOffset !== undefined && row.logOffset >= 0
}

/** Where a viewer stands that was sent this row. */
export function past(cursor: HistoryCursor, row: ReadingRow): HistoryCursor {
  const key = { observedAt: row.observedMicros, device: row.device, metric: row.metric }
  return cursor.by === 'observed'
    ? { ...cursor, after: key }
    : { ...cursor, after: { ...key, receivedAt: row.receivedMicros } }
}

/**
 * The same place, up to the seam of another log. What came between that seam and this one may lie before readings that were sent, by the device's clock
 * or in another partition: by observedAt all is told anew, by receivedAt what is yet to come is said by partition.
 */
export function upToAnotherSeam(cursor: HistoryCursor, seam: Seam, tenant: string): HistoryCursor {
  if (cursor.by === 'observed') return { ...cursor, seam, after: undefined }
  const { after } = cursor
  const partitionOfAfter = after && partitionOf(tenant, after.device, cursor.past.length)
  const past = cursor.past.map((receivedAt, partition) => {
    if (!after) return receivedAt
    if (partition === partitionOfAfter) return Math.max(receivedAt, after.receivedAt)
    const seamAt = cursor.seam.receivedBefore[partition] || Number.POSITIVE_INFINITY
    return Math.max(receivedAt, Math.min(after.receivedAt, seamAt) - 1)
  })
  return { by: 'received', past, from: undefined, after: undefined, seam }
}

export function encodeHistoryCursor(cursor: HistoryCursor): string {
  const { seam } = cursor
  const placesOf = (position: LogPosition) => seam.receivedBefore.map((_, partition) => position.get(partition) ?? 0)
  const place = placesOf(seam.place)
  const fields: unknown[] = [cursor.by === 'observed' ? cursor.since : cursor.past, place, seam.receivedBefore]
  if (cursor.after) fields.push(cursor.after.observedAt, cursor.after.device, cursor.after.metric)
  if (cursor.by === 'received' && cursor.after) fields.push(cursor.after.receivedAt)
  const from = cursor.by === 'received' ? cursor.from : undefined
  if (from) fields.splice(3, 0, placesOf(from), [...((cursor.by === 'received' && cursor.within) || [])])
  const kind = cursor.by === 'observed' ? 'h1' : from ? 'r2' : 'r1'
  const json = Buffer.from(JSON.stringify(fields))
  const isLong = json.length > plainBytesMax
  return `${kind}${isLong ? 'z' : ''}~${(isLong ? deflateRawSync(json) : json).toString('base64url')}`
}

/** undefined: not a cursor of ours, or of a log with other partitions. */
export function decodeHistoryCursor(text: string, partitions: number): HistoryCursor | undefined {
  if (text.length > cursorLengthMax) return undefined
  const [, kind, isLong, encoded] = /^(h1|r1|r2)(z?)~([A-Za-z0-9_-]+)$/.exec(text) ?? []
  if (encoded === undefined) return undefined
  let fields: unknown
  try {
    const bytes = Buffer.from(encoded, 'base64url')
    const json = isLong ? inflateRawSync(bytes, { maxOutputLength: jsonBytesMax }) : bytes
    fields = JSON.parse(json.toString('utf8'))
  } catch {
    return undefined
  }
  if (!Array.isArray(fields)) return undefined
  const [from, within] = kind === 'r2' ? (fields.splice(3, 2) as unknown[]) : []
  const [begin, place, receivedBefore, observedAt, device, metric, receivedAt] = fields as unknown[]
  if (!isPlaces(place, partitions) || !isPlaces(receivedBefore, partitions)) return undefined
  const seam = { place: new Map(place.entries()), receivedBefore }
  let after: ReadingKey | undefined
  if (fields.length > 3) {
    if (!isMicros(observedAt) || typeof device !== 'string' || typeof metric !== 'string') return undefined
    after = { observedAt, device, metric }
  }
  if (kind === 'h1') return isMicros(begin) ? { by: 'observed', since: begin, after, seam } : undefined
  if (!isPlaces(begin, partitions)) return undefined
  if (kind === 'r2' && !(isPlaces(from, partitions) && isPartitions(within, partitions))) return undefined
  const begun = {
    by: 'received',
    past: begin,
    from: kind === 'r2' ? new Map((from as number[]).entries()) : undefined,
    ...(kind === 'r2' && { within: new Set(within as number[]) }),
  } as const
  if (after === undefined) return { ...begun, after, seam }
  return isMicros(receivedAt) ? { ...begun, after: { ...after, receivedAt }, seam } : undefined
}

function isMicros(value: unknown): value is Micros {
  return Number.isSafeInteger(value) && (value as number) >= 0
}

function isPlaces(value: unknown, partitions: number): value is number[] {
  return Array.isArray(value) && value.length === partitions && value.every(isMicros)
}

function isPartitions(value: unknown, partitions: number): value is Partition[] {
  return Array.isArray(value) && value.every((each) => isMicros(each) && each < partitions)
}
