// Fans the log out to viewers. It is handed every batch of new chunks, after the last values took them in, and looks into them only when
// somebody is there. A viewer that resumes, or asks for an instant, reads the table and the log by itself, at the pace of its socket, until it
// has reached the hub; from then on it shares the frames of its channel.
//
//   log ──▶ feed ──▶ last values ──▶ hub ──▶ channel (one a subscription) ──▶ viewer ──▶ socket
//     └──────────── own tail of a viewer that catches up ────────────────────▶┘
import { type Chunk, type EventLog, type LogPosition, positionAfter } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LimitError, OffsetOutOfRangeError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { toMillis } from '../instant.ts'
import type { ReadingKey, ReadingRow } from '../queries/readings.ts'
import type { LiveGap, LiveReading } from '../wire.ts'
import { Channel, framesOf, ItemWriter, matchesSeries, readingsJson, type Subscription } from './channel.ts'
import { encodeCursor, hasReached, type LiveCursor } from './cursor.ts'
import { encodeHistoryCursor, findSeam, type HistoryCursor, isBeforeSeam } from './history.ts'
import type { LastValues } from './last-values.ts'
import { noSeries } from './series-directory.ts'
import { type ByeReason, Viewer, type ViewerLimits, type ViewerTransport, viewerLimits } from './viewer.ts'

/** A page of the table's readings, by observedAt, device and metric. */
export type AskHistory = (
  question: Subscription & { readonly from: Micros; readonly after: ReadingKey | undefined; readonly limit: number },
  signal: AbortSignal,
) => Promise<readonly ReadingRow[]>

/** From now, after a cursor of live or of history, or from an instant by observedAt on. */
export type LiveStart = 'now' | LiveCursor | HistoryCursor | { readonly instant: Micros }

export interface LiveHubOptions {
  readonly log: EventLog
  readonly history: AskHistory
  readonly lastValues: LastValues
  readonly clock: Clock
  readonly logger: Logger
  readonly viewersMax?: number
  readonly limits?: ViewerLimits
}

/** `latest` gets at most twenty frames a second. */
const frameMs = 50

const historyPage = 2_000

/** A viewer that has read past the hub, and gets what comes by itself until the hub is there too. */
interface AheadViewer {
  readonly viewer: Viewer
  readonly subscription: Subscription
  cursor: LiveCursor
}

export class LiveHub {
  private readonly log: EventLog
  private readonly history: AskHistory
  private readonly lastValues: LastValues
  private readonly clock: Clock
  private readonly logger: Logger
  private readonly viewersMax: number
  private readonly limits: ViewerLimits
  private readonly items: ItemWriter
  private readonly viewers = new Set<Viewer>()
  private readonly channels = new Map<string, Channel>()
  private readonly ahead = new Set<AheadViewer>()
  /** By series: the channels that want it; undefined: not asked yet. */
  private interested: (Channel[] | undefined)[] = []
  private cursor: LiveCursor = { position: new Map(), receivedAt: 0 }
  private frameTimer: NodeJS.Timeout | undefined
  private lastFrameMs = 0
  /** Where the last whole `latest` frame ended. */
  private latestCursor = ''
  private everyChannels = 0
  private latestChannels = 0
  private isClosed = false

  constructor(options: LiveHubOptions) {
    this.log = options.log
    this.history = options.history
    this.lastValues = options.lastValues
    this.clock = options.clock
    this.logger = options.logger
    this.viewersMax = options.viewersMax ?? 1_000
    this.limits = options.limits ?? viewerLimits
    this.items = new ItemWriter(options.lastValues)
  }

  get viewerCount(): number {
    return this.viewers.size
  }

  get position(): LogPosition {
    return this.cursor.position
  }

  /** Where the feed begins to read. */
  startAt(position: LogPosition): void {
    this.cursor = { position, receivedAt: 0 }
  }

  /** The next chunks of the log, right after the last values took them in. */
  accept(chunks: readonly Chunk[]): void {
    if (this.everyChannels > 0) this.fanOut(chunks)
    for (const each of [...this.ahead]) this.sendAhead(each, chunks)
    this.cursor = advanced(this.cursor, chunks)
    if (this.everyChannels > 0) {
      const cursor = encodeCursor(this.cursor)
      for (const channel of this.channels.values()) if (channel.subscription.mode === 'every') channel.flush(cursor)
    }
    // After the frames of these chunks: who was ahead has had what it wants of them.
    for (const each of [...this.ahead]) this.joinIfReached(each)
    if (this.latestChannels > 0) this.scheduleFrame()
  }

  /**
   * Begins a subscription. Throws a LimitError when there are as many viewers as there may be.
   * The transport tells the viewer when it can take more and when it is closed.
   */
  open(subscription: Subscription, transport: ViewerTransport, since: LiveStart = 'now'): Viewer {
    if (this.isClosed) throw new LimitError('viewersMax', 'The server is stopping.')
    if (this.viewers.size >= this.viewersMax) {
      throw new LimitError('viewersMax', `There are ${this.viewersMax} live viewers already, the most there may be.`)
    }
    const viewer = new Viewer(transport, this.limits)
    this.viewers.add(viewer)
    viewer.gone.addEventListener('abort', () => this.viewers.delete(viewer))
    this.catchUp(viewer, subscription, since).catch((error) => {
      this.logger.error({ error }, 'a live viewer could not be served')
      viewer.bye('failed')
    })
    return viewer
  }

