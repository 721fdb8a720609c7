// What the readers of one process have just read at the log's end: they follow the same bytes at the same time, so the first one reads them and
// the others find them in memory. Filled from its start to its end, never overwritten; whoever holds a chunk of it keeps it alive.

import { Block } from './frame-format.ts'
import type { LogFiles } from './log-files.ts'

/**
 * What has just been written is in memory, and copied sooner than a thread of the pool is woken. At the highest rates a notice stands for some 500 KB.
 * More than this is read by each for itself.
 */
export const recentBytesMax = 1024 * 1024
const blockBytes = 2 * 1024 * 1024

export class RecentBytes {
  block = new Block(0)
  /** Byte in the file of the block's first byte. */
  position = 0
  /** Bytes of the block that are filled. */
  filled = 0
  private segment = -1

  /** Makes the block hold `length` durable bytes of a segment from `from` on. Returns how many of them there are. */
  read(files: LogFiles, descriptor: number, segment: number, from: number, length: number): number {
    const to = from + length
    const isNear = segment === this.segment && from >= this.position && from <= this.position + this.filled
    if (!isNear || to - this.position > this.block.bytes.length) {
      this.block = new Block(blockBytes)
      this.segment = segment
      this.position = from
      this.filled = 0
    }
    const missing = to - this.position - this.filled
    if (missing > 0) {
      const { bytes } = this.block
      this.filled += files.readNow(descriptor, bytes, this.filled, missing, this.position + this.filled)
    }
    return Math.min(length, this.position + this.filled - from)
  }
}
