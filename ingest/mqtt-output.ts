// What one connection sends: packets to its socket, answers of one read in one write, and how long the peer has taken nothing. Acknowledgements and
// what the broker delivers share it; whole packets only, so that they never mix.
import type { Duplex } from 'node:stream'
import { ingestLimits as limits } from './limits.ts'

/** What an output asks of its connection. */
export interface OutputOwner {
  readonly nowMs: number
  /** More waits for the peer than may: it is not read until `onOutputTaken`. */
  onOutputFull(): void
  onOutputTaken(): void
}

export class MqttOutput {
  private readonly socket: Duplex
  private readonly owner: OutputOwner
  /** Since when bytes wait for the peer; -1: none do. */
  private stalledSince = -1
  private waiting: (() => void)[] = []
  private isCorked = false

  constructor(socket: Duplex, owner: OutputOwner) {
    this.socket = socket
    this.owner = owner
    socket.on('drain', () => this.onDrain())
  }

  /** Written to the peer, which has not taken them. */
  get bytes(): number {
    return this.socket.writableLength
  }

  write(bytes: Buffer): void {
    if (this.socket.write(bytes)) return
    if (this.stalledSince < 0) this.stalledSince = this.owner.nowMs
    if (this.socket.writableLength > limits.outputBytesMax) this.owner.onOutputFull()
  }

  /** What is written from now on goes out together, with `uncork`. */
  cork(): void {
    if (this.isCorked) return
    this.isCorked = true
    this.socket.cork()
  }

  uncork(): void {
    if (!this.isCorked) return
    this.isCorked = false
    this.socket.uncork()
  }

  /** Calls back when more may be written: at once, or when the peer has taken what waits. */
  whenWritable(done: () => void): void {
    if (this.socket.writableNeedDrain && !this.socket.destroyed) this.waiting.push(done)
    else done()
  }

  /** The peer has taken nothing for too long. */
  isStalled(nowMs: number): boolean {
    return this.stalledSince >= 0 && nowMs - this.stalledSince > limits.outputStalledMsMax
  }

  /** Nothing goes out any more: who waits is let go. */
  close(): void {
    const { waiting } = this
    this.waiting = []
    for (const done of waiting) done()
  }

  private onDrain(): void {
    this.stalledSince = -1
    this.close()
    this.owner.onOutputTaken()
  }
}
