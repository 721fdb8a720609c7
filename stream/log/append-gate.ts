// Whether an appender takes appends, and if not, why: what the log's state says and what a refused append is told come from here. A disk that does not
// answer gives no error, so the gate watches how long a commit takes.

import type { LogState } from '../../domain/event-log.ts'
import { LogFailedError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'

/** A disk that takes longer than this for one commit is said to be stalled. */
const slowCommitMs = 5000

const ok: LogState = { state: 'ok' }

export class AppendGate {
  state: LogState = ok
  /** Why appends are refused; undefined while they are taken. */
  refusal: (() => Error) | undefined
  /** The disk has not answered a commit, which is under way still. */
  isStalled = false
  private commitBeganAt: number | undefined
  /** Set by close: whatever happens to the disk, appends stay refused. */
  private isClosing = false
  private readonly logger: Logger
  private readonly onState: (state: LogState) => void

  constructor(logger: Logger, onState: (state: LogState) => void) {
    this.logger = logger
    this.onState = onState
  }

  commitBegins(): void {
    this.commitBeganAt = performance.now()
  }

  commitEnds(): void {
    this.commitBeganAt = undefined
  }

  takeAgain(): void {
    this.isStalled = false
    if (!this.isClosing) this.refusal = undefined
    this.setState(ok)
  }

  refuse(state: LogState, refusal: () => Error): void {
    if (!this.isClosing) this.refusal = refusal
    this.setState(state)
  }

  /** What is on disk can't be known: nothing more is taken until the log is opened again. Returns what appends are told. */
  fail(error: LogFailedError): () => Error {
    const reason = `${error.message}; the log takes nothing more until it is opened again`
    const refusal = () => new LogFailedError(reason, { cause: error })
    this.refuse({ state: 'failed', reason }, refusal)
    this.logger.error({ error }, reason)
    return refusal
  }

  /** To be called every now and then: refuses rather than let the senders wait without a word. */
  watchForStall(): void {
    if (this.commitBeganAt === undefined || this.refusal) return
    const tookMs = performance.now() - this.commitBeganAt
    if (tookMs < slowCommitMs) return
    const reason = `the disk has not answered a commit to the log for ${Math.round(tookMs / 1000)} s`
    this.logger.error({}, reason)
    this.isStalled = true
    this.refuse({ state: 'stalled', reason }, () => new RetryableError(reason, { retryAfterMs: 1000 }))
  }

  close(): void {
    this.isClosing = true
    this.refusal = () => new RetryableError('the log is closed')
  }

  private setState(state: LogState): void {
    const isSame = JSON.stringify(state) === JSON.stringify(this.state)
    this.state = state
    if (!isSame) this.onState(state)
  }
}
