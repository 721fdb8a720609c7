// What the last statuses of all processes come to: ready or not, part by part. Said by /readyz of the api and of the health port, and as numbers.
import type { HealthState } from './service.ts'
import type { ProcessStatus } from './status.ts'

export interface PartReadiness {
  readonly state: HealthState
  /** A sentence for an operator; always there unless `ok`. */
  readonly detail?: string | undefined
  readonly process: string
}

export interface Readiness {
  readonly status: 'ready' | 'not-ready'
  readonly parts: Record<string, PartReadiness>
}

/** A process that has not been heard of for this long does not do its job, whatever it said last. */
export const statusAgeMsMax = 10_000

export function readinessOf(statuses: readonly ProcessStatus[], nowMs: number): Readiness {
  const parts: Record<string, PartReadiness> = {}
  for (const { process, at, parts: known } of statuses) {
    const ageMs = nowMs - at
    if (ageMs > statusAgeMsMax) {
      const detail = `its process has said nothing for ${Math.round(ageMs / 1000)} s: it hangs, or is stopped`
      parts[process] = { state: 'failed', detail, process }
      continue
    }
    for (const [part, health] of Object.entries(known)) {
      const name = part in parts ? `${process}-${part}` : part
      parts[name] = { state: health.state, ...(health.detail === undefined ? {} : { detail: health.detail }), process }
    }
  }
  const isReady = Object.values(parts).every(({ state }) => state === 'ok' || state === 'degraded')
  return { status: isReady ? 'ready' : 'not-ready', parts }
}

/** The same for those who watch numbers, as Prometheus text. */
export function renderPartsUp(parts: Readiness['parts']): string {
  const lines = Object.entries(parts).map(
    ([part, { state }]) => `weir_part_up{part="${part}"} ${state === 'ok' ? 1 : state === 'degraded' ? 0.5 : 0}\n`,
  )
  return `# HELP weir_part_up 1: well, 0.5: works, with less than it should, 0: does not work\n# TYPE weir_part_up gauge\n${lines.join('')}`
}
