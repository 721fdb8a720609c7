// Walks the frames of one segment file in big blocks. What was read is never overwritten, so the rows of a chunk stay valid for as long as somebody
// holds them. Synchronous per frame; only `load` waits for the disk.

import { Block, FrameView, frameHeaderBytes } from './frame-format.ts'
import { type LogFiles, readAll } from './log-files.ts'
import { type RecentBytes, recentBytesMax } from './recent-bytes.ts'

const readBlockBytes = 1024 * 1024

interface RecentOf {
  readonly bytes: RecentBytes
  readonly segment: number
}

export class FrameReader {
  /** The frame that `step` found. */
  readonly view = new FrameView()
  private readonly files: LogFiles
  private readonly descriptor: number
  private readonly seed: number
  private readonly recent: RecentOf | undefined
  private block = new Block(0)
  /** Byte in the file of the block's first byte. */
  private blockPosition: number
  private available = 0
  private at = 0
  private frameAt = 0
  private needed = 0
  private isAtEndOfFile = false

  /** `recent`: shared with the others that follow the log in this process. */
  constructor(files: LogFiles, descriptor: number, seed: number, position: number, recent?: RecentOf) {
    this.recent = recent
    this.files = files
    this.descriptor = descriptor
    this.seed = seed
    this.blockPosition = position
  }

  /** Byte in the file of the next frame; after `bad`, of the bad one. */
  get position(): number {
    return this.blockPosition + this.at
  }

  /** Byte in the file of the frame in `view`. */
  get framePosition(): number {
    return this.blockPosition + this.frameAt
  }

  /** The rows of the frame in `view`. */
  rows(): Uint8Array {
    const start = this.frameAt + frameHeaderBytes
    return this.block.bytes.subarray(start, start + this.view.length)
  }

  /** `ok`: the next frame is in `view`. `load`: call load() and step again. `end`: stands at the limit. `bad`: no frame, or not as it was written. */
  step(limit: number): 'ok' | 'load' | 'end' | 'bad' {
    if (this.position >= limit) return 'end'
    const outcome = this.view.read(this.block, this.at, this.available, this.seed)
    if (outcome === 'ok') {
      this.frameAt = this.at
      this.at = this.view.end
      return 'ok'
    }
    if (outcome === 'bad' || this.isAtEndOfFile || this.blockPosition + this.view.end > limit) return 'bad'
    this.needed = this.view.end - this.at
    return 'load'
  }

  /** Reads on from the next frame's first byte. */
  async load(limit: number): Promise<void> {
    const { files, descriptor, position, recent } = this
    const length = Math.min(limit - position, Math.max(readBlockBytes, this.needed))
    if (recent && length <= recentBytesMax) {
      const { bytes, segment } = recent
      const got = bytes.read(files, descriptor, segment, position, length)
      this.place(
        bytes.block,
        bytes.position,
        position,
        got < length ? bytes.filled : position + length - bytes.position,
      )
      this.isAtEndOfFile = got < length
      return
    }
    const block = new Block(length)
    const got = await readAll(files, descriptor, block.bytes, length, position)
    this.place(block, position, position, got)
    this.isAtEndOfFile = got < length
  }

  /** Goes on at another frame further on, whose bytes are not read yet. */
  skipTo(position: number): void {
    this.place(new Block(0), position, position, 0)
    this.isAtEndOfFile = false
  }

  private place(block: Block, blockPosition: number, position: number, available: number): void {
    this.block = block
    this.blockPosition = blockPosition
    this.available = available
    this.at = position - blockPosition
    this.frameAt = this.at
  }
}
