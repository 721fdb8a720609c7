// Walks the frames of one segment file in big blocks. What was read is never overwritten, so the rows of a chunk stay valid for as long as somebody
// holds them. Synchronous per frame; only `load` waits for the disk.

import { Block, FrameView, frameHeaderBytes } from './frame-format.ts'
import { type LogFiles, readAll } from './log-files.ts'

export const readBlockBytes = 1024 * 1024
/** A follower's reads are of what has just been written: in memory, and copied sooner than a thread of the pool is woken. */
const readNowBytesMax = 256 * 1024

export class FrameReader {
  /** The frame that `step` found. */
  readonly view = new FrameView()
  private readonly files: LogFiles
  private readonly descriptor: number
  private readonly seed: number
  /** Filled from its start to its end by one load after another: a follower's many small reads share one piece of memory. */
  private block = new Block(0)
  /** Byte in the file of the block's first byte, had this load filled all of it. */
  private blockPosition: number
  private available = 0
  private at = 0
  private frameAt = 0
  private needed = 0
  private isAtEndOfFile = false

  constructor(files: LogFiles, descriptor: number, seed: number, position: number) {
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
    const { files, descriptor, position } = this
    const length = Math.min(limit - position, Math.max(readBlockBytes, this.needed))
    let start = (this.available + 7) & ~7
    if (start + length > this.block.bytes.length) {
      this.block = new Block(Math.max(readBlockBytes, length))
      start = 0
    }
    const { bytes } = this.block
    let got = length <= readNowBytesMax ? files.readNow(descriptor, bytes, start, length, position) : 0
    if (got < length) got += await readAll(files, descriptor, bytes, length - got, position + got, start + got)
    this.isAtEndOfFile = got < length
    this.available = start + got
    this.blockPosition = position - start
    this.at = start
    this.frameAt = start
  }
}
