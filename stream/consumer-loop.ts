// One group's way through one topic: fetch, handle, commit, pause, drain, for any adapter of the log. Nothing else calls read() or commit().
//
//   log ──read()──▶ gathering ──take()──▶ handle(batch) ──▶ commit(position)
//    ▲     │ full?      │ due?                │ RetryableError: wait, the same batch again
//    └─ stop reading ◀──┘                     │ anything else: crash; the batch is read again
//                                             ▼ resolved
//                                      the next batch, which gathered meanwhile
//
// - At most one batch is handled at a time, so positions are committed in order and never past a batch that was not handled.
// - While it is, the next one gathers, up to a bound; past it reading stops, and the log is the buffer.
// - What was read and not committed is read again by the next process: handling must bear repeats.
// - What only a person can mend (a damaged log or position, chunks that retention removed unread) makes this loop stand still and say so; it looks
//   again now and then. Others in its process go on.
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Chunk,
  type ConsumerGroup,
  type EventLog,
  type LogConsumer,
  type LogTopic,
  positionAfter,
} from '../domain/event-log.ts'
import { LogDamagedError, OffsetOutOfRangeError, RetryableError } from '../runtime/errors.ts'
import { type BatchLimits, batchLimits, Gathering, oldestReceivedAt } from './batch-policy.ts'
import type { ConsumerEvents } from './events.ts'

export interface Batch {
  /** Contiguous within each partition. */
  readonly chunks: readonly Chunk[]
  readonly rows: number
  readonly bytes: number
}

/** Resolve: committed. RetryableError: the same batch again, later. Anything else: the process ends. `stop` means: end soon, by throwing. */
export type BatchHandler = (batch: Batch, stop: AbortSignal) => Promise<void>

export interface ConsumerLoopOptions {
  readonly log: EventLog
  readonly group: ConsumerGroup
  readonly topic: LogTopic
  readonly handle: BatchHandler
  /** Where the handler keeps what it is given: SubscribeOptions. */
  readonly keepsIn?: string | undefined
  readonly events: ConsumerEvents
  /** Called once when the loop can't go on. */
  readonly crash: (error: Error) => void
  readonly limits?: BatchLimits
  readonly backOff?: BackOff
  /** How often a loop that stands still looks again. */
  readonly standStillMs?: number
  /** A read that waits so long, twice, without trouble: what was in its way is gone, and there is just nothing to read. */
  readonly quietMs?: number
}

export interface BackOff {
  readonly firstMs: number
  readonly longestMs: number
  /** 0 to 1: chance is passed in. */
  readonly random: () => number
}

/** Unlike `trouble()`, which passes by itself. */
interface Standstill {
  /** That can't be read: where the group stands, or what it is to read next. */
  readonly what: 'position' | 'chunks'
  readonly cause: Error
}

const backOffDefault: BackOff = { firstMs: 100, longestMs: 5_000, random: Math.random }
const readBytesMax = 4 * 1024 * 1024
const standStillMsDefault = 5_000
const quietMsDefault = 5_000

/** Doubles from first to longest, each time somewhere in its upper half, so that many do not come back at once. */
export function backOffMs({ firstMs, longestMs, random }: BackOff, attempt: number): number {
  const full = Math.min(longestMs, firstMs * 2 ** Math.min(attempt, 30))
  return full / 2 + (full / 2) * random()
}

export class ConsumerLoop {
  private readonly options: ConsumerLoopOptions
  private readonly gathering: Gathering
  /** Ends reading. */
  private readonly draining = new AbortController()
  /** Ends everything. */
  private readonly stopping = new AbortController()
  private consumer: LogConsumer | undefined
  private tasks: Promise<unknown> = Promise.resolve()
  private inHand: Batch | undefined
  private standing: Standstill | undefined
  /** How often it has looked again since it stands still. */
  private looks = 0
  /** The reader, the handler, or both. */
  private readonly sleepers = new Set<() => void>()

