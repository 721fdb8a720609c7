// What one viewer gets out of chunks that only it reads, while it catches up: frames in log order, each with the cursor just past it. Remembers the
// newest that it made of each series, so that what is older is a revision. `latest` gathers, as the hub does: the newest of a series goes out at most
// twenty times a second, and what is not the newest any more not at all, so that a viewer never sees a series go back.
import { type Chunk, type EventLog, type Partition, partitionOf } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import { frameLengthMax, framesOf, type ItemMaker, matchesSeries, type Subscription } from './channel.ts'
import { cursorAfter, cursorWithin, encodeCursor, type LiveCursor, rowsSent } from './cursor.ts'
import { LiveFrame, type LiveItem, type Revised } from './frame.ts'
import { frameMs } from './frame-pace.ts'
import { type LastValues, type LateReadings, widen } from './last-values.ts'
import { noSeries } from './series-directory.ts'

export interface NewestSent {
  readonly observedAt: Micros
  readonly value: number | string
}

export interface OwnFramesOptions {
  readonly observedFrom?: Micros
  /** The viewer was here before. */
  readonly isResumed?: boolean
  /** By partition, if not as the cursor says: what was received up to here was sent. */
  readonly sentUpTo?: ReadonlyMap<Partition, Micros>
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
  private readonly partitions: number
  /** Readings observed before this were not asked for. */
  private readonly observedFrom: Micros
  private readonly matches = new Map<number, boolean>()
  /** By partition: what was received up to here, a viewer that comes back was sent. */
  private readonly sentUpTo: ReadonlyMap<Partition, Micros>
  readonly isResumed: boolean
  /** Of `latest`, by series: gathered since the last frame. */
  private readonly changed = new Map<number, NewestSent>()
  private readonly late = new Map<number, LateReadings>()
  /** Of `latest`, series of a viewer that came back of which it may have been sent newer ones. */
  private readonly unsure = new Set<number>()
  /** Where the last frame of `latest` ended. */
  private flushedCursor: string
  private flushedAtMs = 0

  constructor(
    subscription: Subscription,
    cursor: LiveCursor,
    made: { readonly lastValues: LastValues; readonly items: ItemMaker; readonly log: Pick<EventLog, 'partitions'> },
    { observedFrom = 0, isResumed = false, sentUpTo = cursor.receivedAt }: OwnFramesOptions = {},
  ) {
    this.subscription = subscription
    this.cursor = cursor
    this.lastValues = made.lastValues
    this.items = made.items
    this.partitions = made.log.partitions
    this.observedFrom = observedFrom
    this.sentUpTo = sentUpTo
    this.isResumed = isResumed
    this.flushedCursor = encodeCursor(cursor)
  }

  /** A reading of history was sent. */
  note(id: number, observedAt: Micros, value: number | string): void {
    const known = this.newest.get(id)
    if (!known || observedAt >= known.observedAt) this.newest.set(id, { observedAt, value })
  }

  /** Whether nothing newer was sent of its series. */
  isNewest(id: number, observedAt: Micros): boolean {
    const known = this.newestOf(id)
    return !known || observedAt > known.observedAt
  }

  /** It makes no more frames, and may be held for as long as its viewer is there. */
  forget(): void {
    this.newest.clear()
    this.matches.clear()
    this.unsure.clear()
  }

  /** Of the next chunks, those it has had left out. In `latest` they are gathered, and due now and then. */
  take(chunks: readonly Chunk[]): LiveFrame[] {
    const fresh = chunks.filter(({ partition, offset }) => offset >= (this.cursor.position.get(partition) ?? 0))
    if (fresh.length === 0) return []
    if (this.subscription.mode === 'every') return fresh.flatMap((chunk) => this.every(chunk))
    for (const chunk of fresh) this.gatherChunk(chunk)
    return performance.now() - this.flushedAtMs < frameMs ? [] : this.flush()
  }

  /** A reading of `latest` that is yet to go out, in the order of the log. */
  gather(id: number, observedAt: Micros, value: number | string): void {
    const known = this.changed.get(id) ?? this.newestOf(id)
    if (!known || observedAt > known.observedAt) {
      this.changed.set(id, { observedAt, value })
      if (!known && this.isResumed) this.unsure.add(id)
      if (this.unsure.has(id)) this.doubt(id, observedAt, value)
      return
    }
    if (observedAt === known.observedAt) {
      if (value === known.value) return
      if (this.changed.has(id)) {
        this.changed.set(id, { observedAt, value })
        return
      }
      this.newest.set(id, { observedAt, value })
    }
    widen(this.late, id, observedAt, value, observedAt === known.observedAt)
  }

