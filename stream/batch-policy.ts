// When gathered chunks are handed on as a batch, and how much may gather: pure, so that a test can turn the clock. Large batches are what a
// column store wants (50,000 rows in one insert are 25 times cheaper than in 50), and an age bounds how long a lone reading waits.
import type { Chunk } from '../domain/event-log.ts'

export interface BatchLimits {
  /** A batch goes as soon as it has this many rows, … */
  readonly rowsMin: number
  /** … or this many bytes, … */
  readonly bytesMin: number
  /** … or its oldest chunk has waited this long. */
  readonly ageMsMax: number
  /** While one batch is handled, at most this gathers for the next: then reading stops, and the log is the buffer. */
  readonly rowsMax: number
  readonly bytesMax: number
}

/**
 * The age bounds the wait, so a batch may well be larger than the 50,000 rows at which inserts become cheap: parts are merged less often then
 * (1.8 µs of the engine's CPU a row at 50,000, 0.9 at 400,000, merges included).
 */
export const batchLimits: BatchLimits = {
  rowsMin: 150_000,
  bytesMin: 12 * 1024 * 1024,
  ageMsMax: 250,
  rowsMax: 500_000,
  bytesMax: 32 * 1024 * 1024,
}

/** What has been read and not handed on yet. */
export class Gathering {
  private chunks: Chunk[] = []
  private bytesHeld = 0
  private rowsHeld = 0
  private sinceMs = 0
  private readonly limits: BatchLimits

  constructor(limits: BatchLimits) {
    this.limits = limits
  }

  /** `nowMs` from any clock that only goes forward. */
  add(chunks: readonly Chunk[], nowMs: number): void {
    if (this.chunks.length === 0) this.sinceMs = nowMs
    for (const chunk of chunks) {
      this.chunks.push(chunk)
      this.bytesHeld += chunk.rows.byteLength
      this.rowsHeld += chunk.count
    }
  }

  /** Milliseconds until the batch is due: 0, it is; Infinity, there is nothing. */
  dueInMs(nowMs: number): number {
    if (this.chunks.length === 0) return Number.POSITIVE_INFINITY
    if (this.rowsHeld >= this.limits.rowsMin || this.bytesHeld >= this.limits.bytesMin) return 0
    return Math.max(0, this.limits.ageMsMax - (nowMs - this.sinceMs))
  }

  /** Bytes that may still be read; 0: stop reading. */
  bytesFree(): number {
    if (this.rowsHeld >= this.limits.rowsMax) return 0
    return Math.max(0, this.limits.bytesMax - this.bytesHeld)
  }

  /** Everything, in the order in which it was read; begins anew. */
  take(): { readonly chunks: readonly Chunk[]; readonly rows: number; readonly bytes: number } {
    const taken = { chunks: this.chunks, rows: this.rowsHeld, bytes: this.bytesHeld }
    this.chunks = []
    this.bytesHeld = 0
    this.rowsHeld = 0
    return taken
  }

  /** receivedAt of the oldest chunk, in microseconds. */
  oldestReceivedAt(): number | undefined {
    return oldestReceivedAt(this.chunks)
  }
}

export function oldestReceivedAt(chunks: readonly Chunk[]): number | undefined {
  let oldest: number | undefined
  for (const { receivedAt } of chunks) if (oldest === undefined || receivedAt < oldest) oldest = receivedAt
  return oldest
}
