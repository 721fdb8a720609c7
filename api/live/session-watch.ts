// Lets go of viewers whose session is over, signed out of or run out: a connection is asked for its authority once, and would outlive it.
import type { ViewerSession } from '../../runtime/access/viewer-access.ts'
import type { Outbox } from './outbox.ts'

/** docs/live.md promises five seconds. */
const lookEveryMs = 1_000

export class SessionWatch {
  private readonly sessions = new Map<Outbox, ViewerSession>()
  private timer: NodeJS.Timeout | undefined

  watch(outbox: Outbox, session: ViewerSession): void {
    this.sessions.set(outbox, session)
    this.timer ??= setInterval(() => this.look(), lookEveryMs).unref()
  }

  private look(): void {
    for (const [outbox, session] of this.sessions) {
      if (session.isOver()) outbox.bye('session-over')
      if (outbox.isGone) this.sessions.delete(outbox)
    }
    if (this.sessions.size > 0) return
    clearInterval(this.timer)
    this.timer = undefined
  }
}
