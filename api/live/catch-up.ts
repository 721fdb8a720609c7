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
import { OffsetOutOfRangeError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { toMillis } from '../instant.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { LiveGap } from '../wire.ts'
import type { ItemMaker, Subscription } from './channel.ts'
import type { ChunkRing } from './chunk-ring.ts'
import { encodeCursor, hasReached, type LiveCursor } from './cursor.ts'
import { LiveFrame } from './frame.ts'
import { encodeHistoryCursor, findSeam, type HistoryCursor, isAfter, isBeforeSeam, past, type Seam } from './history.ts'
import type { LastValues } from './last-values.ts'
import { OwnFrames } from './own-frames.ts'
import { noSeries } from './series-directory.ts'
import { slowMs, TablePages, type TablePagesOptions } from './table-pages.ts'
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

/** Chunks that a viewer takes at once; larger ones by themselves. */
const chunkBytesAtOnce = 128 * 1024
const retryMs = 250
/** A reader of the log may be a moment behind one that a viewer knew before. */
const endPatienceMs = 2_000

export class CatchUp {
  private readonly options: CatchUpOptions
  private readonly pages: TablePages
  private turns: Promise<void> = Promise.resolve()
  private endAsked: Promise<LogPosition> | undefined

  constructor(options: CatchUpOptions) {
    this.options = options
    this.pages = new TablePages(options)
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
    if ('seam' in since) return this.readTable(viewer, subscription, since)
    return this.readUpToHub(viewer, subscription, this.framesFrom(subscription, since))
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
    const { logger, clock } = this.options
    const live = seamCursor(from.seam)
    const frames = this.framesFrom(subscription, live, from.by === 'observed' ? from.since : 0)
    let cursor = from
    try {
      for await (const rows of this.pages.pieces(subscription, from, viewer.gone)) {
        const wanted = rows.filter((row) => isWanted(from, subscription, row))
        if (wanted.length > 0) {
          const text = encodeHistoryCursor(past(cursor, wanted.at(-1)!))
          viewer.send(LiveFrame.readings(text, this.historyItems(subscription, wanted, frames)))
          await viewer.writable()
        }
        if (viewer.gone.aborted) return
        cursor = past(cursor, rows.at(-1)!)
      }
      if (viewer.gone.aborted) return
    } catch (error) {
      if (viewer.gone.aborted) return
      logger.warn({ error }, 'the table could not be read for a viewer')
      const to = toMillis(clock.nowMicros())
      viewer.gap({ cause: 'store-away', from: gapFrom(cursor), to }, encodeCursor(live))
    }
    return this.readUpToHub(viewer, subscription, frames)
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
    const { ring } = this.options
    let number = ring.reach(frames.cursor.position)
    while (number !== undefined && !signal.aborted) {
      const chunks: Chunk[] = []
      let bytes = 0
      let next = ring.at(number)
      if (next === undefined || next === 'gone') break
      while (next !== undefined && next !== 'gone' && bytes < chunkBytesAtOnce) {
        chunks.push(next)
        bytes += next.rows.length
        next = ring.at(++number)
      }
      // Memory never waits, and the event loop would wait for all of it, once a viewer.
      if (next !== undefined && next !== 'gone') await this.turn()
      yield chunks
    }
    while (!signal.aborted && (yield* this.logFrom(frames, signal)) === 'let-go');
  }

  /** A viewer that takes its time holds nothing of the log but what it was handed: the rest is read again. */
  private async *logFrom(
    frames: OwnFrames,
    signal: AbortSignal,
  ): AsyncGenerator<readonly Chunk[], 'let-go' | undefined> {
    const tail = this.options.log.tail('readings', frames.cursor.position, signal)[Symbol.asyncIterator]()
    let isLetGo = false
    try {
      for (;;) {
        const read = await tail.next()
        if (read.done) return undefined
        let rest = read.value
        const letGo = (): void => {
          isLetGo = true
          rest = []
          void tail.return?.().catch(() => {})
        }
        while (rest.length > 0) {
          const some = upToBytes(rest, chunkBytesAtOnce)
          rest = rest.slice(some.length)
          const timer = setTimeout(letGo, slowMs)
          try {
            yield some
          } finally {
            clearTimeout(timer)
          }
          if (isLetGo) return 'let-go'
          if (rest.length > 0) await this.turn()
        }
      }
    } finally {
      await tail.return?.()
    }
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
    const within = new Set<Partition>()
    for (let partition = 0; partition < log.partitions; partition++) {
      const receivedAt = cursor.receivedAt.get(partition) ?? 0
      if (receivedAt === 0 && (cursor.position.get(partition) ?? 0) > 0) return undefined
      past.push(receivedAt)
      if ((cursor.within?.get(partition) ?? 0) > 0) within.add(partition)
    }
    return { by: 'received', past, from: cursor.position, within, after: undefined, seam: await findSeam(log, gone) }
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

/** The first of these chunks, at least one, that have about so many bytes together. */
function upToBytes(chunks: readonly Chunk[], bytesMax: number): readonly Chunk[] {
  let [end, bytes] = [0, 0]
  while (end < chunks.length && bytes < bytesMax) bytes += chunks[end++]!.rows.length
  return chunks.slice(0, end)
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

function gapFrom(cursor: HistoryCursor): number {
  if (cursor.by === 'observed') return toMillis(cursor.after?.observedAt ?? cursor.since)
  return toMillis(cursor.after?.receivedAt ?? Math.min(...cursor.past))
}
