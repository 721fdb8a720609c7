// Makes cycles durable, one after the other: while one is under way the next is gathered. A cycle that the log refuses is kept and tried again,
// only those of its chunks that were refused, so that nothing is acknowledged that isn't durable and nothing is appended twice.

import type { EventLog } from '../domain/event-log.ts'
import { rejectReasons } from '../domain/outcome.ts'
import type { RowWriter } from '../domain/row-format.ts'
import type { Clock } from '../runtime/clock.ts'
import { LimitError, LogFailedError, RetryableError } from '../runtime/errors.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health } from '../runtime/service.ts'
import type { Cycle, PartitionChunks } from './accept-cycle.ts'

const retryMsMin = 50
const retryMsMax = 1000

export interface AcceptTotals {
  /** Readings: durable, dead-lettered, and those that are not durable yet. */
  readonly received: number
  /** Readings that are durable. */
  readonly durable: number
  /** Readings whose dead letter is durable. */
  readonly deadLettered: number
  /** When the oldest payload came that is not durable yet, in microseconds; 0 when there is none. */
  readonly oldestPendingAt: number
}

export interface CycleCommitterOptions {
  readonly log: EventLog
  readonly clock: Clock
  readonly logger: Logger
  readonly instruments: Instruments
  readonly cycles: readonly [Cycle, Cycle]
}

/** One partition's chunks of the cycle under way; `done` of them are durable. */
interface PartitionAppend {
  readonly chunks: PartitionChunks
  readonly writers: readonly RowWriter[]
  done: number
}

export class CycleCommitter {
  /** Takes what is accepted now. */
  gathering: Cycle
  durableCycle = 0
  private spare: Cycle
  private committing: Cycle | undefined
  /** The end of this turn will be looked at. */
  private isScheduled = false
  private isClosed = false
  /** Why the cycle under way isn't durable yet; `kind` tells whether that was said already. */
  private refusal: { readonly state: 'degraded' | 'failed'; readonly detail: string; readonly kind: string } | undefined
  private retryMs = 0
  private retryTimer: NodeJS.Timeout | undefined
  private durableReadings = 0
  private durableDeadLettered = 0
  private readonly bringers: (() => void)[] = []
  private readonly listeners: ((durableCycle: number) => void)[] = []
  private readonly waiting = new Set<() => void>()
  private readonly log: EventLog
  private readonly clock: Clock
  private readonly logger: Logger
  private readonly counters: ReturnType<typeof createCounters>

  constructor({ log, clock, logger, instruments, cycles }: CycleCommitterOptions) {
    this.log = log
    this.clock = clock
    this.logger = logger
    this.gathering = cycles[0]
    this.spare = cycles[1]
    this.gathering.begin(1)
    this.counters = createCounters(instruments)
    instruments.gauge('weir_ingest_pending_bytes', 'Bytes accepted and not durable yet', () => this.pendingBytes)
  }

  /** To be called after each write into `gathering`; answers its number. */
  touched(now: number): number {
    const { gathering } = this
    if (gathering.beganAt === 0) gathering.beganAt = now
    if (this.committing === undefined) this.expect()
    return gathering.number
  }

  /** Something comes by the end of the turn: everything that came with it goes into one commit. */
  expect(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    setImmediate(this.endTurn)
  }

  /** `bring` writes what was gathered elsewhere. */
  beforeCommit(bring: () => void): void {
    this.bringers.push(bring)
  }

  onDurable(listener: (durableCycle: number) => void): void {
    this.listeners.push(listener)
  }

  get pendingBytes(): number {
    return this.gathering.bytes + (this.committing?.bytes ?? 0)
  }

  totals(): AcceptTotals {
    const { gathering, committing } = this
    const pending =
      gathering.readings + gathering.deadLettered + (committing ? committing.readings + committing.deadLettered : 0)
    return {
      received: this.durableReadings + this.durableDeadLettered + pending,
      durable: this.durableReadings,
      deadLettered: this.durableDeadLettered,
      oldestPendingAt: committing?.beganAt ?? gathering.beganAt,
    }
  }

  health(): Health {
    return this.refusal ? { state: this.refusal.state, detail: this.refusal.detail } : { state: 'ok' }
  }

  /** Of readings that the log has not taken yet. Not to be called while it may hold some of them. */
  raiseReceivedAt(partition: number, micros: number): void {
    this.gathering.rows[partition]!.raiseReceivedAt(micros)
    if (this.committing) this.committing.rows[partition]!.raiseReceivedAt(micros)
  }

  async drain(deadline: AbortSignal): Promise<void> {
    const upTo = this.gathering.beganAt === 0 ? this.gathering.number - 1 : this.gathering.number
    while (this.durableCycle < upTo && !deadline.aborted) {
      await new Promise<void>((resolve) => {
        const done = (): void => {
          this.waiting.delete(done)
          deadline.removeEventListener('abort', done)
          resolve()
        }
        this.waiting.add(done)
        deadline.addEventListener('abort', done)
      })
    }
  }

  async close(): Promise<void> {
    this.isClosed = true
    clearTimeout(this.retryTimer)
    for (const done of [...this.waiting]) done()
  }

  private readonly endTurn = (): void => {
    this.bring()
    this.isScheduled = false
    // While a cycle is under way the next one goes when that is settled.
    if (this.committing === undefined && this.gathering.beganAt !== 0) this.commitNext()
  }

  private bring(): void {
    for (const bring of this.bringers) bring()
  }

