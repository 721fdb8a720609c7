// Anomalies as they are found, from their own topic of the log to the viewers who asked for them. Beside the stream of readings: an anomaly moves no
// cursor. Who comes back with one is told what was found since the readings that it had, out of memory or the table: some of it perhaps again, under
// the same ids, and nothing left out in silence.
import { setTimeout as wait } from 'node:timers/promises'
import { type Anomaly, decodeAnomalies } from '../../domain/anomaly.ts'
import { type Chunk, type EventLog, type LogPosition, positionAfter } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LogDamagedError, OffsetOutOfRangeError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { toMillis } from '../instant.ts'
import type { AnomalyRow } from '../queries/anomalies.ts'
import { anomalyOfRow } from '../routes/answers.ts'
import type { LiveStart } from './catch-up.ts'
import { matchesSeries, type Subscription } from './channel.ts'
import { LiveFrame } from './frame.ts'
import { patienceMsDefault, patiently } from './table-pages.ts'
import type { Viewer } from './viewer.ts'

const retryMs = 500
/** Kept for those who come back; a detector that was killed finds its last anomalies again, and viewers have seen these. */
const rememberedMaxDefault = 10_000
/** Of what a viewer was told out of the table, these newest are not told it again on the same connection, though a detector finds them again. */
const toldMax = 200
/** What a viewer has had of readings says this much too late what it has had of anomalies: detection, clocks of several machines. */
const slackMicros = 60_000_000
const pageRows = 1_000
/** Sent between two looks at whether the viewer takes more. */
const sendAtOnce = 100

export type AnomalySubscription = Pick<Subscription, 'tenant' | 'device' | 'metric'>

/** A page of the table's anomalies about readings that were received after an instant, by receivedAt and id. */
export type AskAnomalies = (
  question: AnomalySubscription & {
    readonly past: Micros
    readonly after: { readonly receivedAt: Micros; readonly id: string } | undefined
    readonly limit: number
  },
  signal: AbortSignal,
) => Promise<readonly (AnomalyRow & { readonly receivedMicros: Micros })[]>

export interface AnomalyFeedOptions {
  readonly log: EventLog
  readonly stored: AskAnomalies
  readonly clock: Clock
  readonly logger: Logger
  readonly rememberedMax?: number
}

interface Found {
  readonly anomaly: Anomaly
  readonly foundAt: Micros
}

interface Watching extends AnomalySubscription {
  /** What was found before, the viewer has had or did not ask for. */
  readonly sinceAt: Micros
  /** Out of the table: ids, the newest `toldMax`. */
  readonly told: Set<string>
}

export class AnomalyFeed {
  private readonly options: AnomalyFeedOptions
  private readonly watching = new Map<Viewer, Watching>()
  /** By id, in the order of the log. */
  private readonly remembered = new Map<string, Found>()
  /** Of those that were remembered. */
  private forgottenCount = 0
  /** All that was found from here on is remembered; what was found before is in the table, or remembered. */
  private rememberedFrom = Number.POSITIVE_INFINITY
  /** The table is asked for one viewer after the other. */
  private asking: Promise<unknown> = Promise.resolve()
  private readonly stopped = new AbortController()
  private running: Promise<void> = Promise.resolve()

  constructor(options: AnomalyFeedOptions) {
    this.options = options
  }

  start(): void {
    this.rememberedFrom = this.options.clock.nowMicros()
    this.running = this.follow()
  }

  async stop(): Promise<void> {
    this.stopped.abort()
    await this.running
  }

  /** `start`: where the viewer begins with readings. */
  watch(subscription: AnomalySubscription, viewer: Viewer, start: LiveStart): void {
    const resumed = start !== 'now' && !('instant' in start)
    const receivedUpTo = resumed ? receivedUpToOf(start) : this.options.clock.nowMicros()
    const watching = { ...subscription, sinceAt: (receivedUpTo ?? 0) - slackMicros, told: new Set<string>() }
    if (!resumed) {
      this.join(viewer, watching)
      return
    }
    this.resume(viewer, watching).catch((error) => {
      if (viewer.gone.aborted) return
      this.options.logger.warn({ error }, 'a viewer could not be told what was found while it was away')
      const to = toMillis(this.options.clock.nowMicros())
      // It has a cursor of its own: the gap moves nobody on.
      const from = toMillis(Math.max(0, watching.sinceAt))
      viewer.gap({ cause: 'anomalies-away', from, to, by: 'receivedAt' }, '')
      this.join(viewer, watching)
    })
  }

  private join(viewer: Viewer, watching: Watching): void {
    if (viewer.gone.aborted) return
    this.watching.set(viewer, watching)
    viewer.gone.addEventListener('abort', () => this.watching.delete(viewer))
  }

