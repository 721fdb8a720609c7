// What one connection is owed, in a bounded queue before its transport; a WebSocket may hold several subscriptions, which share it. A connection that
// stays behind loses its backlog, is told so and let go; its viewers may come back with their cursors. While one of them catches up, its socket sets
// the pace, and only standing still counts.
import type { byeReasons } from '../wire.ts'
import { LiveFrame } from './frame.ts'
import type { Viewer } from './viewer.ts'

export type ByeReason = (typeof byeReasons)[number]

export interface ViewerTransport {
  /** Bytes that a frame takes there. */
  sizeOf(frame: LiveFrame, viewer: Viewer): number
  /** Writes one frame; false: full, wait for `onWritable`. */
  write(frame: LiveFrame, viewer: Viewer): boolean
  /** What is written within goes out together. */
  together?(write: () => void): void
  /** Orders the close after what was written, or at once when that does not go out. */
  end(reason: ByeReason): void
}

export interface OutboxLimits {
  readonly queueBytesMax: number
  /** How long the queue may go without being empty. */
  readonly behindMsMax: number
  /** How long a connection that catches up may take nothing at all. */
  readonly stuckMsMax: number
}

export const outboxLimits: OutboxLimits = { queueBytesMax: 4 * 1024 * 1024, behindMsMax: 5_000, stuckMsMax: 60_000 }

interface Queued {
  readonly frame: LiveFrame
  readonly viewer: Viewer
  readonly bytes: number
}

/** What all connections have queued together: when it is too much, the one that holds most is let go. */
export class OutboxMemory {
  readonly bytesMax: number
  bytes = 0
  private readonly holders = new Set<Outbox>()

  constructor(bytesMax = 256 * 1024 * 1024) {
    this.bytesMax = bytesMax
  }

  add(outbox: Outbox, bytes: number): void {
    this.bytes += bytes
    this.holders.add(outbox)
    while (this.bytes > this.bytesMax && this.holders.size > 0) {
      let largest = outbox
      for (const each of this.holders) if (each.queuedBytes > largest.queuedBytes) largest = each
      largest.bye('slow')
    }
  }

  take(outbox: Outbox, bytes: number): void {
    this.bytes -= bytes
    if (outbox.queuedBytes === 0) this.holders.delete(outbox)
  }
}

export class Outbox {
  queuedBytes = 0
  isGone = false
  private readonly transport: ViewerTransport
  private readonly limits: OutboxLimits
  private readonly memory: OutboxMemory
  private readonly viewers = new Set<Viewer>()
  private queue: Queued[] = []
  private isWritable = true
  private behindTimer: NodeJS.Timeout | undefined
  private timerIsForStuck = false
  private writableWaiters: (() => void)[] = []

  constructor(transport: ViewerTransport, limits: OutboxLimits = outboxLimits, memory = new OutboxMemory()) {
    this.transport = transport
    this.limits = limits
    this.memory = memory
  }

  add(viewer: Viewer): void {
    this.viewers.add(viewer)
  }

  /** The viewer has left; the connection stays. */
  remove(viewer: Viewer): void {
    this.viewers.delete(viewer)
    if (this.isGone || this.queue.length === 0) return
    this.replaceQueue(this.queue.filter((each) => each.viewer !== viewer))
    this.settle()
  }

  get viewerCount(): number {
    return this.viewers.size
  }

  send(frame: LiveFrame, viewer: Viewer): void {
    if (this.isGone) return
    if (this.isWritable && this.queue.length === 0) {
      this.write(frame, viewer)
      return
    }
    const bytes = this.transport.sizeOf(frame, viewer)
    this.queue.push({ frame, viewer, bytes })
    this.queuedBytes += bytes
    this.watch()
    this.memory.add(this, bytes)
    if (this.queuedBytes > this.limits.queueBytesMax) this.bye('slow')
  }

  /** Resolves once nothing is queued and the transport takes more, or the connection is gone. */
  async writable(): Promise<void> {
    if ((this.isWritable && this.queue.length === 0) || this.isGone) return
    this.watch()
    await new Promise<void>((resolve) => this.writableWaiters.push(resolve))
  }

  /** A viewer has caught up: from here on being behind counts, unless another one still catches up. */
  onCaughtUp(): void {
    this.unwatch()
    if (this.queue.length > 0) this.watch()
  }

  /** The transport can take more. */
  onWritable(): void {
    if (this.isGone) return
    this.isWritable = true
    // Some of the queue went out: a viewer that catches up moves.
    if (this.catchesUp()) this.unwatch()
    if (this.transport.together) this.transport.together(() => this.writeQueued())
    else this.writeQueued()
    this.settle()
  }

  /** Ends in order: what is queued is dropped, so that the reason arrives. */
  bye(reason: ByeReason): void {
    if (this.isGone) return
    this.isGone = true
    this.replaceQueue([])
    const say = (): void => {
      for (const viewer of this.viewers) this.transport.write(LiveFrame.bye(reason, viewer.lastCursor), viewer)
    }
    if (this.transport.together) this.transport.together(say)
    else say()
    this.transport.end(reason)
    this.letGo()
  }

  /** The transport is closed. */
  leave(): void {
    if (this.isGone) return
    this.isGone = true
    this.replaceQueue([])
    this.letGo()
  }

  private letGo(): void {
    this.unwatch()
    for (const viewer of [...this.viewers]) viewer.leave()
    this.wake()
  }

  private writeQueued(): void {
    let sent = 0
    let bytes = 0
    while (this.isWritable && sent < this.queue.length) {
      const next = this.queue[sent++]!
      bytes += next.bytes
      this.write(next.frame, next.viewer)
    }
    if (sent === 0) return
    this.queue = this.queue.slice(sent)
    this.queuedBytes -= bytes
    this.memory.take(this, bytes)
  }

  private settle(): void {
    if (this.queue.length > 0) {
      this.watch()
      return
    }
    this.unwatch()
    if (this.isWritable) this.wake()
  }

  private replaceQueue(queue: Queued[]): void {
    let bytes = 0
    for (const each of queue) bytes += each.bytes
    const freed = this.queuedBytes - bytes
    this.queue = queue
    this.queuedBytes = bytes
    if (freed > 0) this.memory.take(this, freed)
  }

  private write(frame: LiveFrame, viewer: Viewer): void {
    this.isWritable = this.transport.write(frame, viewer)
    // An event beside the log of readings, such as an anomaly, moves nobody on.
    if (frame.cursor !== '') viewer.lastCursor = frame.cursor
  }

  private catchesUp(): boolean {
    for (const viewer of this.viewers) if (viewer.catchesUp) return true
    return false
  }

  private watch(): void {
    const isForStuck = this.catchesUp()
    if (this.behindTimer !== undefined && this.timerIsForStuck === isForStuck) return
    clearTimeout(this.behindTimer)
    this.timerIsForStuck = isForStuck
    const limitMs = isForStuck ? this.limits.stuckMsMax : this.limits.behindMsMax
    this.behindTimer = setTimeout(() => this.bye('slow'), limitMs).unref()
  }

  private unwatch(): void {
    clearTimeout(this.behindTimer)
    this.behindTimer = undefined
  }

  /** One after the other: the first may fill the connection again, and what all of them have would be more than it may hold. */
  private wake(): void {
    const next = this.writableWaiters.shift()
    if (next === undefined) return
    next()
    if (this.writableWaiters.length === 0) return
    if (this.isGone) this.wake()
    else setImmediate(() => this.wakeIfWritable())
  }

  private wakeIfWritable(): void {
    if (this.isGone || (this.isWritable && this.queue.length === 0)) this.wake()
  }
}
