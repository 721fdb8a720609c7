// What a connection has read and not yet taken: the beginning of a packet, or whole packets that wait behind a block. One buffer that grows by
// doubling, so that a packet that comes byte by byte costs its own size and not an object a byte, and one that was only announced costs nothing.
import { bodyStart, packetSize } from './mqtt-frames.ts'

const capacityFirst = 64
/** From here on unused room is given back. */
const largeBytes = 4096

export class HeldBytes {
  private buffer: Buffer | undefined
  start = 0
  end = 0
  /** Up to here packets were looked at for PINGREQ. */
  private lookedTo = 0
  /** PINGREQs among the held packets that were answered already. */
  private pingsAnswered = 0

  get isEmpty(): boolean {
    return this.start === this.end
  }

  get length(): number {
    return this.end - this.start
  }

  get capacity(): number {
    return this.buffer === undefined ? 0 : this.buffer.length
  }

  get bytes(): Buffer {
    return this.buffer!
  }

  append(chunk: Buffer, from: number, to: number): void {
    const more = to - from
    let buffer = this.buffer
    if (buffer === undefined || this.end + more > buffer.length) {
      const length = this.end - this.start
      const capacity = Math.max(
        capacityFirst,
        length + more,
        buffer === undefined ? 0 : Math.min(2 * length, length + 65536),
      )
      const larger = Buffer.allocUnsafeSlow(capacity)
      buffer?.copy(larger, 0, this.start, this.end)
      this.lookedTo = Math.max(0, this.lookedTo - this.start)
      this.start = 0
      this.end = length
      this.buffer = larger
      buffer = larger
    }
    chunk.copy(buffer, this.end, from, to)
    this.end += more
  }

  /** Everything before `at` has been taken. */
  consume(at: number): void {
    this.start = at
    if (this.start === this.end) this.clear()
    else if (this.capacity > largeBytes && this.length < this.capacity / 8) this.shrink()
  }

  /** A few bytes must not keep a whole read of the socket. */
  private shrink(): void {
    const { buffer, start, end } = this
    this.buffer = undefined
    this.lookedTo = Math.max(0, this.lookedTo - start)
    this.start = 0
    this.end = 0
    this.append(buffer!, start, end)
  }

  clear(): void {
    this.buffer = undefined
    this.start = 0
    this.end = 0
    this.lookedTo = 0
    this.pingsAnswered = 0
  }

  /** Bytes that the unfinished packet lacks, or that its header lacks; -1: its length is malformed. At least 1. */
  missing(): number {
    const size = packetSize(this.buffer!, this.start, this.end)
    if (size < 0) return -1
    return size === 0 ? 1 : Math.max(1, this.start + size - this.end)
  }

  /** How many PINGREQs came that nobody has looked at yet; they count as answered. */
  pingsAhead(): number {
    let pings = 0
    let at = Math.max(this.lookedTo, this.start)
    while (at < this.end) {
      const size = packetSize(this.buffer!, at, this.end)
      if (size <= 0 || at + size > this.end) break
      if (this.buffer![at] === 0xc0 && bodyStart(this.buffer!, at) === at + size) pings++
      at += size
    }
    this.lookedTo = at
    this.pingsAnswered += pings
    return pings
  }

  /** A PINGREQ is taken: true when it was answered ahead. */
  takeAnsweredPing(): boolean {
    if (this.pingsAnswered === 0) return false
    this.pingsAnswered--
    return true
  }
}