  constructor(options: ConsumerLoopOptions) {
    this.options = options
    this.gathering = new Gathering(options.limits ?? batchLimits)
  }

  /** Does not wait for a log that is away: `trouble()` says so, and reading begins when it is there. */
  async start(): Promise<void> {
    await this.open()
    const guarded = (task: Promise<void>): Promise<void> =>
      task.catch((error: Error) => {
        if (this.stopping.signal.aborted) return
        this.stopping.abort()
        this.options.events.crashed(error)
        this.options.crash(error)
      })
    this.tasks = Promise.all([guarded(this.read()), guarded(this.handleBatches())])
  }

  /** Reads no more, and handles what was read until the deadline; the rest stays uncommitted. */
  async drain(deadline: AbortSignal): Promise<void> {
    this.draining.abort()
    this.wake()
    const end = (): void => this.stopping.abort()
    if (deadline.aborted) end()
    deadline.addEventListener('abort', end, { once: true })
    await this.tasks
    deadline.removeEventListener('abort', end)
  }

  async stop(): Promise<void> {
    this.draining.abort()
    this.stopping.abort()
    this.wake()
    await this.tasks
    await this.consumer?.close()
    this.consumer = undefined
  }

  /** Why nothing is read or committed, as a sentence; undefined while all is well. */
  trouble(): string | undefined {
    return this.consumer?.trouble()
  }

  /** Chunks that are durable and not handled. */
  async lag(): Promise<number> {
    return (await this.consumer?.lag()) ?? 0
  }

  /** receivedAt of the oldest chunk that was read and is not handled, in microseconds. */
  oldestReceivedAt(): number | undefined {
    return (this.inHand && oldestReceivedAt(this.inHand.chunks)) ?? this.gathering.oldestReceivedAt()
  }

  /** What keeps it standing still; undefined: nothing. */
  standsStill(): Error | undefined {
    return this.standing?.cause
  }

  private async open(): Promise<void> {
    const { log, group, topic, keepsIn } = this.options
    try {
      this.consumer = await log.subscribe(group, topic, { keepsIn })
    } catch (error) {
      if (!this.isForAPerson('position', error)) throw error
      return
    }
    this.goOnAfter('position')
  }

  private isForAPerson(what: Standstill['what'], cause: unknown): boolean {
    if (!(cause instanceof LogDamagedError || cause instanceof OffsetOutOfRangeError)) return false
    if (this.standing?.cause.message !== cause.message) this.options.events.standsStill(cause)
    this.standing = { what, cause }
    return true
  }

  private goOnAfter(what: Standstill['what']): void {
    if (this.standing?.what !== what) return
    this.standing = undefined
    this.looks = 0
    this.options.events.goesOn()
  }

  /** Once what was read is handled: it is committed, and read from there again. */
  private async letGo(): Promise<void> {
    while (this.inHand || this.gathering.oldestReceivedAt() !== undefined) {
      if (this.draining.signal.aborted) return
      await this.awake(Number.POSITIVE_INFINITY, this.draining.signal)
    }
    await this.consumer?.close()
    this.consumer = undefined
  }

  private async openAgain(): Promise<void> {
    const { signal } = this.draining
    const firstMs = this.options.standStillMs ?? standStillMsDefault
    const ms = backOffMs({ ...backOffDefault, firstMs, longestMs: 12 * firstMs }, this.looks++)
    await delay(ms, undefined, { signal }).catch(() => {})
    if (signal.aborted) return
    await this.open().catch((error: unknown) => {
      if (!(error instanceof RetryableError)) throw error
    })
  }

  private async read(): Promise<void> {
    while (!this.draining.signal.aborted) {
      if (!this.consumer) {
        await this.openAgain()
        continue
      }
      const free = this.gathering.bytesFree()
      if (free === 0) {
        // A batch is taken before long: take() wakes us.
        await this.awake(Number.POSITIVE_INFINITY, this.draining.signal)
        continue
      }
      const chunks = await this.readOnce(Math.min(free, readBytesMax))
      if (chunks.length === 0) continue
      this.gathering.add(chunks, performance.now())
      this.wake()
    }
  }

