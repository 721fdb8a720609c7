// Walks the frames of one segment file in big blocks. Each block is fresh memory, so the rows of a chunk stay valid for as long as somebody
// holds them. Synchronous per frame; only `load` waits for the disk.

import { Block, FrameView, frameHeaderBytes } from './frame-format.ts'
import { type LogFiles, readAll } from './log-files.ts'

export const readBlockBytes = 1024 * 1024

export class FrameReader {
  /** The frame that `step` found. */
  readonly view = new FrameView()
  private readonly files: LogFiles
  private readonly descriptor: number
  private readonly seed: number
  private block = new Block(0)
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
    const position = this.position
    const length = Math.min(limit - position, Math.max(readBlockBytes, this.needed))
    const block = new Block(length)
    this.available = await readAll(this.files, this.descriptor, block.bytes, length, position)
    this.isAtEndOfFile = this.available < length
    this.block = block
    this.blockPosition = position
    this.at = 0
    this.frameAt = 0
  }
}
