// How fast readings pass each stage: made from the totals that processes publish, over the last few seconds.
import { readInstrument } from '../runtime/instruments.ts'
import { statusAgeMsMax } from '../runtime/readiness.ts'
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

/** The processes of one stage: each counts for itself. */
class StageRates {
  private readonly ofProcesses = new Map<string, Rate>()

  add(process: string, sample: Sample): void {
    let rate = this.ofProcesses.get(process)
    if (rate === undefined) {
      rate = new Rate()
      this.ofProcesses.set(process, rate)
    }
    rate.add(sample)
  }

  /** Those that are gone, or say nothing any more, have no rate. */
  keepOnly(isThere: (process: string) => boolean): void {
    for (const process of this.ofProcesses.keys()) if (!isThere(process)) this.ofProcesses.delete(process)
  }

  get perSecond(): number | undefined {
    let sum: number | undefined
    for (const { perSecond } of this.ofProcesses.values()) if (perSecond !== undefined) sum = (sum ?? 0) + perSecond
    return sum
  }
}

export class PipelineRates {
  private readonly rates: Readonly<Record<keyof StageTotals, StageRates>> = {
    received: new StageRates(),
    durable: new StageRates(),
    stored: new StageRates(),
    seen: new StageRates(),
    detected: new StageRates(),
  }

  /** Each total with the time at which its process stated it. */
  add(statuses: readonly ProcessStatus[], seen: number, nowMs: number): void {
    const { received, durable, stored, detected } = this.rates
    const heard = new Set(statuses.filter(({ at }) => nowMs - at <= statusAgeMsMax).map(({ process }) => process))
    for (const stage of [received, durable, stored, detected]) stage.keepOnly((process) => heard.has(process))
    for (const { process, at, ingest, stored: storing, instruments } of statuses) {
      if (!heard.has(process)) continue
      if (ingest) {
        received.add(process, { atMs: at, total: ingest.receivedReadings })
        durable.add(process, { atMs: at, total: ingest.durableReadings })
      }
      const readings = readInstrument(instruments, detectedReadings)
      if (readings !== undefined) detected.add(process, { atMs: at, total: readings })
      if (storing) stored.add(process, { atMs: at, total: storing.storedReadings })
    }
    this.rates.seen.add('', { atMs: nowMs, total: seen })
  }

  /** Null: not known (yet). */
  perSecond(stage: keyof StageTotals): number | null {
    const { perSecond } = this.rates[stage]
    return perSecond === undefined ? null : Math.round(perSecond * 10) / 10
  }
}
