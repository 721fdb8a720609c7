// Waiting for a cluster that is away: longer each time, ended by a signal, begun anew by a success.

import { setTimeout as delay } from 'node:timers/promises'
import { RetryableError } from '../../runtime/errors.ts'

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

/** Whoever has to stop within a deadline does not wait for an answer that may never come. */
export async function within<Answer>(ms: number, answer: Promise<Answer>, what: string): Promise<Answer> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new RetryableError(`${what} took longer than ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}