  /** Says bye to every viewer. */
  close(reason: ByeReason = 'stopping'): void {
    this.isClosed = true
    clearTimeout(this.frameTimer)
    this.dismiss(reason)
  }

  /** Lets go of everybody; they may come back with their cursors. */
  dismiss(reason: ByeReason): void {
    for (const viewer of [...this.viewers]) viewer.bye(reason)
  }

  private async catchUp(viewer: Viewer, subscription: Subscription, since: LiveStart): Promise<void> {
    if (since !== 'now' && 'instant' in since) {
      const seam = await findSeam(this.log, viewer.gone)
      return this.readHistory(viewer, subscription, { since: since.instant, after: undefined, seam })
    }
    const end = await this.log.end('readings')
    if (viewer.gone.aborted) return
    if (since === 'now') {
      // The hub stands at the end but for a moment; after a start it may have to read much first, which nobody asked for.
      const position = hasReached(this.cursor.position, end) ? this.cursor.position : end
      return this.meet(viewer, subscription, { position, receivedAt: 0 })
    }
    const position = 'seam' in since ? since.seam.place : since.position
    if (!hasReached(end, position)) {
      const receivedAt = 'seam' in since ? 0 : since.receivedAt
      const cursor = { position: end, receivedAt: 0 }
      viewer.gap(this.gapSince(receivedAt, 'unknown-cursor'), cursor)
      return this.meet(viewer, subscription, cursor)
    }
    if ('seam' in since) return this.readHistory(viewer, subscription, since)
    return this.readUpToHub(viewer, subscription, since)
  }

  /** The table up to the seam, paced by the socket, then the log. */
  private async readHistory(viewer: Viewer, subscription: Subscription, from: HistoryCursor): Promise<void> {
    const { since, seam } = from
    let after = from.after
    const live = { position: seam.place, receivedAt: 0 }
    try {
      for (;;) {
        const question = { ...subscription, from: since, after, limit: historyPage }
        const rows = await this.history(question, viewer.gone)
        const last = rows.at(-1)
        if (last) after = { observedAt: last.observedMicros, device: last.device, metric: last.metric }
        const items = rows.filter((row) => isBeforeSeam(seam, subscription.tenant, row)).map(historyItem)
        if (items.length > 0) {
          const cursor = encodeHistoryCursor({ since, after, seam })
          viewer.send('readings', cursor, readingsJson(cursor, items))
          await viewer.writable()
        }
        if (viewer.gone.aborted) return
        if (rows.length < historyPage) break
      }
    } catch (error) {
      if (viewer.gone.aborted) return
      this.logger.warn({ error }, 'the table could not be read for a viewer')
      const gap: LiveGap = {
        cause: 'store-away',
        from: toMillis(after?.observedAt ?? since),
        to: toMillis(this.clock.nowMicros()),
      }
      viewer.gap(gap, live)
    }
    return this.readUpToHub(viewer, subscription, live, since)
  }

  /** Everything from the cursor on until the hub's place, paced by the socket. */
  private async readUpToHub(
    viewer: Viewer,
    subscription: Subscription,
    since: LiveCursor,
    observedFrom: Micros = 0,
  ): Promise<void> {
    let cursor = since
    if (hasReached(cursor.position, this.cursor.position)) return this.meet(viewer, subscription, cursor)
    try {
      for await (const chunks of this.log.tail('readings', cursor.position, viewer.gone)) {
        for (const frame of framesOf(chunks, cursor, subscription, this.lastValues, this.items, observedFrom)) {
          cursor = frame.cursor
          if (frame.items.length === 0) continue
          const encoded = encodeCursor(cursor)
          viewer.send('readings', encoded, readingsJson(encoded, frame.items))
          await viewer.writable()
          if (viewer.gone.aborted) return
        }
        // Met in the same turn in which it is seen: the hub goes on as soon as this function waits for anything.
        if (hasReached(cursor.position, this.cursor.position)) return this.meet(viewer, subscription, cursor)
      }
    } catch (error) {
      if (viewer.gone.aborted) return
      const isPast = error instanceof OffsetOutOfRangeError
      if (!isPast) this.logger.warn({ error }, 'the log could not be read for a viewer')
      viewer.gap(this.gapSince(cursor.receivedAt, isPast ? 'log-retention' : 'log-unreadable'), this.cursor)
      this.meet(viewer, subscription, this.cursor)
    }
  }

  /** The viewer has come as far as the hub, or further: from here on the hub hands it what comes. */
  private meet(viewer: Viewer, subscription: Subscription, cursor: LiveCursor): void {
    if (viewer.gone.aborted) return
    viewer.caughtUp(cursor)
    const each = { viewer, subscription, cursor }
    this.ahead.add(each)
    viewer.gone.addEventListener('abort', () => this.ahead.delete(each))
    this.joinIfReached(each)
  }

