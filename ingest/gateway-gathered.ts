// The messages of one turn of the event loop, of all sockets of /v1/ingest, copied one behind the other and taken together at its end.
// The library hands over each by itself; decoded between two such calls a reading costs twice what it does in a loop of its own.
import { Buffer } from 'node:buffer'
import { ingestLimits as limits } from './limits.ts'

export interface MessageTaker {
  /** A message: bytes[start, end). The bytes are not its own: what is kept must be copied. */
  take(bytes: Buffer, start: number, end: number, isBinary: boolean): void
}

/** A few messages of the largest size, or a thousand small ones: they stay in the processor's cache. */
const bytesMax = 2 * limits.ingestMessageBytesMax
const messagesMax = 2_048

export class GatheredMessages {
  private readonly bytes = Buffer.allocUnsafeSlow(bytesMax)
  private readonly takers = new Array<MessageTaker | undefined>(messagesMax).fill(undefined)
  /** Where each message ends; the next begins there. */
  private readonly ends = new Int32Array(messagesMax)
  private readonly areBinary = new Uint8Array(messagesMax)
  private length = 0
  private count = 0
  private isTaking = false

  get isEmpty(): boolean {
    return this.count === 0
  }

  /** No message may be larger than `limits.ingestMessageBytesMax`. */
  add(taker: MessageTaker, message: Uint8Array, isBinary: boolean): void {
    if (this.count === messagesMax || this.length + message.length > bytesMax) this.takeAll()
    const { count } = this
    this.bytes.set(message, this.length)
    this.length += message.length
    this.takers[count] = taker
    this.ends[count] = this.length
    this.areBinary[count] = isBinary ? 1 : 0
    this.count = count + 1
  }

  /** In order of arrival. A socket that closes while its messages are taken may ask for this again: then they are on their way. */
  takeAll(): void {
    if (this.isTaking) return
    this.isTaking = true
    const { bytes, takers, ends, areBinary, count } = this
    let start = 0
    for (let i = 0; i < count; i++) {
      const end = ends[i]!
      takers[i]!.take(bytes, start, end, areBinary[i] === 1)
      start = end
    }
    takers.fill(undefined, 0, count)
    this.count = 0
    this.length = 0
    this.isTaking = false
  }
}
