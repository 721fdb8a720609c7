// One live subscription: what it is sent goes through the bounded queue of its connection, in order.
import type { LiveGap } from '../wire.ts'
import { encodeCursor, type LiveCursor } from './cursor.ts'
import { LiveFrame } from './frame.ts'
import type { ByeReason, Outbox } from './outbox.ts'

export class Viewer {
  /** JSON of the id that its connection gave it, or '' for the subscription of the address. */
  readonly id: string
  /** Aborted when the viewer is gone, whoever ended it. */
  readonly gone: AbortSignal
  /** Of what was written last. */
  lastCursor = ''
  /** Its socket sets the pace. */
  catchesUp = true
  private readonly outbox: Outbox
  private readonly goneController = new AbortController()

  constructor(outbox: Outbox, id = '') {
    this.outbox = outbox
    this.id = id
    this.gone = this.goneController.signal
    outbox.add(this)
  }

  /** A frame may be shared by many viewers. */
  send(frame: LiveFrame): void {
    if (!this.gone.aborted) this.outbox.send(frame, this)
  }

  caughtUp(cursor: LiveCursor): void {
    this.send(LiveFrame.caughtUp(encodeCursor(cursor)))
    this.catchesUp = false
    this.outbox.onCaughtUp()
  }

  gap(gap: LiveGap, cursor: string): void {
    this.send(LiveFrame.gap(cursor, gap))
  }

  /** Resolves once nothing is queued and the transport takes more, or the viewer is gone. */
  writable(): Promise<void> {
    return this.outbox.writable()
  }

  /** Ends the whole connection in order. */
  bye(reason: ByeReason): void {
    if (!this.gone.aborted) this.outbox.bye(reason)
  }

  /** Ends this subscription alone, when its peer asks for it. */
  unsubscribe(): void {
    if (this.gone.aborted) return
    // What is queued for it goes; the answer is the last of it.
    this.outbox.remove(this)
    this.outbox.send(LiveFrame.bye('unsubscribed', this.lastCursor), this)
    this.goneController.abort()
  }

  leave(): void {
    if (this.gone.aborted) return
    this.outbox.remove(this)
    this.goneController.abort()
  }
}
