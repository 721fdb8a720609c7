// Brings one viewer from where it asks to begin to where the hub stands: the table up to the writer's committed place, then the ring or the log, at the
// pace of its socket. What can't be given is a gap with its cause and bounds.
//
//   an instant ───────────────────▶ table by observedAt ─┐
//   a cursor, the log reaches back ─────────────────────┐│
//   a cursor older than the log ──▶ table by receivedAt ─┴┴▶ ring or log ──▶ the hub's place
import { setTimeout as wait } from 'node:timers/promises'
import type { EventLog, LogPosition, Partition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import type { Clock } from '../../runtime/clock.ts'
import { OffsetOutOfRangeError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { toMillis } from '../instant.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { ItemMaker, Subscription } from './channel.ts'
import type { ChunkRing } from './chunk-ring.ts'
import { encodeCursor, hasReached, type LiveCursor } from './cursor.ts'
import { isOfThisLog } from './cursor-origin.ts'
import { LiveFrame, type LiveItem } from './frame.ts'
import { frameMs } from './frame-pace.ts'
import {
  encodeHistoryCursor,
  findSeam,
  type HistoryCursor,
  isAfter,
  isBeforeSeam,
  past,
  type Seam,
  upToAnotherSeam,
} from './history.ts'
import type { LastValues } from './last-values.ts'
import { LogPages } from './log-pages.ts'
import { earliestOf, lostAfter, lostBeforeSeam, lostBetween } from './lost.ts'
import { OwnFrames, type OwnFramesOptions } from './own-frames.ts'
import { noSeries } from './series-directory.ts'
import { TablePages, type TablePagesOptions } from './table-pages.ts'
import type { Viewer } from './viewer.ts'

/** From now, after a cursor of live or of history, or from an instant by observedAt on. */
export type LiveStart = 'now' | LiveCursor | HistoryCursor | { readonly instant: Micros }

export interface CatchUpOptions extends TablePagesOptions {
  readonly log: EventLog
  readonly lastValues: LastValues
  readonly items: ItemMaker
  readonly ring: ChunkRing
  readonly clock: Clock
  readonly logger: Logger
  /** Age at which readings leave the table; undefined: never. */
  readonly retentionMs: number | undefined
  /** How long the table may be away before what it would have given is declared a gap. */
  readonly patienceMs: number
  readonly place: () => LiveCursor
  /** Resolves once the hub has a place, or the viewer is gone. */
  readonly begun: (gone: AbortSignal) => Promise<void>
  /** The viewer has come as far as the hub, or further. */
  readonly meet: (viewer: Viewer, frames: OwnFrames) => void
}

const retryMs = 250
/** A reader of the log may be a moment behind one that a viewer knew before. */
const endPatienceMs = 2_000

export class CatchUp {
  private readonly options: CatchUpOptions
  private readonly pages: TablePages
  private readonly logPages: LogPages
  private endAsked: Promise<LogPosition> | undefined

  constructor(options: CatchUpOptions) {
    this.options = options
    this.pages = new TablePages(options)
    this.logPages = new LogPages(options)
  }

  async run(viewer: Viewer, subscription: Subscription, since: LiveStart): Promise<void> {
    const { log, place, begun } = this.options
    await begun(viewer.gone)
    if (viewer.gone.aborted) return
    if (since !== 'now' && 'instant' in since) {
      const seam = await findSeam(log, this.options.clock, viewer.gone)
      this.declareTableRetention(viewer, since.instant, encodeCursor(seamCursor(seam)))
      return this.readTable(viewer, subscription, { by: 'observed', since: since.instant, after: undefined, seam })
    }
    // In this order: what is appended in between is beyond the end, so at worst it is told again.
    if (subscription.mode === 'latest') await this.whole(viewer.gone)
    const marks = this.receivedMarks()
    const end = await log.end('readings')
    if (viewer.gone.aborted) return
    if (since === 'now') {
      // The later of both in each partition. The hub stands at the end but for a moment; after a start it may have to read much first, which nobody asked for.
      const hub = place()
      const position = new Map(end)
      for (const [partition, offset] of hub.position)
        if (offset > (position.get(partition) ?? 0)) position.set(partition, offset)
      const receivedAt = new Map(marks)
      for (const [partition, at] of hub.receivedAt)
        if (hub.position.get(partition) === position.get(partition)) receivedAt.set(partition, at)
      return this.meet(viewer, this.framesFrom(subscription, { position, receivedAt }))
    }
    const position = 'seam' in since ? since.seam.place : since.position
    if (!hasReached(end, position) && !(await this.endReaches(position, viewer.gone))) {
      if (viewer.gone.aborted) return
      const cursor = { position: await log.end('readings'), receivedAt: marks }
      viewer.gap({ cause: 'unknown-cursor', ...lostAfter(since, this.options) }, encodeCursor(cursor))
      return this.meet(viewer, this.framesFrom(subscription, cursor))
    }
    if (!(await this.isOfThisLog(since, viewer.gone))) return this.resumeFromElsewhere(viewer, subscription, since)
    if ('seam' in since) return this.readTable(viewer, subscription, since)
    return this.readUpToHub(viewer, subscription, this.framesFrom(subscription, since, { isResumed: true }))
  }

  /** A log that can't be asked says so when it is read. */
  private async isOfThisLog(since: LiveCursor | HistoryCursor, gone: AbortSignal): Promise<boolean> {
    const { log, ring, place } = this.options
    const cursor = 'seam' in since ? seamCursor(since.seam) : since
    return isOfThisLog(cursor, { log, ring, place: place() }, gone).catch(() => true)
  }

  /** The log does not know the cursor's places; the table goes on from its instants. */
  private async resumeFromElsewhere(
    viewer: Viewer,
    subscription: Subscription,
    since: LiveCursor | HistoryCursor,
  ): Promise<void> {
    const { log, place } = this.options
    if (viewer.gone.aborted) return
    if ('seam' in since) {
      const seam = await findSeam(log, this.options.clock, viewer.gone)
      return this.readTable(viewer, subscription, upToAnotherSeam(since, seam, subscription.tenant))
    }
    const older = await this.placeInTable(since, viewer.gone)
    if (viewer.gone.aborted) return
    if (older) {
      this.declareTableRetention(viewer, earliestOf(older.past), encodeCursor(seamCursor(older.seam)))
      // Its places are those of the other log.
      return this.readTable(viewer, subscription, { ...older, from: undefined })
    }
    const hub = place()
    viewer.gap({ cause: 'unknown-cursor', ...lostAfter(since, this.options) }, encodeCursor(hub))
    return this.meet(viewer, this.framesFrom(subscription, hub))
  }

  private framesFrom(subscription: Subscription, cursor: LiveCursor, how?: OwnFramesOptions): OwnFrames {
    return new OwnFrames(subscription, cursor, this.options, how)
  }

  /** `latest` begins when it is known what is: the table says so within a moment of the start, or is away. */
  private async whole(gone: AbortSignal): Promise<void> {
    const until = performance.now() + this.options.patienceMs
    while (!this.options.lastValues.isWhole && !gone.aborted && performance.now() < until)
      await wait(frameMs, undefined, { signal: gone }).catch(() => {})
  }

  private receivedMarks(): Map<Partition, Micros> {
    const { log } = this.options
    const marks = new Map<Partition, Micros>()
    for (let partition = 0; partition < log.partitions; partition++) {
      const receivedAt = log.receivedAtMax('readings', partition)
      if (receivedAt > 0) marks.set(partition, receivedAt)
    }
    return marks
  }

  private async endReaches(position: LogPosition, gone: AbortSignal): Promise<boolean> {
    // Of a log with more partitions than this one: no waiting brings them.
    for (const partition of position.keys()) if (partition >= this.options.log.partitions) return false
    const until = performance.now() + endPatienceMs
    while (!gone.aborted && performance.now() < until) {
      await wait(retryMs / 5, undefined, { signal: gone }).catch(() => {})
      if (hasReached(await this.endSoon(), position)) return true
    }
    return false
  }

  /** The log's end, asked once for all who wait for it. */
  private endSoon(): Promise<LogPosition> {
    this.endAsked ??= this.options.log.end('readings').finally(() => {
      this.endAsked = undefined
    })
    return this.endAsked
  }

  /** The table up to the seam, then the log. */
  private async readTable(viewer: Viewer, subscription: Subscription, from: HistoryCursor): Promise<void> {
    const { logger } = this.options
    const live = seamCursor(from.seam)
    const how: OwnFramesOptions =
      from.by === 'observed'
        ? { observedFrom: from.since, isResumed: from.after !== undefined }
        : { isResumed: true, sentUpTo: new Map(from.past.entries()) }
    const frames = this.framesFrom(subscription, live, how)
    // What it gathers goes out when all is read; who is cut off before begins here again.
    if (from.by === 'received') frames.startsFrom(encodeHistoryCursor(from))
    let cursor = from
    try {
      for await (const rows of this.pages.pieces(subscription, from, viewer.gone)) {
        const wanted = rows.filter((row) => isWanted(from, subscription, row))
        for (const frame of this.historyFrames(subscription, wanted, cursor, frames)) {
          viewer.send(frame)
          await viewer.writable()
          if (viewer.gone.aborted) return
        }
        if (viewer.gone.aborted) return
        cursor = past(cursor, rows.at(-1)!)
      }
      if (viewer.gone.aborted) return
    } catch (error) {
      if (viewer.gone.aborted) return
      logger.warn({ error }, 'the table could not be read for a viewer')
      // What `latest` has gathered so far follows the gap: who is cut off between the two is to have it all the same.
      const gathered = frames.flush()
      const place = gathered.length > 0 ? encodeHistoryCursor(from) : encodeCursor(live)
      viewer.gap({ cause: 'store-away', ...lostBeforeSeam(cursor, this.options) }, place)
      for (const frame of gathered) viewer.send(frame)
    }
    return this.readUpToHub(viewer, subscription, frames)
  }

  /** By observedAt each series rises; by receivedAt there are late readings among them, which go out as they would have from the log. */
  private historyFrames(
    { tenant, mode }: Subscription,
    rows: readonly ReadingRow[],
    cursor: HistoryCursor,
    frames: OwnFrames,
  ): LiveFrame[] {
    const { lastValues, items } = this.options
    const made: LiveFrame[] = []
    let told: LiveItem[] = []
    const flush = (row: ReadingRow | undefined): void => {
      if (told.length > 0 && row) made.push(LiveFrame.readings(encodeHistoryCursor(past(cursor, row)), told))
      told = []
    }
    rows.forEach((row, index) => {
      const { device, metric, observedMicros } = row
      const value = row.value ?? row.text
      const id = lastValues.identifyNamed(tenant, device, metric)
      if (id === noSeries) told.push(items.unknown(device, metric, observedMicros, value))
      else if (cursor.by === 'received' && mode === 'latest') frames.gather(id, observedMicros, value)
      else if (cursor.by === 'received' && !frames.isNewest(id, observedMicros)) {
        flush(rows[index - 1])
        const revised = items.revised(id, {
          observedAt: observedMicros,
          value,
          from: observedMicros,
          to: observedMicros,
        })
        made.push(LiveFrame.revision(encodeHistoryCursor(past(cursor, row)), revised))
      } else {
        frames.note(id, observedMicros, value)
        told.push(items.make(id, observedMicros, value))
      }
    })
    flush(rows.at(-1))
    return made
  }

  /** Everything from where the frames stand until the hub's place, paced by the socket. */
  private async readUpToHub(viewer: Viewer, subscription: Subscription, frames: OwnFrames): Promise<void> {
    const { place, logger } = this.options
    if (hasReached(frames.cursor.position, place().position)) return this.meet(viewer, frames)
    try {
      for await (const chunks of this.logPages.chunks(frames, viewer.gone)) {
        for (const frame of frames.take(chunks)) {
          viewer.send(frame)
          await viewer.writable()
          if (viewer.gone.aborted) return
        }
        // Met in the same turn in which it is seen: the hub goes on as soon as this function waits for anything.
        if (hasReached(frames.cursor.position, place().position)) return this.meet(viewer, frames)
      }
    } catch (error) {
      if (viewer.gone.aborted) return
      const isPast = error instanceof OffsetOutOfRangeError
      // What `latest` has gathered lies before what can't be read: it would be lost with these frames, or behind a gap that does not speak of it.
      for (const frame of frames.flush()) viewer.send(frame)
      if (isPast) {
        const older = await this.placeInTable(frames.cursor, viewer.gone)
        if (viewer.gone.aborted) return
        if (older) {
          this.declareTableRetention(viewer, earliestOf(older.past), encodeCursor(seamCursor(older.seam)))
          return this.readTable(viewer, subscription, older)
        }
      } else logger.warn({ error }, 'the log could not be read for a viewer')
      const hub = place()
      const lost = lostBetween(frames.cursor, hub, this.options)
      viewer.gap({ cause: isPast ? 'log-retention' : 'log-unreadable', ...lost }, encodeCursor(hub))
      frames.cursor = hub
      this.meet(viewer, frames)
    }
  }

  /** Where the table goes on after this cursor; undefined: the cursor does not say what was received before it. */
  private async placeInTable(
    cursor: LiveCursor,
    gone: AbortSignal,
  ): Promise<Extract<HistoryCursor, { by: 'received' }> | undefined> {
    const { log } = this.options
    const past: Micros[] = []
    const within = new Set<Partition>()
    for (let partition = 0; partition < log.partitions; partition++) {
      const receivedAt = cursor.receivedAt.get(partition) ?? 0
      if (receivedAt === 0 && (cursor.position.get(partition) ?? 0) > 0) return undefined
      past.push(receivedAt)
      if ((cursor.within?.get(partition) ?? 0) > 0) within.add(partition)
    }
    return {
      by: 'received',
      past,
      from: cursor.position,
      within,
      after: undefined,
      seam: await findSeam(log, this.options.clock, gone),
    }
  }

  private declareTableRetention(viewer: Viewer, from: Micros, cursor: string): void {
    const { retentionMs, clock } = this.options
    if (retentionMs === undefined) return
    const kept = clock.nowMicros() - retentionMs * 1000
    if (from >= kept) return
    viewer.gap({ cause: 'table-retention', from: toMillis(from), to: toMillis(kept), by: 'observedAt' }, cursor)
  }

  private meet(viewer: Viewer, frames: OwnFrames): void {
    if (!viewer.gone.aborted) this.options.meet(viewer, frames)
  }
}

function isWanted(from: HistoryCursor, { tenant }: Subscription, row: ReadingRow): boolean {
  return isBeforeSeam(from.seam, tenant, row) && (from.by === 'observed' || isAfter(from, tenant, row))
}

function seamCursor({ place, receivedBefore }: Seam): LiveCursor {
  const receivedAt = new Map<Partition, Micros>()
  receivedBefore.forEach((before, partition) => {
    if (before > 1) receivedAt.set(partition, before - 1)
  })
  return { position: place, receivedAt }
}