  private gapSince(receivedAt: Micros, cause: LiveGap['cause']): LiveGap {
    const from = receivedAt === 0 ? null : toMillis(receivedAt)
    return { cause, from, to: toMillis(this.clock.nowMicros()) }
  }

  private sendAhead(each: AheadViewer, chunks: readonly Chunk[]): void {
    const { viewer, subscription } = each
    const fresh = chunks.filter((chunk) => chunk.offset >= (each.cursor.position.get(chunk.partition) ?? 0))
    for (const frame of framesOf(fresh, each.cursor, subscription, this.lastValues, this.items)) {
      each.cursor = frame.cursor
      if (frame.items.length === 0) continue
      const encoded = encodeCursor(frame.cursor)
      viewer.send('readings', encoded, readingsJson(encoded, frame.items))
    }
  }

  private joinIfReached(each: AheadViewer): void {
    const { viewer, subscription, cursor } = each
    if (viewer.gone.aborted || !hasReached(this.cursor.position, cursor.position)) return
    this.ahead.delete(each)
    const key = new Channel(subscription).key
    const channel = this.channels.get(key) ?? this.openChannel(subscription)
    channel.viewers.add(viewer)
    viewer.gone.addEventListener('abort', () => {
      channel.viewers.delete(viewer)
      if (channel.viewers.size === 0) this.closeChannel(channel)
    })
  }

  private openChannel(subscription: Subscription): Channel {
    const channel = new Channel(subscription)
    this.channels.set(channel.key, channel)
    this.interested.forEach((channels, id) => {
      if (channels && matchesSeries(subscription, this.lastValues.namesOf(id))) channels.push(channel)
    })
    this.countModes()
    return channel
  }

  private closeChannel(channel: Channel): void {
    if (this.channels.get(channel.key) !== channel) return
    this.channels.delete(channel.key)
    for (const channels of this.interested) {
      const at = channels?.indexOf(channel) ?? -1
      if (at >= 0) channels!.splice(at, 1)
    }
    this.countModes()
    if (this.channels.size > 0) return
    this.interested = []
    this.items.forget()
  }

  private countModes(): void {
    const modes = [...this.channels.values()].map(({ subscription }) => subscription.mode)
    this.everyChannels = modes.filter((mode) => mode === 'every').length
    this.latestChannels = modes.length - this.everyChannels
    if (this.latestChannels > 0 === this.lastValues.collectChanged) return
    this.latestCursor = encodeCursor(this.cursor)
    this.lastValues.collectChanged = this.latestChannels > 0
    this.lastValues.takeChanged()
  }

  private channelsOf(id: number): Channel[] {
    const known = this.interested[id]
    if (known) return known
    const names = this.lastValues.namesOf(id)
    const found = [...this.channels.values()].filter(({ subscription }) => matchesSeries(subscription, names))
    this.interested[id] = found
    return found
  }

  private fanOut(chunks: readonly Chunk[]): void {
    let cursor = this.cursor
    for (const chunk of chunks) {
      const row = new RowCursor(chunk.rows)
      while (row.next()) {
        const id = this.lastValues.identify(chunk.rows, row)
        if (id === noSeries) continue
        let item: string | undefined
        for (const channel of this.channelsOf(id)) {
          if (channel.subscription.mode !== 'every') continue
          item ??= this.items.reading(id, row)
          channel.add(item)
        }
      }
      cursor = advanced(cursor, [chunk])
      // A frame ends at a chunk's end, where its cursor can resume.
      for (const channel of this.channels.values()) if (channel.isFull) channel.flush(encodeCursor(cursor))
    }
  }

  private scheduleFrame(): void {
    if (this.frameTimer !== undefined) return
    const waitMs = Math.max(0, this.lastFrameMs + frameMs - performance.now())
    this.frameTimer = setTimeout(() => this.sendLatest(), waitMs)
  }

  private sendLatest(): void {
    this.frameTimer = undefined
    this.lastFrameMs = performance.now()
    for (const id of this.lastValues.takeChanged()) {
      let item: string | undefined
      for (const channel of this.channelsOf(id)) {
        if (channel.subscription.mode !== 'latest') continue
        item ??= this.items.last(id)
        channel.add(item)
        // More is to come at this place in the log: who resumes from this frame begins where the one before ended.
        if (channel.isFull) channel.flush(this.latestCursor)
      }
    }
    const cursor = encodeCursor(this.cursor)
    this.latestCursor = cursor
    for (const channel of this.channels.values()) if (channel.subscription.mode === 'latest') channel.flush(cursor)
  }
}

function historyItem({ device, metric, observedMicros, value, text }: ReadingRow): string {
  const observedAt = toMillis(observedMicros)
  const item: LiveReading =
    value === null ? { device, metric, observedAt, text } : { device, metric, observedAt, value }
  return JSON.stringify(item)
}

function advanced(cursor: LiveCursor, chunks: readonly Chunk[]): LiveCursor {
  let receivedAt = cursor.receivedAt
  for (const chunk of chunks) receivedAt = Math.max(receivedAt, chunk.receivedAt)
  return { position: positionAfter(chunks, cursor.position), receivedAt }
}