  /** The table, where memory does not reach back; then memory; and in the turn in which there is no more of it, what comes. */
  private async resume(viewer: Viewer, watching: Watching): Promise<void> {
    const told = new Set<string>()
    /** The next one to look at, and until when the last ones were found that were looked at. */
    let next = this.forgottenCount
    let lookedUpTo = Math.max(watching.sinceAt, this.rememberedFrom)
    if (watching.sinceAt < this.rememberedFrom) await this.tellStored(viewer, watching, told)
    for (;;) {
      if (viewer.gone.aborted) return
      if (this.forgottenCount > next && this.rememberedFrom > watching.sinceAt + 1) {
        // So much was found meanwhile that some of it was let go before its turn came.
        const [from, to] = [toMillis(lookedUpTo), toMillis(this.rememberedFrom)]
        viewer.gap({ cause: 'anomalies-away', from, to, by: 'receivedAt' }, '')
      }
      next = Math.max(next, this.forgottenCount)
      let number = this.forgottenCount
      const some: Anomaly[] = []
      for (const [id, { anomaly, foundAt }] of this.remembered) {
        if (number++ < next) continue
        next = number
        lookedUpTo = Math.max(lookedUpTo, foundAt)
        if (foundAt <= watching.sinceAt || told.has(id) || watching.told.has(id)) continue
        if (!matchesSeries(watching, anomaly)) continue
        some.push(anomaly)
        if (some.length >= sendAtOnce) break
      }
      for (const anomaly of some) viewer.send(frameOf({ ...anomaly, observedMicros: anomaly.observedAt }))
      if (some.length < sendAtOnce) return this.join(viewer, watching)
      await viewer.writable()
    }
  }

  private async tellStored(viewer: Viewer, watching: Watching, told: Set<string>): Promise<void> {
    const past = Math.max(0, watching.sinceAt)
    let after: { receivedAt: Micros; id: string } | undefined
    for (;;) {
      const question = { ...watching, past, after, limit: pageRows }
      const rows = await patiently(viewer.gone, patienceMsDefault, () => this.inTurn(question, viewer.gone))
      for (let start = 0; start < rows.length && !viewer.gone.aborted; start += sendAtOnce) {
        for (const row of rows.slice(start, start + sendAtOnce)) {
          if (this.remembered.has(row.id)) told.add(row.id)
          watching.told.add(row.id)
          if (watching.told.size > toldMax) watching.told.delete(watching.told.values().next().value!)
          viewer.send(frameOf(row))
        }
        await viewer.writable()
      }
      const last = rows.at(-1)
      if (last === undefined || rows.length < pageRows || viewer.gone.aborted) return
      after = { receivedAt: last.receivedMicros, id: last.id }
    }
  }

  private inTurn(question: Parameters<AskAnomalies>[0], gone: AbortSignal): ReturnType<AskAnomalies> {
    const ask = (): ReturnType<AskAnomalies> =>
      gone.aborted ? Promise.resolve([]) : this.options.stored(question, gone)
    const asked = this.asking.then(ask)
    this.asking = asked.catch(() => {})
    return asked
  }

  /** From where the table ends: what is found before it is stored is remembered here. */
  private async follow(): Promise<void> {
    const { signal } = this.stopped
    const { log, logger, clock } = this.options
    let position: LogPosition | undefined
    // What stays wrong is said once.
    let said: string | undefined
    while (!signal.aborted) {
      try {
        if (position === undefined) {
          position = await this.tableEnd()
          said = undefined
        }
        for await (const chunks of log.tail('anomalies', position, signal)) {
          this.take(chunks)
          position = positionAfter(chunks, position)
          said = undefined
        }
        // Ends by itself only when the log was closed.
        return
      } catch (error) {
        if (signal.aborted) return
        const { message } = error as Error
        const cause = error instanceof RetryableError ? { cause: message } : { error }
        if (message !== said) logger.warn(cause, 'the anomalies can’t be followed; trying again')
        said = message
        if (error instanceof OffsetOutOfRangeError) {
          this.rememberedFrom = clock.nowMicros()
          position = await log.end('anomalies').catch(() => undefined)
        }
        await wait(retryMs, undefined, { signal }).catch(() => {})
      }
    }
  }

  private async tableEnd(): Promise<LogPosition> {
    const { log } = this.options
    try {
      return await log.committed('writer', 'anomalies')
    } catch (error) {
      if (!(error instanceof LogDamagedError)) throw error
      return log.end('anomalies')
    }
  }

  private take(chunks: readonly Chunk[]): void {
    for (const { rows, receivedAt } of chunks)
      for (const anomaly of decodeAnomalies(rows)) this.tell(anomaly, receivedAt)
  }

  private tell(anomaly: Anomaly, foundAt: Micros): void {
    if (this.remembered.has(anomaly.id)) return
    this.remembered.set(anomaly.id, { anomaly, foundAt })
    if (this.remembered.size > (this.options.rememberedMax ?? rememberedMaxDefault)) this.forgetOldest()
    let frame: LiveFrame | undefined
    for (const [viewer, watching] of this.watching) {
      if (foundAt <= watching.sinceAt || watching.told.has(anomaly.id) || !matchesSeries(watching, anomaly)) continue
      frame ??= frameOf({ ...anomaly, observedMicros: anomaly.observedAt })
      viewer.send(frame)
    }
  }

  private forgetOldest(): void {
    for (const [id, { foundAt }] of this.remembered) {
      this.remembered.delete(id)
      this.forgottenCount++
      this.rememberedFrom = Math.max(this.rememberedFrom, foundAt + 1)
      return
    }
  }
}

function frameOf(row: AnomalyRow): LiveFrame {
  return LiveFrame.anomaly(JSON.stringify(anomalyOfRow(row)))
}

/** The newest reading that the viewer may have had was received then; undefined: it does not say. */
function receivedUpToOf(start: Exclude<LiveStart, 'now' | { readonly instant: Micros }>): Micros | undefined {
  const received = 'seam' in start ? start.seam.receivedBefore : [...start.receivedAt.values()]
  return received.length === 0 ? undefined : Math.max(...received)
}
