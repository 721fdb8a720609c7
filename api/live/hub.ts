// Fans the log out to viewers. It is handed every batch of new chunks, after the last values took them in, and looks into them only when
// somebody is there. A viewer that resumes, or asks for an instant, reads the table, the ring and the log by itself, at the pace of its socket, until it
// has reached the hub (catch-up.ts); from then on it shares the frames of its channel.
//
//   log ──▶ feed ──▶ last values ──▶ hub ──▶ channel (one a subscription) ──▶ viewer ──▶ outbox ──▶ socket
//     └──────────── own reading of a viewer that catches up ─────────────────▶┘
import type { Chunk, EventLog, LogPosition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import type { ViewerSession } from '../../runtime/access/viewer-access.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LimitError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { CatchUp, type LiveStart } from './catch-up.ts'
import { Channel, ItemMaker, matchesSeries, type Subscription } from './channel.ts'
import { ChunkRing } from './chunk-ring.ts'
import { cursorAfter, cursorWithin, encodeCursor, hasReached, type LiveCursor } from './cursor.ts'
import { LiveFrame, type LiveItem } from './frame.ts'
import { Interest } from './interest.ts'
import type { LastValues } from './last-values.ts'
import { NewestSentTable } from './newest-sent.ts'
import {
  type ByeReason,
  Outbox,
  type OutboxLimits,
  OutboxMemory,
  outboxLimits,
  type ViewerTransport,
} from './outbox.ts'
import { frameMs, type OwnFrames } from './own-frames.ts'
import { noSeries } from './series-directory.ts'
import { SessionWatch } from './session-watch.ts'
import { type AskHistory, type AskReceived, patienceMsDefault } from './table-pages.ts'
import { Viewer } from './viewer.ts'

export interface LiveHubOptions {
  readonly log: EventLog
  readonly history: AskHistory
  readonly received: AskReceived
  readonly lastValues: LastValues
  readonly clock: Clock
  readonly logger: Logger
  readonly viewersMax?: number
  readonly limits?: OutboxLimits
  readonly ring?: ChunkRing
  /** Age at which readings leave the table; undefined: never. */
  readonly retentionMs?: number | undefined
  readonly patienceMs?: number
}

/**
 * `latest` gets at most twenty frames a second, and handing them out takes at most this part of the time: on a machine that is busy viewers get fewer
 * frames, which say the same in the end, rather than take the time from devices that wait for acknowledgements. Four a second there are all the same.
 */
const framesShareMax = 0.1
const frameMsMax = 250
/** Revisions a frame of `latest`, the rest with the next one: a device that sends a day late is not everybody's flood. */
const revisionsPerFrameMax = 200

/** A viewer that has read past the hub, and gets what comes by itself until the hub is there too. */
interface AheadViewer {
  readonly viewer: Viewer
  readonly frames: OwnFrames
}

export class LiveHub {
  /** Connections that were let go because they stayed behind. */
  slowCount = 0
  private readonly log: EventLog
  private readonly clock: Clock
  private readonly lastValues: LastValues
  private readonly logger: Logger
  private readonly viewersMax: number
  private readonly limits: OutboxLimits
  private readonly memory = new OutboxMemory()
  private readonly sessions = new SessionWatch()
  private readonly items: ItemMaker
  private readonly ring: ChunkRing
  private readonly catchUp: CatchUp
  private readonly viewers = new Set<Viewer>()
  private readonly channels = new Map<string, Channel>()
  private readonly ahead = new Set<AheadViewer>()
  private readonly interest: Interest
  private readonly newestSent = new NewestSentTable()
  /** One of the viewers of `every` came back: what of a series it was sent before is what was known then. */
  private hasResumed = false
  private readonly patienceMs: number
  /** Until when `latest` waits for what the table knows. */
  private wholeUntilMs = 0
  private cursor: LiveCursor = { position: new Map(), receivedAt: new Map() }
  private frameTimer: NodeJS.Timeout | undefined
  private nextFrameMs = 0
  /** Where the last whole `latest` frame ended. */
  private latestCursor = ''
  private everyChannels = 0
  private latestChannels = 0
  private isClosed = false
  private hasPlace = false
  private readonly placeWaiters = new Set<() => void>()

  constructor(options: LiveHubOptions) {
    const { log, clock, lastValues, logger, retentionMs, patienceMs = patienceMsDefault } = options
    this.log = log
    this.clock = clock
    this.lastValues = lastValues
    this.logger = logger
    this.viewersMax = options.viewersMax ?? 1_000
    this.limits = options.limits ?? outboxLimits
    this.items = new ItemMaker(lastValues)
    this.interest = new Interest((channel, id) => matchesSeries(channel.subscription, lastValues.namesOf(id)))
    this.ring = options.ring ?? new ChunkRing()
    this.patienceMs = patienceMs
    this.catchUp = new CatchUp({
      ...options,
      items: this.items,
      ring: this.ring,
      retentionMs,
      patienceMs,
      place: () => this.cursor,
      begun: (gone) => this.begun(gone),
      meet: (viewer, frames) => this.meet(viewer, frames),
    })
  }

  get viewerCount(): number {
    return this.viewers.size
  }

  /** Bytes that viewers have not taken. */
  get queuedBytes(): number {
    return this.memory.bytes
  }

  get position(): LogPosition {
    return this.cursor.position
  }

  /** Where the feed begins to read. Until then, and once it is lost, viewers wait: they could not know whether they are behind it. */
  startAt(position: LogPosition): void {
    this.cursor = { position, receivedAt: new Map() }
    this.ring.startAt(position)
    this.hasPlace = true
    this.wholeUntilMs = performance.now() + this.patienceMs
    for (const go of [...this.placeWaiters]) go()
  }

  /** The feed has to begin anew, elsewhere: everybody is let go and comes back with a cursor. */
  losePlace(): void {
    this.hasPlace = false
    this.dismiss('failed')
  }

  /** The next chunks of the log, right after the last values took them in. */
  accept(chunks: readonly Chunk[]): void {
    this.ring.push(chunks)
    if (this.everyChannels > 0) this.fanOut(chunks)
    for (const { viewer, frames } of [...this.ahead]) for (const frame of frames.take(chunks)) viewer.send(frame)
    this.cursor = cursorAfter(chunks, this.cursor)
    if (this.everyChannels > 0) this.flushEvery(encodeCursor(this.cursor))
    if (this.latestChannels > 0) this.scheduleFrame()
    // After the frames of these chunks, and behind that of `latest`: who was ahead has had what it wants of them.
    for (const each of [...this.ahead]) this.joinIfReached(each)
  }

  /**
   * A connection that holds viewers. The transport tells it when it can take more and when it is closed. It ends with the session that its authority
   * rests on, if it is one.
   */
  connect(transport: ViewerTransport, session?: ViewerSession): Outbox {
    const counted: ViewerTransport = {
      sizeOf: (frame, viewer) => transport.sizeOf(frame, viewer),
      write: (frame, viewer) => transport.write(frame, viewer),
      ...(transport.together && { together: (write: () => void) => transport.together!(write) }),
      end: (reason) => {
        if (reason === 'slow') this.slowCount++
        transport.end(reason)
      },
    }
    const outbox = new Outbox(counted, this.limits, this.memory)
    if (session) this.sessions.watch(outbox, session)
    return outbox
  }

  /** Throws a LimitError when there are as many viewers as there may be. */
  requireRoom(): void {
    if (this.isClosed) throw new LimitError('viewersMax', 'The server is stopping.')
    if (this.viewers.size < this.viewersMax) return
    throw new LimitError('viewersMax', `There are ${this.viewersMax} live viewers already, the most there may be.`)
  }

  /** Begins a subscription, which the connection knows by `id` (JSON, or '' for that of the address). Throws as `requireRoom` does. */
  open(subscription: Subscription, outbox: Outbox, since: LiveStart = 'now', id = ''): Viewer {
    this.requireRoom()
    const viewer = new Viewer(outbox, id)
    this.viewers.add(viewer)
    viewer.gone.addEventListener('abort', () => this.viewers.delete(viewer))
    this.catchUp.run(viewer, subscription, since).catch((error) => {
      if (viewer.gone.aborted) return
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

  private begun(gone: AbortSignal): Promise<void> {
    if (this.hasPlace || gone.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const go = (): void => {
        this.placeWaiters.delete(go)
        gone.removeEventListener('abort', go)
        resolve()
      }
      this.placeWaiters.add(go)
      gone.addEventListener('abort', go)
    })
  }

  /** The viewer has come as far as the hub, or further: from here on the hub hands it what comes. */
  private meet(viewer: Viewer, frames: OwnFrames): void {
    for (const frame of frames.flush()) viewer.send(frame)
    viewer.caughtUp(frames.cursor)
    if (viewer.gone.aborted) return
    const each = { viewer, frames }
    this.ahead.add(each)
    viewer.gone.addEventListener('abort', () => this.ahead.delete(each))
    this.joinIfReached(each)
  }

  private joinIfReached(each: AheadViewer): void {
    const { viewer, frames } = each
    const { subscription } = frames
    const { position, receivedAt, within } = frames.cursor
    // Those of a channel are handed whole chunks: who had rows of the next one takes the rest of it by itself.
    if (viewer.gone.aborted || within !== undefined || !hasReached(this.cursor.position, position)) return
    // What the next frame of `latest` holds of these readings, it has had: it joins behind that.
    if (subscription.mode === 'latest' && this.frameTimer !== undefined) return
    this.ahead.delete(each)
    for (const frame of frames.flush()) viewer.send(frame)
    if (viewer.gone.aborted) return
    this.learnReceived(position, receivedAt)
    const key = new Channel(subscription).key
    const channel = this.channels.get(key) ?? this.openChannel(subscription)
    channel.viewers.add(viewer)
    for (const [id, { observedAt, value }] of frames.newest) this.newestSent.note(id, observedAt, value)
    if (frames.isResumed && subscription.mode === 'every') this.hasResumed = true
    frames.forget()
    viewer.gone.addEventListener('abort', () => {
      channel.viewers.delete(viewer)
      if (channel.viewers.size === 0) this.closeChannel(channel)
    })
  }

  /**
   * What was received before the place where the feed began, a viewer may know. Its cursor comes from outside and goes into everybody's from here: what
   * it says that can't be so, later than anything received, would hide from others what is yet to come.
   */
  private learnReceived(position: LogPosition, receivedAt: LiveCursor['receivedAt']): void {
    const missing = [...receivedAt].filter(
      ([partition, at]) =>
        !this.cursor.receivedAt.has(partition) &&
        position.get(partition) === this.cursor.position.get(partition) &&
        at <= (this.log.receivedAtMax('readings', partition) || this.clock.nowMicros()),
    )
    if (missing.length === 0) return
    this.cursor = {
      position: this.cursor.position,
      receivedAt: new Map([...this.cursor.receivedAt, ...missing]),
    }
  }

  private openChannel(subscription: Subscription): Channel {
    const channel = new Channel(subscription)
    this.channels.set(channel.key, channel)
    this.interest.add(channel)
    this.countMode(subscription, 1)
    return channel
  }

  private closeChannel(channel: Channel): void {
    if (this.channels.get(channel.key) !== channel) return
    this.channels.delete(channel.key)
    this.interest.remove(channel)
    this.countMode(channel.subscription, -1)
    if (this.channels.size > 0) return
    this.newestSent.forget()
    this.hasResumed = false
    this.items.forget()
  }

  private countMode({ mode }: Subscription, more: 1 | -1): void {
    if (mode === 'every') this.everyChannels += more
    else this.latestChannels += more
    if (this.latestChannels > 0 === this.lastValues.collectChanged) return
    this.latestCursor = encodeCursor(this.cursor)
    this.lastValues.collectChanged = this.latestChannels > 0
    this.lastValues.takeChanged()
    this.lastValues.late.clear()
  }

  private fanOut(chunks: readonly Chunk[]): void {
    const { newestSent } = this
    let before = this.cursor
    for (const chunk of chunks) {
      const row = new RowCursor(chunk.rows)
      let rows = 0
      let id = noSeries
      while (row.next()) {
        rows++
        if (!row.isSameSeries) id = this.lastValues.identify(chunk.rows, row)
        // Asked for at each row: a viewer that is let go on the way may take its channel with it.
        if (id === noSeries || !this.interest.of(id).some(wantsEvery)) continue
        const { observedAt, receivedAt } = row
        const value = row.said()
        if (this.hasResumed && !newestSent.knows(id)) this.recallNewest(id, receivedAt)
        const item = this.items.make(id, observedAt, value)
        for (const channel of this.interest.of(id)) {
          if (!wantsEvery(channel)) continue
          if (newestSent.isNewest(id, observedAt, value)) channel.add(item)
          else this.sendRevision(channel, item, { chunk, rows, before, id, observedAt, receivedAt, value })
        }
        newestSent.note(id, observedAt, value)
      }
      before = cursorAfter([chunk], before)
      for (const channel of this.channels.values()) if (channel.isFull) channel.flush('', encodeCursor(before))
    }
  }

  /** What was received before this row, a viewer that came back was sent. */
  private recallNewest(id: number, receivedBefore: number): void {
    const { lastValues, newestSent } = this
    if (!lastValues.hasValue(id) || lastValues.receivedAtOf(id) >= receivedBefore) return
    const { observedAt, value } = lastValues.last(id)
    newestSent.note(id, observedAt, value)
  }

  /** Frames stay in the order of the log: what came before it in the chunk goes out first, each with the cursor just past it. */
  private sendRevision(
    channel: Channel,
    item: LiveItem,
    at: {
      readonly chunk: Chunk
      readonly rows: number
      readonly before: LiveCursor
      readonly id: number
      readonly observedAt: Micros
      readonly receivedAt: Micros
      readonly value: number | string
    },
  ): void {
    const { chunk, rows, before, id, observedAt, receivedAt, value } = at
    // Within a partition each row is received after the one before it.
    if (!channel.isEmpty) channel.flush('', encodeCursor(cursorWithin(chunk, rows - 1, before, receivedAt - 1)))
    const { from, to } = this.items.revised(id, { observedAt, value, from: observedAt, to: observedAt })
    channel.send(LiveFrame.revision(encodeCursor(cursorWithin(chunk, rows, before, receivedAt)), { item, from, to }))
  }

  private flushEvery(cursor: string): void {
    for (const channel of this.channels.values()) if (wantsEvery(channel)) channel.flush('', cursor)
  }

  private scheduleFrame(): void {
    if (this.frameTimer !== undefined) return
    const waitMs = Math.max(0, this.nextFrameMs - performance.now())
    this.frameTimer = setTimeout(() => this.sendLatest(), waitMs)
  }

  private sendLatest(): void {
    this.frameTimer = undefined
    if (!this.lastValues.isWhole && performance.now() < this.wholeUntilMs) {
      // What looks like the newest of a series may not be: nobody is told of an older one than the table has.
      this.frameTimer = setTimeout(() => this.sendLatest(), frameMs)
      return
    }
    const beganMs = performance.now()
    try {
      this.tellLatest()
    } catch (error) {
      this.logger.error({ error }, 'the newest values could not be sent to viewers; those who wait for them are let go')
      this.dismissLatest()
    }
    const tookMs = performance.now() - beganMs
    this.nextFrameMs = beganMs + Math.min(frameMsMax, Math.max(frameMs, tookMs / framesShareMax))
    if (this.lastValues.late.size > 0 && this.latestChannels > 0) this.scheduleFrame()
  }

  /** They may have been told a part of a frame: they come back with the cursors that they have. */
  private dismissLatest(): void {
    for (const channel of [...this.channels.values()]) {
      if (wantsEvery(channel)) continue
      for (const viewer of [...channel.viewers]) {
        try {
          viewer.bye('failed')
        } catch (error) {
          this.logger.error({ error }, 'a live viewer could not be let go')
        }
      }
    }
  }

  private tellLatest(): void {
    this.addRevisions()
    for (const id of this.lastValues.takeChanged()) {
      let item: LiveItem | undefined
      for (const channel of this.interest.of(id)) {
        if (wantsEvery(channel)) continue
        item ??= this.items.last(id)
        channel.add(item)
        // More is to come at this place in the log: who resumes from this frame begins where the one before ended.
        if (channel.isFull) channel.flush(this.latestCursor, this.latestCursor)
      }
    }
    const before = this.latestCursor
    const hasMore = this.lastValues.late.size > 0
    // What is left for the next frame lies before the hub's place.
    const cursor = hasMore ? before : encodeCursor(this.cursor)
    this.latestCursor = cursor
    for (const channel of this.channels.values()) {
      if (!wantsEvery(channel)) channel.flush(before, cursor)
    }
    for (const each of [...this.ahead]) this.joinIfReached(each)
  }

  private addRevisions(): void {
    const { late } = this.lastValues
    let count = 0
    for (const [id, readings] of late) {
      if (count++ >= revisionsPerFrameMax) return
      late.delete(id)
      const channels = this.interest.of(id).filter((channel) => !wantsEvery(channel))
      if (channels.length === 0) continue
      const revised = this.items.revised(id, readings)
      for (const channel of channels) channel.addRevision(revised)
    }
  }
}

function wantsEvery({ subscription }: Channel): boolean {
  return subscription.mode === 'every'
}