  /** The series' newest came after the cursor, so what was sent before is not known: what was observed before the cursor's time may be late. */
  private doubt(id: number, observedAt: Micros, value: number | string): void {
    if (observedAt <= this.receivedMark(id)) widen(this.late, id, observedAt, value)
    else this.unsure.delete(id)
  }

  /** Where the viewer stands before the first frame, if not where the chunks begin. */
  startsFrom(cursor: string): void {
    this.flushedCursor = cursor
  }

  /** What was gathered, up to the cursor. */
  flush(): LiveFrame[] {
    const { lastValues, items } = this
    if (this.changed.size === 0 && this.late.size === 0) return []
    const told: LiveItem[] = []
    // What is known to be newer lies ahead.
    const isTold = (id: number, { observedAt }: NewestSent): boolean => observedAt >= lastValues.observedAtOf(id)
    for (const [id, newest] of this.changed) {
      this.newest.set(id, newest)
      if (isTold(id, newest)) told.push(items.make(id, newest.observedAt, newest.value))
    }
    const revisions: Revised[] = []
    for (const [id, each] of this.late) {
      const newest = this.changed.get(id)
      // What is told as the newest is told as it is now; by itself it is no revision.
      if (newest?.observedAt !== each.observedAt) revisions.push(items.revised(id, each))
      else if (each.from < each.to || !isTold(id, newest))
        revisions.push(items.revised(id, { ...each, value: newest.value }))
    }
    this.changed.clear()
    this.late.clear()
    const before = this.flushedCursor
    this.flushedCursor = encodeCursor(this.cursor)
    this.flushedAtMs = performance.now()
    return framesOf(before, this.flushedCursor, revisions, told)
  }

  private every(chunk: Chunk): LiveFrame[] {
    const before = this.cursor
    const frames: LiveFrame[] = []
    let items: LiveItem[] = []
    let length = 0
    const flush = (past: number, received: Micros): void => {
      if (items.length === 0) return
      frames.push(LiveFrame.readings(encodeCursor(cursorWithin(chunk, past, before, received)), items))
      items = []
      length = 0
    }
    const wanted = this.wantedRows(chunk)
    const { row } = wanted
    while (wanted.next()) {
      const { id, rows } = wanted
      const { observedAt, receivedAt } = row
      const value = row.said()
      const known = this.newestOf(id)
      const item = this.items.make(id, observedAt, value)
      if (!known || observedAt > known.observedAt || (observedAt === known.observedAt && value === known.value)) {
        this.newest.set(id, { observedAt, value })
        items.push(item)
        length += item.length
        if (length >= frameLengthMax) flush(rows, receivedAt)
        continue
      }
      if (observedAt === known.observedAt) this.newest.set(id, { observedAt, value })
      // Within a partition each row is received after the one before it.
      flush(rows - 1, receivedAt - 1)
      const revised = this.items.revised(id, { observedAt, value, from: observedAt, to: observedAt })
      frames.push(LiveFrame.revision(encodeCursor(cursorWithin(chunk, rows, before, receivedAt)), revised))
    }
    flush(chunk.count, chunk.receivedAt)
    this.cursor = cursorAfter([chunk], before)
    return frames
  }

  private gatherChunk(chunk: Chunk): void {
    const wanted = this.wantedRows(chunk)
    while (wanted.next()) this.gather(wanted.id, wanted.row.observedAt, wanted.row.said())
    this.cursor = cursorAfter([chunk], this.cursor)
  }

  /** The newest that the viewer was sent. Who comes back had what was received before its cursor; in `latest` everybody is told of no older one. */
  private newestOf(id: number): NewestSent | undefined {
    const known = this.newest.get(id)
    if (known || !(this.isResumed || this.subscription.mode === 'latest')) return known
    const { lastValues } = this
    if (!lastValues.hasValue(id) || lastValues.receivedAtOf(id) > this.receivedMark(id)) return undefined
    const { observedAt, value } = lastValues.last(id)
    this.newest.set(id, { observedAt, value })
    return this.newest.get(id)
  }

  /** What was received up to here lies before the place where it began. -Infinity: not known. */
  private receivedMark(id: number): Micros {
    const { tenant, device } = this.lastValues.namesOf(id)
    return this.sentUpTo.get(partitionOf(tenant, device, this.partitions)) ?? Number.NEGATIVE_INFINITY
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
