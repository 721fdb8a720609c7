// Waiting for a cluster that is away: longer each time, ended by a signal, begun anew by a success.

import { setTimeout as delay } from 'node:timers/promises'

const firstMs = 50
const longestMs = 1_000

export class BackOff {
  private readonly signal: AbortSignal
  private attempt = 0

  constructor(signal: AbortSignal) {
    this.signal = signal
  }

  /** Nothing has failed since the last success. */
  get isFirst(): boolean {
    return this.attempt === 0
  }

  async wait(): Promise<void> {
    const full = Math.min(longestMs, firstMs * 2 ** Math.min(this.attempt++, 10))
    await delay(full / 2 + (full / 2) * Math.random(), undefined, { signal: this.signal }).catch(() => {})
  }

  /** Whether something had failed before. */
  succeeded(): boolean {
    const hadFailed = this.attempt > 0
    this.attempt = 0
    return hadFailed
  }
}
