// How fast readings pass each stage: made from the totals that processes publish, over the last few seconds.
import { readInstrument } from '../runtime/instruments.ts'
import type { ProcessStatus } from '../runtime/status.ts'

/** The detector's own count, by which others know it. */
export const detectedReadings = 'weir_detector_readings'

export interface StageTotals {
  readonly received: number
  readonly durable: number
  readonly stored: number
  readonly seen: number
  readonly detected: number
}

interface Sample {
  readonly atMs: number
  readonly total: number
}

const windowMs = 5_000

/** One total over time. A total that falls belongs to a process that was started anew. */
class Rate {
  private samples: Sample[] = []

  add(sample: Sample): void {
    const last = this.samples.at(-1)
    if (last && last.atMs >= sample.atMs) return
    if (last && last.total > sample.total) this.samples = []
    this.samples.push(sample)
    while (this.samples.length > 2 && this.samples[1]!.atMs <= sample.atMs - windowMs) this.samples.shift()
  }

  /** Undefined: two samples have to be there first. */
  get perSecond(): number | undefined {
    const first = this.samples[0]
    const last = this.samples.at(-1)
    if (!first || !last || first === last) return undefined
    return ((last.total - first.total) / (last.atMs - first.atMs)) * 1000
  }
}

export class PipelineRates {
  private readonly rates = {
    received: new Rate(),
    durable: new Rate(),
    stored: new Rate(),
    seen: new Rate(),
    detected: new Rate(),
  }

  /** Each total with the time at which its process stated it. */
  add(statuses: readonly ProcessStatus[], seen: number, nowMs: number): void {
    for (const { at, ingest, stored, instruments } of statuses) {
      if (ingest) {
        this.rates.received.add({ atMs: at, total: ingest.receivedReadings })
        this.rates.durable.add({ atMs: at, total: ingest.durableReadings })
      }
      const detected = readInstrument(instruments, detectedReadings)
      if (detected !== undefined) this.rates.detected.add({ atMs: at, total: detected })
      if (stored) this.rates.stored.add({ atMs: at, total: stored.storedReadings })
    }
    this.rates.seen.add({ atMs: nowMs, total: seen })
  }

  /** Null: not known (yet). */
  perSecond(stage: keyof StageTotals): number | null {
    const { perSecond } = this.rates[stage]
    return perSecond === undefined ? null : Math.round(perSecond * 10) / 10
  }
}
