// Brings the last values up to date and keeps them so: what the table knows, once, and the log from the writer's committed place on, for ever.
// That place is taken before the table is asked, so that between the two nothing is missing; what both say is folded.
import { setTimeout as wait } from 'node:timers/promises'
import { type Chunk, type EventLog, type LogPosition, positionAfter } from '../../domain/event-log.ts'
import { OffsetOutOfRangeError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { Health } from '../../runtime/service.ts'
import { isWithoutTables } from '../queries/question.ts'
import { hasReached } from './cursor.ts'
import { writersPlace } from './history.ts'
import type { LiveHub } from './hub.ts'
import type { LastValues, StoredSeries } from './last-values.ts'

export interface LogFeedOptions {
  readonly log: EventLog
  readonly lastValues: LastValues
  readonly hub: LiveHub
  readonly logger: Logger
  /** The newest reading of every series in the table. */
  readonly stored: (signal: AbortSignal) => AsyncIterable<readonly StoredSeries[]>
}

const retryMsMin = 200
const retryMsMax = 5_000

export class LogFeed {
  /** Readings seen since the start. */
  seenReadings = 0
  /** receivedAt of the newest chunk seen. */
  seenReceivedAt = 0
  private readonly options: LogFeedOptions
  private readonly stopped = new AbortController()
  private running: Promise<unknown> = Promise.resolve()
  private isStoredTaken = false
  private isLogReached = false
  private readonly problems = new Map<'log' | 'table', string>()

  constructor(options: LogFeedOptions) {
    this.options = options
  }

  /** True once the newest reading of every series is known. */
  get isReady(): boolean {
    return this.isStoredTaken && this.isLogReached
  }

  start(): void {
    this.options.lastValues.isWhole = false
    this.running = this.run()
  }

  async stop(): Promise<void> {
    this.stopped.abort()
    await this.running
  }

  health(): Health {
    const { lastValues, log } = this.options
    if (this.problems.size > 0) {
      return { state: this.isReady ? 'degraded' : 'starting', detail: [...this.problems.values()].join(' ') }
    }
    if (!this.isStoredTaken) return { state: 'starting', detail: 'Reading the newest value of every series.' }
    if (!this.isLogReached) return { state: 'starting', detail: 'Reading what the log has beyond the table.' }
    const state = log.state()
    if (state.state !== 'ok') return { state: 'degraded', detail: state.reason }
    if (lastValues.untracked === 0) return { state: 'ok' }
    const detail = `There are more than ${lastValues.seriesCount} series: those beyond are stored, but have no latest value and no live view.`
    return { state: 'degraded', detail }
  }

  private async run(): Promise<void> {
    while (!this.stopped.signal.aborted) {
      const attempt = new AbortController()
      const { signal } = attempt
      const end = (): void => attempt.abort()
      this.stopped.signal.addEventListener('abort', end, { once: true })
      const from = await this.writersPlace(signal)
      if (from === undefined) return
      const stored = this.takeStored(signal)
      await this.follow(from, signal)
      // Only when retention passed us, which a stopped writer alone can't bring about: begin anew from the table.
      end()
      await stored
      this.stopped.signal.removeEventListener('abort', end)
    }
  }

  private async writersPlace(signal: AbortSignal): Promise<LogPosition | undefined> {
    let place: LogPosition | undefined
    await this.insist(signal, 'log', async () => {
      place = await writersPlace(this.options.log)
    })
    return place
  }

  private async takeStored(signal: AbortSignal): Promise<void> {
    await this.insist(signal, 'table', async () => {
      for await (const rows of this.options.stored(signal)) {
        for (const row of rows) this.options.lastValues.applyStored(row)
      }
      this.isStoredTaken = true
      this.options.lastValues.isWhole = true
    })
  }

  /** Returns when the place is no longer in the log, or on stop. */
  private async follow(from: LogPosition, signal: AbortSignal): Promise<void> {
    const { log, lastValues, hub } = this.options
    let position = from
    let isLost = false
    hub.startAt(from)
    await this.insist(signal, 'log', async () => {
      const end = await log.end('readings')
      this.problems.delete('log')
      this.isLogReached ||= hasReached(position, end)
      try {
        for await (const chunks of log.tail('readings', position, signal)) {
          for (const chunk of chunks) {
            lastValues.apply(chunk.rows)
            this.seenReadings += chunk.count
            this.seenReceivedAt = Math.max(this.seenReceivedAt, chunk.receivedAt)
          }
          position = positionAfter(chunks, position)
          this.fanOut(chunks, position)
          this.isLogReached ||= hasReached(position, end)
        }
      } catch (error) {
        if (!(error instanceof OffsetOutOfRangeError)) throw error
        this.options.logger.warn({ error }, 'the log no longer reaches back to what was seen last; reading the table')
        isLost = true
      }
    })
    if (!isLost) return
    this.isStoredTaken = false
    this.options.lastValues.isWhole = false
    this.isLogReached = false
    hub.losePlace()
  }

  /** What fails there must not lose anybody anything: viewers come back with the cursors that they have. */
  private fanOut(chunks: readonly Chunk[], position: LogPosition): void {
    const { hub, logger } = this.options
    try {
      hub.accept(chunks)
    } catch (error) {
      logger.error({ error }, 'readings could not be fanned out to viewers; all are let go')
      hub.losePlace()
      hub.startAt(position)
    }
  }

  /** Does it until it succeeds or the signal ends it, with a growing pause; what stands in the way is said in health. */
  private async insist(signal: AbortSignal, what: 'log' | 'table', attempt: () => Promise<void>): Promise<void> {
    let pauseMs = retryMsMin
    while (!signal.aborted) {
      try {
        await attempt()
        this.problems.delete(what)
        return
      } catch (error) {
        if (signal.aborted) return
        this.problems.set(what, `The ${what} can’t be read: ${(error as Error).message}`)
        if (!(error instanceof RetryableError || isWithoutTables(error)))
          this.options.logger.error({ error }, `the ${what} can’t be read`)
        await wait(pauseMs, undefined, { signal }).catch(() => {})
        pauseMs = Math.min(pauseMs * 2, retryMsMax)
      }
    }
  }
}
