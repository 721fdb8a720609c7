// The errors that callers act on, one class an action. Anything else that is thrown is a bug: the process ends and the batch is read again.

/** A dependency is away or slow: wait, then do the same again. */
export class RetryableError extends Error {
  override readonly name = 'RetryableError'
  /** Wait at least this long before the next try. */
  readonly retryAfterMs: number
  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number } = {}) {
    super(message, { cause: options.cause })
    this.retryAfterMs = options.retryAfterMs ?? 0
  }
}

/** A named limit is reached: nothing was kept, the sender is told and may try later. */
export class LimitError extends Error {
  override readonly name = 'LimitError'
  readonly limit: string
  constructor(limit: string, message: string) {
    super(message)
    this.limit = limit
  }
}

/** What is on disk can't be known any more (a failed fsync proves nothing): no further append until the log is opened again. */
export class LogFailedError extends Error {
  override readonly name = 'LogFailedError'
}

/** Bytes on disk are not what was written there; the message names file and offset. */
export class LogDamagedError extends Error {
  override readonly name = 'LogDamagedError'
  readonly file: string
  readonly byte: number
  constructor(file: string, byte: number, message: string) {
    super(message)
    this.file = file
    this.byte = byte
  }
}

/** Retention has passed the asked-for place, or another log lies there than the one that was read. */
export class OffsetOutOfRangeError extends Error {
  override readonly name = 'OffsetOutOfRangeError'
  /** The partition where another log lies: of what is there nothing was read, however far it reaches. */
  readonly otherLogIn: number | undefined
  constructor(message: string, options: { otherLogIn?: number } = {}) {
    super(message)
    this.otherLogIn = options.otherLogIn
  }
}

/** Something outside ourselves keeps us from starting (a port taken, a directory in use): one sentence, exit code 1. */
export class StartError extends Error {
  override readonly name = 'StartError'
}

/** The configuration can't work; lists every problem. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]
  constructor(problems: readonly string[]) {
    super(`The configuration can't be used:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`)
    this.problems = problems
  }
}

/** A request is wrong: becomes application/problem+json (RFC 9457). */
export class RequestError extends Error {
  override readonly name = 'RequestError'
  readonly status: number
  /** Slug of `/problems/<slug>`. */
  readonly slug: string
  readonly title: string
  readonly errors: readonly { readonly path: string; readonly message: string }[]
  constructor(
    status: number,
    slug: string,
    title: string,
    detail: string,
    errors: readonly { readonly path: string; readonly message: string }[] = [],
  ) {
    super(detail)
    this.status = status
    this.slug = slug
    this.title = title
    this.errors = errors
  }
}
