// What was found goes to where it becomes durable, in appends of a bounded size, and again for as long as that takes no more.
import { type Anomaly, encodeAnomaly } from '../domain/anomaly.ts'
import { RetryableError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'

/** Makes rows of the topic `anomalies` durable; a RetryableError: again, later. */
export type AppendAnomalies = (partition: number, rows: Uint8Array, count: number) => Promise<void>

export interface TellOptions {
  readonly append: AppendAnomalies
  readonly logger: Logger
  readonly signal: AbortSignal
  /** Between two tries; ends early with the signal. */
  readonly pause: (attempt: number) => Promise<void>
}

const appendBytesMax = 256 * 1024

/** Takes from `found` what was told; some stay in it only when the signal ended it. Returns how many were told. */
export async function tellAnomalies(found: Anomaly[], partition: number, options: TellOptions): Promise<number> {
  let told = 0
  while (found.length > 0) {
    const rows: Buffer[] = []
    let bytes = 0
    while (rows.length < found.length && bytes < appendBytesMax) {
      const row = encodeAnomaly(found[rows.length]!)
      rows.push(row)
      bytes += row.length
    }
    if (!(await appendPatiently(partition, Buffer.concat(rows), rows.length, options))) break
    told += rows.length
    found.splice(0, rows.length)
  }
  return told
}

/** False: it was ended first. */
async function appendPatiently(
  partition: number,
  rows: Buffer,
  count: number,
  { append, logger, signal, pause }: TellOptions,
): Promise<boolean> {
  for (let attempt = 0; !signal.aborted; attempt++) {
    try {
      await append(partition, rows, count)
      return true
    } catch (error) {
      if (signal.aborted) break
      if (!(error instanceof RetryableError)) throw error
      if (attempt === 0) logger.warn({ cause: error.message }, 'anomalies wait: the log does not take them')
      await pause(attempt)
    }
  }
  return false
}
