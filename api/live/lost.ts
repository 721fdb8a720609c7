// Between which instants readings lie that a viewer can't be given: what a gap says, as tight as is known, and on whose clock.
import { futureMsMax, type Micros } from '../../domain/reading.ts'
import type { Clock } from '../../runtime/clock.ts'
import { toMillis } from '../instant.ts'
import type { LiveGap } from '../wire.ts'
import type { LiveCursor } from './cursor.ts'
import type { HistoryCursor } from './history.ts'
import type { LastValues } from './last-values.ts'

interface Known {
  readonly clock: Clock
  readonly lastValues: LastValues
}

type Bounds = Pick<LiveGap, 'from' | 'to' | 'by'>

/** What of the table a viewer is yet to be given: it was received before the seam. */
export function lostBeforeSeam(cursor: HistoryCursor, { clock, lastValues }: Known): Bounds {
  if (cursor.by === 'received') {
    const from = cursor.after?.receivedAt ?? earliestOf(cursor.past)
    return { from: toMillis(from), to: toMillis(Math.max(...cursor.seam.receivedBefore)), by: 'receivedAt' }
  }
  const now = clock.nowMicros()
  // A device's clock may run ahead of ours.
  const to = lastValues.isWhole ? Math.max(now, lastValues.observedAtMax()) : now + futureMsMax * 1000
  return { from: toMillis(cursor.after?.observedAt ?? cursor.since), to: toMillis(to), by: 'observedAt' }
}

/** Whose cursor is of no use. */
export function lostAfter(cursor: LiveCursor | HistoryCursor, { clock }: Known): Bounds {
  const now = toMillis(clock.nowMicros())
  if (!('seam' in cursor)) return { from: earliest(cursor.receivedAt.values()), to: now, by: 'receivedAt' }
  if (cursor.by === 'received') return { from: earliest(cursor.past.filter((at) => at > 0)), to: now, by: 'receivedAt' }
  return {
    from: toMillis(cursor.since),
    to: toMillis(clock.nowMicros() + futureMsMax * 1000),
    by: 'observedAt',
  }
}

/** What the log has between these places. A partition in which there is nothing bounds nothing. */
export function lostBetween(cursor: LiveCursor, hub: LiveCursor, { clock }: Known): Bounds {
  const passed = [...hub.position].filter(([partition, offset]) => offset > (cursor.position.get(partition) ?? 0))
  const known = (of: LiveCursor): (Micros | undefined)[] => passed.map(([partition]) => of.receivedAt.get(partition))
  const [after, until] = [known(cursor), known(hub)]
  const to = until.includes(undefined) || until.length === 0 ? clock.nowMicros() : Math.max(...(until as Micros[]))
  const from = after.includes(undefined) ? null : earliest(after as Micros[])
  return { from, to: toMillis(to), by: 'receivedAt' }
}

/** Of places in a table by partition. In a partition of which nothing was received yet (0) nothing was lost either, unless it is so in all. */
export function earliestOf(past: readonly Micros[]): Micros {
  const known = past.filter((receivedAt) => receivedAt > 0)
  return known.length > 0 ? Math.min(...known) : 0
}

function earliest(instants: Iterable<Micros>): number | null {
  const all = [...instants]
  return all.length === 0 ? null : toMillis(Math.min(...all))
}
