// Whether a cursor is of the log that we read. Offsets alone do not tell: after `weir move`, or where a log was begun anew, a place of the old log is one
// of the new log too, further on, and whoever resumed there would miss what lies between, in silence. receivedAt tells: within a partition it only
// rises, so what lies before a place was not received later than the cursor says, but for what the clocks of several processes may differ by.
import type { EventLog, LogPosition, Partition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import type { ChunkRing } from './chunk-ring.ts'
import type { LiveCursor } from './cursor.ts'
import { clockDifferenceMax } from './history.ts'

interface Known {
  readonly log: Pick<EventLog, 'beginning' | 'end' | 'tail' | 'hasManyAppenders'>
  readonly ring: Pick<ChunkRing, 'newestBefore'>
  /** Where the hub stands. */
  readonly place: LiveCursor
}

/** Asks memory first. A partition of which the cursor says nothing is not looked at. */
export async function isOfThisLog(
  { position, receivedAt }: LiveCursor,
  { log, ring, place }: Known,
  gone: AbortSignal,
): Promise<boolean> {
  const unknown = new Map<Partition, Micros>()
  const slack = log.hasManyAppenders ? clockDifferenceMax : 0
  for (const [partition, marked] of receivedAt) {
    const at = marked + slack
    const offset = position.get(partition) ?? 0
    if (offset === 0) continue
    const known =
      place.position.get(partition) === offset ? place.receivedAt.get(partition) : ring.newestBefore(partition, offset)
    if (known === undefined) unknown.set(partition, at)
    else if (known > at) return false
  }
  return unknown.size === 0 || isOfLog(position, unknown, log, gone)
}

async function isOfLog(
  position: LogPosition,
  receivedAt: Map<Partition, Micros>,
  log: Known['log'],
  gone: AbortSignal,
): Promise<boolean> {
  const beginning = await log.beginning('readings')
  const from = new Map(await log.end('readings'))
  for (const partition of [...receivedAt.keys()]) {
    const before = position.get(partition)! - 1
    // What retention has taken can't be asked; a place before it is refused by the log itself.
    if (before < (beginning.get(partition) ?? 0)) receivedAt.delete(partition)
    else from.set(partition, before)
  }
  if (receivedAt.size === 0) return true
  for await (const chunks of log.tail('readings', from, gone)) {
    for (const chunk of chunks) {
      const at = receivedAt.get(chunk.partition)
      if (at === undefined) continue
      if (chunk.offset === from.get(chunk.partition) && chunk.receivedAt > at) return false
      // Where the log goes on further on, there is nothing to ask at that place.
      receivedAt.delete(chunk.partition)
    }
    if (receivedAt.size === 0) break
  }
  return true
}
