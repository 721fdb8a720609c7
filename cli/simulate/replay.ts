// Replays a real series through the front door: row by row, X times as fast as it happened, or as fast as it is acknowledged.

import type { Clock } from '../../runtime/clock.ts'
import { readSeries, type SeriesNames, type SeriesRow } from './csv-series.ts'
import { pause } from './pace.ts'
import type { Publisher } from './publisher.ts'

export interface ReplayOptions {
  readonly file: string
  readonly names: SeriesNames
  /** Times real time; Infinity: no waiting but for acknowledgements. */
  readonly speed: number
  /** Moves the series so that its latest row is observed now. */
  readonly shiftToNow: boolean
  readonly clock: Clock
  readonly signal: AbortSignal
  readonly onPublished?: () => void
}

/** Resolves with how many rows were published. */
export async function replay(publisher: Publisher, options: ReplayOptions): Promise<number> {
  const { file, names, speed, clock, signal, onPublished } = options
  const shift = options.shiftToNow ? clock.nowMicros() - (await latestOf(file, names)) : 0
  const startedAt = performance.now()
  let firstAt: number | undefined
  let published = 0
  for await (const row of readSeries(file, names)) {
    firstAt ??= row.observedAt
    // Rows may step back in time; they then come at once.
    const waitMs = startedAt + (row.observedAt - firstAt) / 1000 / speed - performance.now()
    if (waitMs > 0 && !(await pause(waitMs, signal))) break
    if (!(await publisher.publish(`devices/${row.device}/telemetry`, payloadOf(row, shift)))) break
    published++
    onPublished?.()
  }
  return published
}

async function latestOf(file: string, names: SeriesNames): Promise<number> {
  let latest = 0
  for await (const { observedAt } of readSeries(file, names)) latest = Math.max(latest, observedAt)
  return latest
}

/** Milliseconds, with a fraction where there are microseconds. */
function payloadOf(row: SeriesRow, shift: number): string {
  return JSON.stringify({ ts: (row.observedAt + shift) / 1000, values: { [row.metric]: row.value } })
}
