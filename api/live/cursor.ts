// Where a viewer stands, as text that it gives back to resume. Opaque outside; inside it is the log position just past what was sent, and the
// newest receivedAt of that, so that a gap can name where it begins.
import type { LogPosition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'

export interface LiveCursor {
  readonly position: LogPosition
  /** 0: nothing was sent yet. */
  readonly receivedAt: Micros
}

export const cursorLengthMax = 4_096

export function encodeCursor({ position, receivedAt }: LiveCursor): string {
  const places = [...position].map(([partition, offset]) => `${partition}.${offset}`)
  return `l1~${receivedAt}~${places.join('_')}`
}

/** undefined: not a cursor of ours. */
export function decodeCursor(text: string): LiveCursor | undefined {
  const match = /^l1~(\d{1,16})~((?:\d{1,5}\.\d{1,16})(?:_\d{1,5}\.\d{1,16})*)?$/.exec(text)
  if (!match || text.length > cursorLengthMax) return undefined
  const position = new Map<number, number>()
  for (const place of match[2]?.split('_') ?? []) {
    const [partition, offset] = place.split('.').map(Number) as [number, number]
    position.set(partition, offset)
  }
  return { position, receivedAt: Number(match[1]) }
}

/** Whether `a` has come at least as far as `b` in every partition. */
export function hasReached(a: LogPosition, b: LogPosition): boolean {
  for (const [partition, offset] of b) if ((a.get(partition) ?? 0) < offset) return false
  return true
}
