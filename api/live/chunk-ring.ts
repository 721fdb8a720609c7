// The newest chunks of the log, bounded in bytes: who comes back after a moment goes on from here, without a reader of its own.
import type { Chunk, LogPosition, Partition } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'

export class ChunkRing {
  bytes = 0
  private readonly bytesMax: number
  private readonly chunksMax: number
  private chunks: Chunk[] = []
  /** Chunks at the beginning of the array that are out of the ring: moved away together, not each by itself. */
  private dropped = 0
  /** Number of the first chunk in the ring, counted since the beginning. */
  private firstNumber = 0
  /** By partition: the offset from which on all is here. */
  private readonly from = new Map<Partition, number>()

  constructor(bytesMax = 32 * 1024 * 1024, chunksMax = 50_000) {
    this.bytesMax = bytesMax
    this.chunksMax = chunksMax
  }

  /** What comes next lies at this position. */
  startAt(position: LogPosition): void {
    this.firstNumber += this.chunks.length - this.dropped
    this.chunks = []
    this.dropped = 0
    this.bytes = 0
    this.from.clear()
    for (const [partition, offset] of position) this.from.set(partition, offset)
  }

  push(chunks: readonly Chunk[]): void {
    for (const chunk of chunks) {
      this.chunks.push(chunk)
      this.bytes += chunk.rows.length
    }
    while (this.bytes > this.bytesMax || this.chunks.length - this.dropped > this.chunksMax) this.drop()
    if (this.dropped * 2 <= this.chunks.length) return
    this.chunks = this.chunks.slice(this.dropped)
    this.dropped = 0
  }

  /** The number of the first chunk to look at for everything beyond this position; undefined: it reaches further back than this. */
  reach(position: LogPosition): number | undefined {
    for (const [partition, offset] of this.from) if ((position.get(partition) ?? 0) < offset) return undefined
    return this.firstNumber
  }

  /** 'gone': it was pushed out meanwhile; undefined: it is yet to come. */
  at(number: number): Chunk | 'gone' | undefined {
    return number < this.firstNumber ? 'gone' : this.chunks[number - this.firstNumber + this.dropped]
  }

  /** receivedAt of the chunk just before this offset; undefined: it is not here. */
  newestBefore(partition: Partition, offset: number): Micros | undefined {
    if (offset <= (this.from.get(partition) ?? 0)) return undefined
    for (let at = this.chunks.length - 1; at >= this.dropped; at--) {
      const chunk = this.chunks[at]!
      if (chunk.partition === partition && chunk.offset < offset)
        return chunk.offset === offset - 1 ? chunk.receivedAt : undefined
    }
    return undefined
  }

  private drop(): void {
    const oldest = this.chunks[this.dropped]!
    // Not held any longer, wherever the array is cut.
    ;(this.chunks as (Chunk | undefined)[])[this.dropped++] = undefined
    this.firstNumber++
    this.bytes -= oldest.rows.length
    this.from.set(oldest.partition, oldest.offset + 1)
  }
}
