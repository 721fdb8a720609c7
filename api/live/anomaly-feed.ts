// Anomalies as they are found, from their own topic of the log to the viewers who asked for them. Beside the stream of readings: an anomaly has no
// cursor, and one that was found while a viewer was away is asked of /v1/anomalies.
import { setTimeout as wait } from 'node:timers/promises'
import { type Anomaly, decodeAnomalies } from '../../domain/anomaly.ts'
import type { EventLog } from '../../domain/event-log.ts'
import type { Logger } from '../../runtime/logger.ts'
import { anomalyOfRow } from '../routes/answers.ts'
import { matchesSeries, type Subscription } from './channel.ts'
import { LiveFrame } from './frame.ts'
import type { Viewer } from './viewer.ts'

const retryMs = 500
/** A detector that was killed finds its last anomalies again; viewers have seen these. */
const idsRememberedMax = 10_000

export type AnomalySubscription = Pick<Subscription, 'tenant' | 'device' | 'metric'>

export class AnomalyFeed {
  private readonly log: EventLog
  private readonly logger: Logger
  private readonly watching = new Map<Viewer, AnomalySubscription>()
  private readonly seen = new Set<string>()
  private readonly stopped = new AbortController()
  private running: Promise<void> = Promise.resolve()

  constructor({ log, logger }: { readonly log: EventLog; readonly logger: Logger }) {
    this.log = log
    this.logger = logger
  }

  start(): void {
    this.running = this.follow()
  }

  async stop(): Promise<void> {
    this.stopped.abort()
    await this.running
  }

  watch(subscription: AnomalySubscription, viewer: Viewer): void {
    if (viewer.gone.aborted) return
    this.watching.set(viewer, subscription)
    viewer.gone.addEventListener('abort', () => this.watching.delete(viewer))
  }

  private async follow(): Promise<void> {
    const { signal } = this.stopped
    while (!signal.aborted) {
      try {
        for await (const chunks of this.log.tail('anomalies', 'end', signal)) {
          for (const { rows } of chunks) for (const anomaly of decodeAnomalies(rows)) this.tell(anomaly)
        }
        // Ends by itself only when the log was closed.
        return
      } catch (error) {
        if (signal.aborted) return
        this.logger.warn({ error }, 'the anomalies can’t be followed; trying again')
        await wait(retryMs, undefined, { signal }).catch(() => {})
      }
    }
  }

  private tell(anomaly: Anomaly): void {
    if (this.seen.has(anomaly.id)) return
    this.seen.add(anomaly.id)
    if (this.seen.size > idsRememberedMax) for (const oldest of this.seen) if (this.seen.delete(oldest)) break
    let frame: LiveFrame | undefined
    for (const [viewer, subscription] of this.watching) {
      if (!matchesSeries(subscription, anomaly)) continue
      frame ??= LiveFrame.anomaly(JSON.stringify(anomalyOfRow({ ...anomaly, observedMicros: anomaly.observedAt })))
      viewer.send(frame)
    }
  }
}