  private commitNext(): void {
    if (this.isClosed) return
    const cycle = this.gathering
    this.committing = cycle
    this.gathering = this.spare
    this.gathering.begin(cycle.number + 1)
    const appends: PartitionAppend[] = []
    for (const chunks of cycle.rows) if (chunks.count > 0) appends.push({ chunks, writers: chunks.chunks(), done: 0 })
    for (const chunks of cycle.deadLetters) {
      if (chunks.count > 0) appends.push({ chunks, writers: chunks.chunks(), done: 0 })
    }
    this.commit(cycle, appends)
  }

  private commit(cycle: Cycle, appends: readonly PartitionAppend[]): void {
    const startedAt = performance.now()
    let open = 0
    const errors: unknown[] = []
    const settle = (error: unknown): void => {
      if (error !== undefined) errors.push(error)
      if (--open > 0) return
      this.counters.commitSeconds.observe((performance.now() - startedAt) / 1000)
      if (errors.length === 0) this.settled(cycle)
      else this.refused(cycle, appends, errors)
    }
    open = 1
    for (const append of appends) {
      open++
      this.appendAll(append).then(
        () => settle(undefined),
        (error) => settle(error ?? new Error('append rejected with nothing')),
      )
    }
    settle(undefined)
  }

  /** A partition's chunks one after the other: when one is refused, none behind it overtakes it. */
  private async appendAll(append: PartitionAppend): Promise<void> {
    const { chunks, writers } = append
    for (; append.done < writers.length; append.done++) {
      const writer = writers[append.done]!
      await this.log.append(chunks.topic, chunks.partition, writer.rows(), writer.count, writer.receivedAt)
    }
  }

  private settled(cycle: Cycle): void {
    if (this.refusal) this.logger.info({ cycle: cycle.number }, 'the log takes readings again; acknowledging goes on')
    this.refusal = undefined
    this.retryMs = 0
    this.durableReadings += cycle.readings
    this.durableDeadLettered += cycle.deadLettered
    this.durableCycle = cycle.number
    this.count(cycle)
    this.bring()
    this.committing = undefined
    this.spare = cycle
    // First what the disk will work on, then whoever waited for what it has done: a log takes appends of one tick together, and begins in the next.
    if (this.gathering.beganAt !== 0) this.commitNext()
    process.nextTick(this.tellDurable)
  }

  private readonly tellDurable = (): void => {
    for (const listener of this.listeners) listener(this.durableCycle)
    for (const done of [...this.waiting]) done()
  }

  private refused(cycle: Cycle, appends: readonly PartitionAppend[], errors: readonly unknown[]): void {
    const bug = errors.find((error) => !isRefusal(error))
    if (bug !== undefined) throw bug
    const failure = errors.find((error) => error instanceof LogFailedError) as LogFailedError | undefined
    if (failure) {
      // Fail-stop: the cycle stays as it is, for ever; nothing of it is acknowledged.
      this.refusal = { state: 'failed', detail: failure.message, kind: failure.name }
      this.logger.error(
        { error: failure.message, cycle: cycle.number },
        'the log has failed; nothing is acknowledged until it is opened again',
      )
      return
    }
    const refusal = errors[0] as LimitError | RetryableError
    const kind = refusal instanceof LimitError ? `${refusal.name} ${refusal.limit}` : refusal.name
    if (this.refusal?.kind !== kind) {
      this.logger.warn(
        { error: refusal.message, cycle: cycle.number },
        'the log refuses readings; nothing is acknowledged, trying again',
      )
    }
    this.refusal = { state: 'degraded', detail: refusal.message, kind }
    this.counters.retries.inc()
    this.retryMs = Math.min(retryMsMax, Math.max(retryMsMin, this.retryMs * 2))
    const waitMs = Math.max(
      this.retryMs,
      refusal instanceof RetryableError ? Math.min(refusal.retryAfterMs, retryMsMax) : 0,
    )
    if (!this.isClosed) this.retryTimer = setTimeout(() => this.commit(cycle, appends), waitMs)
  }

  private count(cycle: Cycle): void {
    const { counters } = this
    counters.payloads.inc(cycle.payloads)
    counters.readings.inc(cycle.readings)
    counters.bytes.inc(cycle.bytes)
    for (const [reason, count] of cycle.deadLetteredBy) counters.deadLettered.inc({ reason }, count)
    counters.durableMs.observe(Math.max(0, this.clock.nowMicros() - cycle.beganAt) / 1e6)
  }
}

function isRefusal(error: unknown): boolean {
  return error instanceof LimitError || error instanceof RetryableError || error instanceof LogFailedError
}

const secondsBuckets = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1, 5, 30]

function createCounters(instruments: Instruments) {
  return {
    payloads: instruments.counter('weir_ingest_payloads_total', 'Payloads whose readings or dead letters are durable'),
    readings: instruments.counter('weir_ingest_readings_total', 'Readings that are durable in the log'),
    bytes: instruments.counter('weir_ingest_bytes_total', 'Bytes of rows and dead letters that are durable in the log'),
    deadLettered: instruments.counter('weir_ingest_dead_letters_total', 'Readings that became dead letters', {
      reason: rejectReasons,
    }),
    retries: instruments.counter(
      'weir_ingest_append_retries_total',
      'Commits that the log refused and that are tried again',
    ),
    commitSeconds: instruments.histogram(
      'weir_ingest_commit_seconds',
      'Time that the log took for one commit',
      secondsBuckets,
    ),
    durableMs: instruments.histogram(
      'weir_ingest_durable_seconds',
      'Time from the first payload of a commit to its being durable',
      secondsBuckets,
    ),
  }
}
