// Where a viewer stands, as text that it gives back to resume. Opaque outside; inside, by partition: the log offset just past what was sent, the
// newest receivedAt before it, so that the table can go on when the log no longer reaches back, and the rows sent of a chunk that is not done.
import type { Chunk, LogPosition, Partition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'

export interface LiveCursor {
  readonly position: LogPosition
  /** By partition: what was received up to here has been sent, or was not asked for. A partition that is missing: not known. */
  readonly receivedAt: ReadonlyMap<Partition, Micros>
  /** By partition: rows already sent of the chunk that lies next in it. */
  readonly within?: ReadonlyMap<Partition, number> | undefined
}

export const cursorLengthMax = 4_096

/** Just past these chunks. */
export function cursorAfter(chunks: readonly Chunk[], before: LiveCursor): LiveCursor {
  const position = new Map(before.position)
  const receivedAt = new Map(before.receivedAt)
  const within = before.within && new Map(before.within)
  for (const chunk of chunks) {
    position.set(chunk.partition, chunk.offset + 1)
    receivedAt.set(chunk.partition, chunk.receivedAt)
    within?.delete(chunk.partition)
  }
  return within && within.size > 0 ? { position, receivedAt, within } : { position, receivedAt }
}

/**
 * Past so many rows of this chunk, of which none was received after `received` and all later ones were: where retention takes the chunk, the table
 * goes on in the middle of it.
 */
export function cursorWithin(chunk: Chunk, rows: number, before: LiveCursor, received: Micros): LiveCursor {
  if (rows >= chunk.count) return cursorAfter([chunk], before)
  const { partition, offset } = chunk
  const position = new Map(before.position).set(partition, offset)
  const receivedAt = new Map(before.receivedAt).set(partition, received)
  return { position, receivedAt, within: new Map(before.within).set(partition, rows) }
}

export function rowsSent({ within, position }: LiveCursor, chunk: Chunk): number {
  return position.get(chunk.partition) === chunk.offset ? (within?.get(chunk.partition) ?? 0) : 0
}

export function encodeCursor({ position, receivedAt, within }: LiveCursor): string {
  const partitions = new Set([...position.keys(), ...receivedAt.keys()])
  const places = [...partitions].map((partition) => {
    const sent = within?.get(partition)
    const rows = sent === undefined ? '' : `.${sent}`
    return `${partition}.${position.get(partition) ?? 0}.${receivedAt.get(partition) ?? 0}${rows}`
  })
  return `l2~${places.join('_')}`
}

const placePattern = /^(\d{1,5})\.(\d{1,16})\.(\d{1,16})(?:\.(\d{1,9}))?$/

/** undefined: not a cursor of ours. */
export function decodeCursor(text: string): LiveCursor | undefined {
  if (!text.startsWith('l2~') || text.length > cursorLengthMax) return undefined
  const position = new Map<Partition, number>()
  const receivedAt = new Map<Partition, Micros>()
  const within = new Map<Partition, number>()
  for (const place of text.slice(3).split('_').filter(Boolean)) {
    const match = placePattern.exec(place)
    if (!match) return undefined
    const [partition, offset, received] = [Number(match[1]), Number(match[2]), Number(match[3])]
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(received) || position.has(partition)) return undefined
    position.set(partition, offset)
    if (received > 0) receivedAt.set(partition, received)
    if (match[4] !== undefined) within.set(partition, Number(match[4]))
  }
  return { position, receivedAt, ...(within.size > 0 && { within }) }
}

/** Whether `a` has come at least as far as `b` in every partition. */
export function hasReached(a: LogPosition, b: LogPosition): boolean {
  for (const [partition, offset] of b) if ((a.get(partition) ?? 0) < offset) return false
  return true
}
