// The appends that one commit will make durable, framed as they come into one piece of memory that is written with a single call.

import type { Offset } from '../../domain/event-log.ts'
import { Block, frameBytes, sealFrame, writeFrame } from './frame-format.ts'
import type { Marks } from './segment-header.ts'

const capacityFirst = 64 * 1024

export class CommitBuffer {
  commit = 0
  length = 0
  block = new Block(capacityFirst)
  /** Where everything stands once this commit is durable. */
  marks: Marks | undefined
  private readonly seed: number
  private lastAt = 0
  private offsets: Offset[] = []
  private resolves: ((offset: Offset) => void)[] = []
  private rejects: ((error: Error) => void)[] = []

  constructor(seed: number) {
    this.seed = seed
  }

  fits(rowsLength: number, bytesMax: number): boolean {
    return this.length + frameBytes(rowsLength) <= bytesMax
  }

  add(
    topic: number,
    partition: number,
    rows: Uint8Array,
    count: number,
    receivedAt: number,
    offset: Offset,
  ): Promise<Offset> {
    const at = this.length
    if (at + frameBytes(rows.length) > this.block.bytes.length) this.grow(at + frameBytes(rows.length))
    if (at > 0) sealFrame(this.block, this.lastAt, at, this.seed, false)
    this.length = writeFrame(this.block, at, topic, partition, rows, count, receivedAt, offset, this.commit)
    this.lastAt = at
    this.offsets.push(offset)
    return new Promise<Offset>((resolve, reject) => {
      this.resolves.push(resolve)
      this.rejects.push(reject)
    })
  }

  /** Nothing more comes: the last frame is marked as such. */
  seal(): void {
    sealFrame(this.block, this.lastAt, this.length, this.seed, true)
  }

  resolve(): void {
    const { offsets, resolves } = this
    for (let i = 0; i < resolves.length; i++) resolves[i]!(offsets[i]!)
  }

  reject(error: Error): void {
    for (const reject of this.rejects) reject(error)
  }

  /** Ready for another commit; keeps its memory. */
  reset(commit: number): void {
    this.commit = commit
    this.length = 0
    this.marks = undefined
    this.offsets = []
    this.resolves = []
    this.rejects = []
  }

  private grow(needed: number): void {
    const larger = new Block(Math.max(this.block.bytes.length * 2, needed))
    this.block.bytes.copy(larger.bytes, 0, 0, this.length)
    this.block = larger
  }
}
