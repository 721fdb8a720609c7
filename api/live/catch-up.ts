// Brings one viewer from where it asks to begin to where the hub stands: the table up to the writer's committed place, then the ring or the log, at the
// pace of its socket. What can't be given is a gap with its cause and bounds.
//
//   an instant ───────────────────▶ table by observedAt ─┐
//   a cursor, the log reaches back ─────────────────────┐│
//   a cursor older than the log ──▶ table by receivedAt ─┴┴▶ ring or log ──▶ the hub's place
import { setTimeout as wait } from 'node:timers/promises'
import type { Chunk, EventLog, LogPosition, Partition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import type { Clock } from '../../runtime/clock.ts'
import { OffsetOutOfRangeError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { toMillis } from '../instant.ts'
import { isWithoutTables } from '../queries/question.ts'
import type { ReadingKey, ReadingRow } from '../queries/readings.ts'
import type { ReceivedKey } from '../queries/received-readings.ts'
import type { LiveGap } from '../wire.ts'
import type { ItemMaker, Subscription } from './channel.ts'
import type { ChunkRing } from './chunk-ring.ts'
import { encodeCursor, hasReached, type LiveCursor } from './cursor.ts'
import { isOfThisLog } from './cursor-origin.ts'
import { LiveFrame } from './frame.ts'
import {
  encodeHistoryCursor,
  findSeam,
  type HistoryCursor,
  isBeforeSeam,
  isReceivedAfter,
  type Seam,
} from './history.ts'
import type { LastValues } from './last-values.ts'
import { OwnFrames } from './own-frames.ts'
import { noSeries } from './series-directory.ts'
import type { Viewer } from './viewer.ts'

/** A page of the table's readings, by observedAt, device and metric. */
export type AskHistory = (
  question: Subscription & { readonly from: Micros; readonly after: ReadingKey | undefined; readonly limit: number },
  signal: AbortSignal,
) => Promise<readonly ReadingRow[]>

/** A page of the table's readings that were received after an instant, by receivedAt. */
export type AskReceived = (
  question: Subscription & { readonly past: Micros; readonly after: ReceivedKey | undefined; readonly limit: number },
  signal: AbortSignal,
) => Promise<readonly ReadingRow[]>

/** From now, after a cursor of live or of history, or from an instant by observedAt on. */
export type LiveStart = 'now' | LiveCursor | HistoryCursor | { readonly instant: Micros }

export interface CatchUpOptions {
  readonly log: EventLog
  readonly history: AskHistory
  readonly received: AskReceived
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

const historyPage = 2_000
/** Pages by receivedAt cost a look at all of a series each. */
const receivedPage = 20_000
/** Items of one frame out of the table. */
const historyItemsMax = 2_000
const ringBytesAtOnce = 1024 * 1024
const retryMs = 250
/** A reader of the log may be a moment behind one that a viewer knew before. */
const endPatienceMs = 2_000

export class CatchUp {
  private readonly options: CatchUpOptions
  private turns: Promise<void> = Promise.resolve()

  constructor(options: CatchUpOptions) {
    this.options = options
  }

  async run(viewer: Viewer, subscription: Subscription, since: LiveStart): Promise<void> {
    const { log, place, begun } = this.options
    await begun(viewer.gone)
    if (viewer.gone.aborted) return
    if (since !== 'now' && 'instant' in since) {
      const seam = await findSeam(log, viewer.gone)
      this.declareTableRetention(viewer, since.instant, encodeCursor(seamCursor(seam)))
      return this.readTable(viewer, subscription, { by: 'observed', since: since.instant, after: undefined, seam })
    }
    // In this order: what is appended in between is beyond the end, so at worst it is told again.
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
      const from = 'seam' in since ? undefined : since
      const cursor = { position: await log.end('readings'), receivedAt: marks }
      viewer.gap(this.gapAfter(from, 'unknown-cursor'), encodeCursor(cursor))
      return this.meet(viewer, this.framesFrom(subscription, cursor))
    }
    if (!(await this.isOfThisLog(since, viewer.gone))) return this.resumeFromElsewhere(viewer, subscription, since)
    if ('seam' in since) return this.readTable(viewer, subscription, since)
    return this.readUpToHub(viewer, subscription, this.framesFrom(subscription, since))
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
      const seam = await findSeam(log, viewer.gone)
      // What came between that seam and this one lies before readings that were sent, by the device's clock: all of it is told anew.
      const anew = since.by === 'observed' ? { ...since, seam, after: undefined } : { ...since, seam }
      return this.readTable(viewer, subscription, anew)
    }
    const older = await this.placeInTable(since, viewer.gone)
    if (viewer.gone.aborted) return
    if (older) {
      this.declareTableRetention(viewer, Math.min(...older.past), encodeCursor(seamCursor(older.seam)))
      return this.readTable(viewer, subscription, older)
    }
    const hub = place()
    viewer.gap(this.gapAfter(since, 'unknown-cursor'), encodeCursor(hub))
    return this.meet(viewer, this.framesFrom(subscription, hub))
  }

  private framesFrom(subscription: Subscription, cursor: LiveCursor, observedFrom: Micros = 0): OwnFrames {
    return new OwnFrames(subscription, cursor, this.options, observedFrom)
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
    const until = performance.now() + endPatienceMs
    while (!gone.aborted && performance.now() < until) {
      await wait(retryMs / 5, undefined, { signal: gone }).catch(() => {})
      if (hasReached(await this.options.log.end('readings'), position)) return true
    }
    return false
  }

  /** The table up to the seam, then the log. */
  private async readTable(viewer: Viewer, subscription: Subscription, from: HistoryCursor): Promise<void> {
    const { logger, clock } = this.options
    const live = seamCursor(from.seam)
    const frames = this.framesFrom(subscription, live, from.by === 'observed' ? from.since : 0)
    let cursor = from
    try {
      for (;;) {
        const rows = await this.page(viewer, subscription, cursor)
        if (viewer.gone.aborted) return
        const wanted = rows.filter((row) => isWanted(from, subscription, row))
        for (let start = 0; start < wanted.length; start += historyItemsMax) {
          const some = wanted.slice(start, start + historyItemsMax)
          const text = encodeHistoryCursor(past(cursor, some.at(-1)!))
          viewer.send(LiveFrame.readings(text, this.historyItems(subscription, some, frames)))
          await viewer.writable()
          if (viewer.gone.aborted) return
        }
        const last = rows.at(-1)
        if (last) cursor = past(cursor, last)
        if (rows.length < (from.by === 'observed' ? historyPage : receivedPage)) break
      }
    } catch (error) {
      if (viewer.gone.aborted) return
      logger.warn({ error }, 'the table could not be read for a viewer')
      const to = toMillis(clock.nowMicros())
      viewer.gap({ cause: 'store-away', from: gapFrom(cursor), to }, encodeCursor(live))
    }
    return this.readUpToHub(viewer, subscription, frames)
  }

  private page(viewer: Viewer, subscription: Subscription, cursor: HistoryCursor): Promise<readonly ReadingRow[]> {
    const { history, received } = this.options
    return this.patiently(viewer.gone, () =>
      cursor.by === 'observed'
        ? history({ ...subscription, from: cursor.since, after: cursor.after, limit: historyPage }, viewer.gone)
        : received(
            { ...subscription, past: Math.min(...cursor.past), after: cursor.after, limit: receivedPage },
            viewer.gone,
          ),
    )
  }

  /** A store that is started again is there within seconds. */
  private async patiently<Answer>(gone: AbortSignal, ask: () => Promise<Answer>): Promise<Answer> {
    const until = performance.now() + this.options.patienceMs
    for (;;) {
      try {
        return await ask()
      } catch (error) {
        const passes = error instanceof RetryableError || isWithoutTables(error)
        if (gone.aborted || !passes || performance.now() >= until) throw error
        await wait(retryMs, undefined, { signal: gone }).catch(() => {})
      }
    }
  }

  private historyItems({ tenant }: Subscription, rows: readonly ReadingRow[], frames: OwnFrames) {
    const { lastValues, items } = this.options
    return rows.map(({ device, metric, observedMicros, value, text }) => {
      const id = lastValues.identifyNamed(tenant, device, metric)
      if (id === noSeries) return items.unknown(device, metric, observedMicros, value ?? text)
      frames.note(id, observedMicros, value ?? text)
      return items.make(id, observedMicros, value ?? text)
    })
  }

  /** Everything from where the frames stand until the hub's place, paced by the socket. */
  private async readUpToHub(viewer: Viewer, subscription: Subscription, frames: OwnFrames): Promise<void> {
    const { place, logger } = this.options
    if (hasReached(frames.cursor.position, place().position)) return this.meet(viewer, frames)
    try {
      for await (const chunks of this.chunksFrom(frames, viewer.gone)) {
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
      if (isPast) {
        const older = await this.placeInTable(frames.cursor, viewer.gone)
        if (viewer.gone.aborted) return
        if (older) {
          const from = Math.min(...older.past)
          this.declareTableRetention(viewer, from, encodeCursor(seamCursor(older.seam)))
          return this.readTable(viewer, subscription, older)
        }
      } else logger.warn({ error }, 'the log could not be read for a viewer')
      const hub = place()
      viewer.gap(this.gapAfter(frames.cursor, isPast ? 'log-retention' : 'log-unreadable'), encodeCursor(hub))
      frames.cursor = hub
      this.meet(viewer, frames)
    }
  }

  /** From the ring while it reaches back, else from the log. */
  private async *chunksFrom(frames: OwnFrames, signal: AbortSignal): AsyncGenerator<readonly Chunk[]> {
    const { ring, log } = this.options
    let number = ring.reach(frames.cursor.position)
    while (number !== undefined && !signal.aborted) {
      const chunks: Chunk[] = []
      let bytes = 0
      let next = ring.at(number)
      if (next === undefined || next === 'gone') break
      while (next !== undefined && next !== 'gone' && bytes < ringBytesAtOnce) {
        chunks.push(next)
        bytes += next.rows.length
        next = ring.at(++number)
      }
      // Memory never waits, and the event loop would wait for all of it, once a viewer.
      if (next !== undefined && next !== 'gone') await this.turn()
      yield chunks
    }
    if (!signal.aborted) yield* log.tail('readings', frames.cursor.position, signal)
  }

  /** Of all viewers that are far behind, one goes on in each turn of the event loop. */
  private turn(): Promise<void> {
    this.turns = this.turns.then(() => new Promise((go) => setImmediate(go)))
    return this.turns
  }

  /** Where the table goes on after this cursor; undefined: the cursor does not say what was received before it. */
  private async placeInTable(
    cursor: LiveCursor,
    gone: AbortSignal,
  ): Promise<Extract<HistoryCursor, { by: 'received' }> | undefined> {
    const { log } = this.options
    const past: Micros[] = []
    for (let partition = 0; partition < log.partitions; partition++) {
      const receivedAt = cursor.receivedAt.get(partition) ?? 0
      if (receivedAt === 0 && (cursor.position.get(partition) ?? 0) > 0) return undefined
      past.push(receivedAt)
    }
    return { by: 'received', past, after: undefined, seam: await findSeam(log, gone) }
  }

  private declareTableRetention(viewer: Viewer, from: Micros, cursor: string): void {
    const { retentionMs, clock } = this.options
    if (retentionMs === undefined) return
    const kept = clock.nowMicros() - retentionMs * 1000
    if (from >= kept) return
    viewer.gap({ cause: 'table-retention', from: toMillis(from), to: toMillis(kept) }, cursor)
  }

  private meet(viewer: Viewer, frames: OwnFrames): void {
    if (!viewer.gone.aborted) this.options.meet(viewer, frames)
  }

  private gapAfter(cursor: LiveCursor | undefined, cause: LiveGap['cause']): LiveGap {
    const received = cursor ? [...cursor.receivedAt.values()] : []
    const from = received.length === 0 ? null : toMillis(Math.min(...received))
    return { cause, from, to: toMillis(this.options.clock.nowMicros()) }
  }
}

function isWanted(from: HistoryCursor, { tenant }: Subscription, row: ReadingRow): boolean {
  return isBeforeSeam(from.seam, tenant, row) && (from.by === 'observed' || isReceivedAfter(from.past, tenant, row))
}

/** Where a viewer stands that was sent this row. */
function past(cursor: HistoryCursor, row: ReadingRow): HistoryCursor {
  const key = { observedAt: row.observedMicros, device: row.device, metric: row.metric }
  return cursor.by === 'observed'
    ? { ...cursor, after: key }
    : { ...cursor, after: { ...key, receivedAt: row.receivedMicros } }
}

function seamCursor({ place, receivedBefore }: Seam): LiveCursor {
  const receivedAt = new Map<Partition, Micros>()
  receivedBefore.forEach((before, partition) => {
    if (before > 1) receivedAt.set(partition, before - 1)
  })
  return { position: place, receivedAt }
}

function gapFrom(cursor: HistoryCursor): number {
  if (cursor.by === 'observed') return toMillis(cursor.after?.observedAt ?? cursor.since)
  return toMillis(cursor.after?.receivedAt ?? Math.min(...cursor.past))
}
