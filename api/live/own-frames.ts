// What one viewer gets out of chunks that only it reads, while it catches up: frames in log order, each with the cursor just past it. Remembers the
// newest that it made of each series, so that what is older is a revision.
import type { Chunk } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import { frameLengthMax, framesOf, type ItemMaker, matchesSeries, type Subscription } from './channel.ts'
import { cursorAfter, cursorWithin, encodeCursor, type LiveCursor, rowsSent } from './cursor.ts'
import { LiveFrame, type LiveItem } from './frame.ts'
import { type LastValues, type LateReadings, widen } from './last-values.ts'
import { noSeries } from './series-directory.ts'

export interface NewestSent {
  readonly observedAt: Micros
  readonly value: number | string
}

/** The series of this run of rows was not looked up yet. */
const notAsked = noSeries - 1

/** Walks the rows of a chunk that a viewer asked for, but for the chunk's first that it has had. */
class WantedRows {
  readonly row: RowCursor
  /** Of the row's series. */
  id = notAsked
  /** Of the chunk, up to this one. */
  rows = 0
  private readonly chunk: Chunk
  private readonly sent: number
  private readonly observedFrom: Micros
  private readonly wanted: (chunk: Chunk, row: RowCursor) => number

  /** `wanted` is asked once for rows of one series that stand together. */
  constructor(chunk: Chunk, sent: number, observedFrom: Micros, wanted: (chunk: Chunk, row: RowCursor) => number) {
    this.row = new RowCursor(chunk.rows)
    this.chunk = chunk
    this.sent = sent
    this.observedFrom = observedFrom
    this.wanted = wanted
  }

  next(): boolean {
    const { row } = this
    while (row.next()) {
      this.rows++
      if (!row.isSameSeries) this.id = notAsked
      if (this.rows <= this.sent || row.observedAt < this.observedFrom) continue
      if (this.id === notAsked) this.id = this.wanted(this.chunk, row)
      if (this.id !== noSeries) return true
    }
    return false
  }
}

export class OwnFrames {
  /** Just past the last chunk that was taken. */
  cursor: LiveCursor
  /** By series. */
  readonly newest = new Map<number, NewestSent>()
  readonly subscription: Subscription
  private readonly lastValues: LastValues
  private readonly items: ItemMaker
  /** Readings observed before this were not asked for. */
  private readonly observedFrom: Micros
  private readonly matches = new Map<number, boolean>()

  constructor(
    subscription: Subscription,
    cursor: LiveCursor,
    made: { readonly lastValues: LastValues; readonly items: ItemMaker },
    observedFrom: Micros = 0,
  ) {
    this.subscription = subscription
    this.cursor = cursor
    this.lastValues = made.lastValues
    this.items = made.items
    this.observedFrom = observedFrom
  }

  /** A reading of history was sent. */
  note(id: number, observedAt: Micros, value: number | string): void {
    const known = this.newest.get(id)
    if (!known || observedAt >= known.observedAt) this.newest.set(id, { observedAt, value })
  }

  /** It makes no more frames, and may be held for as long as its viewer is there. */
  forget(): void {
    this.newest.clear()
    this.matches.clear()
  }

  /** Of the next chunks, those it has had left out. */
  take(chunks: readonly Chunk[]): LiveFrame[] {
    const fresh = chunks.filter(({ partition, offset }) => offset >= (this.cursor.position.get(partition) ?? 0))
    if (fresh.length === 0) return []
    return this.subscription.mode === 'every' ? fresh.flatMap((chunk) => this.every(chunk)) : this.latest(fresh)
  }

  private every(chunk: Chunk): LiveFrame[] {
    const before = this.cursor
    const frames: LiveFrame[] = []
    let items: LiveItem[] = []
    let length = 0
    const flush = (past: number): void => {
      if (items.length === 0) return
      frames.push(LiveFrame.readings(encodeCursor(cursorWithin(chunk, past, before)), items))
      items = []
      length = 0
    }
    const wanted = this.wantedRows(chunk)
    const { row } = wanted
    while (wanted.next()) {
      const { id, rows } = wanted
      const { observedAt } = row
      const value = row.said()
      const known = this.newest.get(id)
      const item = this.items.make(id, observedAt, value)
      if (!known || observedAt > known.observedAt || (observedAt === known.observedAt && value === known.value)) {
        this.newest.set(id, { observedAt, value })
        items.push(item)
        length += item.length
        if (length >= frameLengthMax) flush(rows)
        continue
      }
      if (observedAt === known.observedAt) this.newest.set(id, { observedAt, value })
      flush(rows - 1)
      const revised = this.items.revised(id, { observedAt, value, from: observedAt, to: observedAt })
      frames.push(LiveFrame.revision(encodeCursor(cursorWithin(chunk, rows, before)), revised))
    }
    flush(chunk.count)
    this.cursor = cursorAfter([chunk], before)
    return frames
  }

  /** One frame for all of them, with the newest of each series. */
  private latest(chunks: readonly Chunk[]): LiveFrame[] {
    const before = this.cursor
    const changed = new Map<number, NewestSent>()
    const late = new Map<number, LateReadings>()
    for (const chunk of chunks) {
      const wanted = this.wantedRows(chunk)
      const { row } = wanted
      while (wanted.next()) {
        const { id } = wanted
        const { observedAt } = row
        const known = this.newest.get(id)
        if (known && observedAt <= known.observedAt) {
          const value = row.said()
          if (observedAt < known.observedAt || value !== known.value) widen(late, id, observedAt, value)
          continue
        }
        const newest = changed.get(id)
        if (!newest || observedAt >= newest.observedAt) changed.set(id, { observedAt, value: row.said() })
      }
    }
    for (const [id, { observedAt, value }] of late) {
      if (observedAt === this.newest.get(id)?.observedAt) this.newest.set(id, { observedAt, value })
    }
    for (const [id, newest] of changed) this.newest.set(id, newest)
    this.cursor = cursorAfter(chunks, before)
    const revisions = [...late].map(([id, each]) => this.items.revised(id, each))
    const items = [...changed].map(([id, { observedAt, value }]) => this.items.make(id, observedAt, value))
    return framesOf(encodeCursor(before), encodeCursor(this.cursor), revisions, items)
  }

  private wantedRows(chunk: Chunk): WantedRows {
    return new WantedRows(chunk, rowsSent(this.cursor, chunk), this.observedFrom, this.wanted)
  }

  /** The series of the row, or `noSeries` when nobody asked for it. */
  private readonly wanted = (chunk: Chunk, row: RowCursor): number => {
    const id = this.lastValues.identify(chunk.rows, row)
    if (id === noSeries) return noSeries
    let isMatch = this.matches.get(id)
    if (isMatch === undefined) {
      isMatch = matchesSeries(this.subscription, this.lastValues.namesOf(id))
      this.matches.set(id, isMatch)
    }
    return isMatch ? id : noSeries
  }
}
