// Fans the log out to viewers. It is handed every batch of new chunks, after the last values took them in, and looks into them only when
// somebody is there. A viewer that resumes, or asks for an instant, reads the table, the ring and the log by itself, at the pace of its socket, until it
// has reached the hub (catch-up.ts); from then on it shares the frames of its channel.
//
//   log ──▶ feed ──▶ last values ──▶ hub ──▶ channel (one a subscription) ──▶ viewer ──▶ outbox ──▶ socket
//     └──────────── own reading of a viewer that catches up ─────────────────▶┘
import type { Chunk, EventLog, LogPosition } from '../../domain/event-log.ts'
import type { ViewerSession } from '../../runtime/access/viewer-access.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LimitError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { CatchUp, type LiveStart } from './catch-up.ts'
import { ItemMaker, type Subscription } from './channel.ts'
import { Channels } from './channels.ts'
import { ChunkRing } from './chunk-ring.ts'
import { cursorAfter, hasReached, type LiveCursor } from './cursor.ts'
import { EveryFrames } from './every-frames.ts'
import type { LastValues } from './last-values.ts'
import { LatestFrames } from './latest-frames.ts'
import {
  type ByeReason,
  Outbox,
  type OutboxLimits,
  OutboxMemory,
  outboxLimits,
  type ViewerTransport,
} from './outbox.ts'
import type { OwnFrames } from './own-frames.ts'
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
  private readonly logger: Logger
  private readonly viewersMax: number
  private readonly limits: OutboxLimits
  private readonly memory = new OutboxMemory()
  private readonly sessions = new SessionWatch()
  private readonly ring: ChunkRing
  private readonly catchUp: CatchUp
  private readonly viewers = new Set<Viewer>()
  private readonly ahead = new Set<AheadViewer>()
  private readonly channels: Channels
  private readonly every: EveryFrames
  private readonly latest: LatestFrames
  private readonly patienceMs: number
  private cursor: LiveCursor = { position: new Map(), receivedAt: new Map() }
  private isClosed = false
  private hasPlace = false
  private readonly placeWaiters = new Set<() => void>()

  constructor(options: LiveHubOptions) {
    const { log, clock, lastValues, logger, retentionMs, patienceMs = patienceMsDefault } = options
    this.log = log
    this.clock = clock
    this.logger = logger
    this.viewersMax = options.viewersMax ?? 1_000
    this.limits = options.limits ?? outboxLimits
    const items = new ItemMaker(lastValues)
    this.channels = new Channels({
      lastValues,
      onLatest: (isWanted) => this.latest.collect(isWanted),
      onEmpty: () => {
        this.every.forget()
        items.forget()
      },
    })
    const shared = { lastValues, items, channels: this.channels }
    this.every = new EveryFrames(shared)
    const place = (): LiveCursor => this.cursor
    this.latest = new LatestFrames({ ...shared, logger, place, onTold: () => this.joinThoseReached() })
    this.ring = options.ring ?? new ChunkRing()
    this.patienceMs = patienceMs
    this.catchUp = new CatchUp({
      ...options,
      items,
      ring: this.ring,
      retentionMs,
      patienceMs,
      place,
      begun: (gone) => this.begun(gone),
      meet: (viewer, frames) => this.meet(viewer, frames),
    })
  }

  get viewerCount(): number {
    return this.viewers.size
  }

  /** Frames of `latest` that came later than a twentieth of a second after the one before, because time was short. */
  get heldBackFrameCount(): number {
    return this.latest.heldBackCount
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
    this.latest.begin(this.patienceMs)
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
    const { channels } = this
    if (channels.everyCount > 0) this.every.add(chunks, this.cursor)
    for (const { viewer, frames } of [...this.ahead]) for (const frame of frames.take(chunks)) viewer.send(frame)
    this.cursor = cursorAfter(chunks, this.cursor)
    if (channels.everyCount > 0) this.every.flush(this.cursor)
    if (channels.latestCount > 0) this.latest.schedule()
    // After the frames of these chunks, and behind that of `latest`: who was ahead has had what it wants of them.
    this.joinThoseReached()
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
    this.latest.stop()
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

  private joinThoseReached(): void {
    for (const each of [...this.ahead]) this.joinIfReached(each)
  }

  private joinIfReached(each: AheadViewer): void {
    const { viewer, frames } = each
    const { subscription } = frames
    const { position, receivedAt, within } = frames.cursor
    // Those of a channel are handed whole chunks: who had rows of the next one takes the rest of it by itself.
    if (viewer.gone.aborted || within !== undefined || !hasReached(this.cursor.position, position)) return
    // What the next frame of `latest` holds of these readings, it has had: it joins behind that.
    if (subscription.mode === 'latest' && this.latest.isDue) return
    this.ahead.delete(each)
    for (const frame of frames.flush()) viewer.send(frame)
    if (viewer.gone.aborted) return
    this.learnReceived(position, receivedAt)
    this.channels.join(viewer, subscription)
    this.every.learn(frames.newest, frames.isResumed && subscription.mode === 'every')
    frames.forget()
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
}