  private async readOnce(bytesMax: number): Promise<readonly Chunk[]> {
    for (let attempt = 0; ; attempt++) {
      const watch = this.standing ? this.watchForQuiet() : undefined
      try {
        const chunks = await this.consumer!.read(bytesMax, this.draining.signal)
        if (chunks.length > 0) this.goOnAfter('chunks')
        return chunks
      } catch (error) {
        if (this.draining.signal.aborted) return []
        if (this.isForAPerson('chunks', error)) {
          await this.letGo()
          return []
        }
        if (!(error instanceof RetryableError)) throw error
        await this.backOff(error, attempt, this.draining.signal)
      } finally {
        clearInterval(watch)
      }
    }
  }

  /** While a read waits: who was set to a place that is good stands still no longer, also where nothing comes for hours. */
  private watchForQuiet(): NodeJS.Timeout {
    let wasQuiet = false
    return setInterval(() => {
      const isQuiet = this.trouble() === undefined
      if (isQuiet && wasQuiet) this.goOnAfter('chunks')
      wasQuiet = isQuiet
    }, this.options.quietMs ?? quietMsDefault).unref()
  }

  private async handleBatches(): Promise<void> {
    while (!this.stopping.signal.aborted) {
      const isLast = this.draining.signal.aborted
      const dueInMs = this.gathering.dueInMs(performance.now())
      if (dueInMs === Number.POSITIVE_INFINITY && isLast) return
      if (dueInMs > 0 && !isLast) {
        await this.awake(dueInMs, this.stopping.signal)
        continue
      }
      this.inHand = this.gathering.take()
      this.wake()
      await this.handleUntilDone(this.inHand)
      this.inHand = undefined
      this.wake()
    }
  }

  private async handleUntilDone(batch: Batch): Promise<void> {
    const { handle, events } = this.options
    const { signal } = this.stopping
    let isHandled = false
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        if (!isHandled) await handle(batch, signal)
        isHandled = true
        // Of this batch alone: where other partitions stood before, a person may have set back since.
        await unlessAborted(this.consumer!.commit(positionAfter(batch.chunks)), signal)
        if (attempt > 0) events.resumed(attempt + 1)
        return
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof RetryableError)) throw error
        if (attempt === 0) events.waiting(error)
        events.attemptFailed()
        await this.backOff(error, attempt, signal)
      }
    }
  }

  private async backOff(error: RetryableError, attempt: number, signal: AbortSignal): Promise<void> {
    const ms = Math.max(error.retryAfterMs, backOffMs(this.options.backOff ?? backOffDefault, attempt))
    await delay(ms, undefined, { signal }).catch(() => {})
  }

  /** Until something changed: chunks came, a batch was taken, the end; or this much time has passed. */
  private awake(ms: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return Promise.resolve()
    return new Promise((resolve) => {
      const go = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', go)
        this.sleepers.delete(go)
        resolve()
      }
      const timer = ms === Number.POSITIVE_INFINITY ? undefined : setTimeout(go, ms)
      signal.addEventListener('abort', go, { once: true })
      this.sleepers.add(go)
    })
  }

  private wake(): void {
    for (const go of [...this.sleepers]) go()
  }
}

/** A log that is away may keep an answer for longer than a stop may take. A commit that is given up may have been taken: it was of what is handled. */
async function unlessAborted(answer: Promise<void>, signal: AbortSignal): Promise<void> {
  let end = (): void => {}
  const ended = new Promise<never>((_resolve, reject) => {
    end = () => reject(new RetryableError('stopped before the log answered'))
  })
  signal.addEventListener('abort', end, { once: true })
  if (signal.aborted) end()
  try {
    await Promise.race([answer, ended])
  } finally {
    signal.removeEventListener('abort', end)
  }
}
