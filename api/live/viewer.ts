// One live subscription: the events it is owed, in a bounded queue before its transport. A viewer that stays behind loses its backlog, is told so
// and let go; it may come back with its cursor. The transport (SSE, later WebSocket) only writes events and says when it can take more.
import type { byeReasons, LiveBye, LiveCaughtUp, LiveGap } from '../wire.ts'
import { encodeCursor, type LiveCursor } from './cursor.ts'

export interface ViewerTransport {
  /** Writes one event; false: full, wait for `onWritable`. `data` is JSON. */
  write(event: LiveEventName, cursor: string, data: string): boolean
  /** Orders the close after what was written, or at once when that does not go out. */
  end(): void
}

export type LiveEventName = 'readings' | 'anomaly' | 'caught-up' | 'gap' | 'bye'
export type ByeReason = (typeof byeReasons)[number]

export interface ViewerLimits {
  readonly queueBytesMax: number
  /** How long the queue may go without being empty. */
  readonly behindMsMax: number
  /** How long a viewer that catches up may take nothing at all. */
  readonly stuckMsMax: number
}

export const viewerLimits: ViewerLimits = { queueBytesMax: 4 * 1024 * 1024, behindMsMax: 5_000, stuckMsMax: 60_000 }

interface QueuedEvent {
  readonly event: LiveEventName
  readonly cursor: string
  readonly data: string
}

export class Viewer {
  /** Aborted when the viewer is gone, whoever ended it. */
  readonly gone: AbortSignal
  private readonly transport: ViewerTransport
  private readonly limits: ViewerLimits
  private readonly goneController = new AbortController()
  private queue: QueuedEvent[] = []
  private queueBytes = 0
  private isWritable = true
  private behindTimer: NodeJS.Timeout | undefined
  private writableWaiters: (() => void)[] = []
  private lastCursor = ''
  /** While it catches up, its socket sets the pace, and only standing still counts. */
  private catchesUp = true

  constructor(transport: ViewerTransport, limits: ViewerLimits) {
    this.transport = transport
    this.limits = limits
    this.gone = this.goneController.signal
  }

  /** `data` is the event's JSON; it may be shared by many viewers. */
  send(event: LiveEventName, cursor: string, data: string): void {
    if (this.gone.aborted) return
    if (this.isWritable && this.queue.length === 0) {
      this.write({ event, cursor, data })
      return
    }
    this.queue.push({ event, cursor, data })
    this.queueBytes += data.length + cursor.length
    if (this.queueBytes > this.limits.queueBytesMax) this.bye('slow')
    else this.watch()
  }

  caughtUp(cursor: LiveCursor): void {
    const encoded = encodeCursor(cursor)
    this.send('caught-up', encoded, JSON.stringify({ cursor: encoded } satisfies LiveCaughtUp))
    this.catchesUp = false
    this.unwatch()
    if (this.queue.length > 0) this.watch()
  }

  gap(gap: LiveGap, cursor: LiveCursor): void {
    this.send('gap', encodeCursor(cursor), JSON.stringify(gap))
  }

  /** Resolves once nothing is queued and the transport takes more, or the viewer is gone. */
  async writable(): Promise<void> {
    if ((this.isWritable && this.queue.length === 0) || this.gone.aborted) return
    this.watch()
    await new Promise<void>((resolve) => this.writableWaiters.push(resolve))
  }

  /** Ends in order: what is queued is dropped, so that the reason arrives. */
  bye(reason: ByeReason): void {
    if (this.gone.aborted) return
    this.queue = []
    this.queueBytes = 0
    const bye: LiveBye = { reason, cursor: this.lastCursor }
    this.transport.write('bye', this.lastCursor, JSON.stringify(bye))
    this.transport.end()
    this.leave()
  }

  /** The transport can take more. */
  onWritable(): void {
    this.isWritable = true
    // Some of the queue went out: a viewer that catches up moves.
    if (this.catchesUp) this.unwatch()
    let sent = 0
    while (this.isWritable && sent < this.queue.length) {
      const next = this.queue[sent++]!
      this.queueBytes -= next.data.length + next.cursor.length
      this.write(next)
    }
    this.queue = this.queue.slice(sent)
    if (this.queue.length > 0) {
      this.watch()
      return
    }
    this.unwatch()
    if (this.isWritable) this.wake()
  }

  /** The transport is closed. */
  leave(): void {
    if (this.gone.aborted) return
    this.unwatch()
    this.queue = []
    this.goneController.abort()
    this.wake()
  }

  private write({ event, cursor, data }: QueuedEvent): void {
    this.isWritable = this.transport.write(event, cursor, data)
    // An event beside the log of readings, such as an anomaly, moves nobody on.
    if (cursor !== '') this.lastCursor = cursor
  }

  private watch(): void {
    const limitMs = this.catchesUp ? this.limits.stuckMsMax : this.limits.behindMsMax
    this.behindTimer ??= setTimeout(() => this.bye('slow'), limitMs).unref()
  }

  private unwatch(): void {
    clearTimeout(this.behindTimer)
    this.behindTimer = undefined
  }

  private wake(): void {
    const waiters = this.writableWaiters
    this.writableWaiters = []
    for (const resolve of waiters) resolve()
  }
}
