// What the processes of one deployment know of each other. Each publishes a status about once a second; the first process passes its own on to
// the serving one, which answers /readyz, /metrics and the pipeline strip for all of them.

import type { InstrumentsSnapshot } from './instruments.ts'
import type { Health } from './service.ts'

/** Totals since the process started; rates are made by whoever shows them. */
export interface IngestTotals {
  readonly receivedReadings: number
  readonly durableReadings: number
  readonly deadLettered: number
  readonly refused: number
  readonly connections: number
  /** Age of the oldest publish that is not durable yet, in ms; 0 when there is none. */
  readonly durableLagMs: number
}

export interface StoredTotals {
  readonly storedReadings: number
  readonly storedDeadLetters: number
  /** Age of the oldest durable chunk that is not in the table yet, in ms; 0 when there is none. */
  readonly storedLagMs: number
  readonly lagChunks: number
}

export interface ProcessStatus {
  readonly process: string
  readonly at: number
  /** By part: `log`, `mqtt`, `clickhouse`, `writer`, `api`, … */
  readonly parts: Readonly<Record<string, Health>>
  readonly instruments: InstrumentsSnapshot
  readonly ingest?: IngestTotals
  readonly stored?: StoredTotals
}

/** The last status of every process of this deployment that this process has heard of, its own (fresh) included. */
export interface StatusBoard {
  all(): Promise<readonly ProcessStatus[]>
}
