// Packets out of a socket's bytes, without a copy where a read brings whole ones: knows lengths and first bytes, not what packets mean. Reading
// stops while something blocks; what is behind the block is kept, looked through for PINGREQ, and taken when the block is gone.
import type { Duplex } from 'node:stream'
import type { CloseCause } from './events.ts'
import { ingestLimits as limits } from './limits.ts'
import { bodyStart, isFirstByte, isPacketStart, packetSize, packetTypes } from './mqtt-frames.ts'
import { HeldBytes } from './mqtt-held-bytes.ts'
import { readIntoShared } from './shared-read.ts'

/** Why no further packet is taken; bits, since several may hold at once. */
export const blocks = { credit: 1, passage: 2, output: 4, connack: 8, drain: 16, rate: 32 } as const

export interface PacketTaker {
  /** Until CONNECT is taken nothing else may come, and less of it. */
  readonly awaitsConnect: boolean
  /** CONNECT was answered: other answers may go out. */
  readonly isWelcomed: boolean
  /** False once nothing more is to be taken. */
  readonly isOpen: boolean
  /**
   * A whole packet: bytes[at, end), its body from `body` on. False: not taken; it waits for a block that was set, or the connection is over.
   * The bytes are the socket's: what is kept must be copied.
   */
  take(first: number, bytes: Buffer, at: number, body: number, end: number): boolean
  /** What came is no packet that could be taken. */
  refuse(cause: CloseCause): void
  /** A PINGREQ waits behind a block. */
  onPingAhead(): void
  /** After each run of packets. */
  afterWalk(): void
  /** True while no socket of the host may be read. */
  readonly isReadingStopped: boolean
  readonly nowMs: number
}

export class PacketReader {
  /** Bits of `blocks`. */
  blockedBy = 0
  isPaused = false
  /** When the packet began that is not whole yet. */
  private packetSince: number
  heardAt: number
  private readonly held = new HeldBytes()
  private readonly socket: Duplex
  private readonly taker: PacketTaker

  constructor(socket: Duplex, taker: PacketTaker) {
    this.socket = socket
    this.taker = taker
    this.heardAt = taker.nowMs
    this.packetSince = taker.nowMs
    if (!readIntoShared(socket, (bytes, end) => this.onData(bytes, end)))
      socket.on('data', (chunk: Buffer) => this.onData(chunk, chunk.length))
  }

  /** Bytes of memory in use. */
  get heldBytes(): number {
    return this.held.capacity
  }

  get isUnfinished(): boolean {
    return !this.held.isEmpty && this.blockedBy === 0
  }

  /** Something is held that a block keeps from being taken. */
  get isWaiting(): boolean {
    return !this.held.isEmpty && this.blockedBy !== 0
  }

  isLate(nowMs: number): boolean {
    return !this.held.isEmpty && nowMs - this.packetSince > limits.packetWithinMs
  }

  /** We do not read, so neither silence nor a late packet is the peer's. */
  excuse(nowMs: number): void {
    this.heardAt = nowMs
    this.packetSince = nowMs
  }

  /** A PINGREQ is taken: true when it was answered ahead. */
  takeAnsweredPing(): boolean {
    return this.held.takeAnsweredPing()
  }

  clear(): void {
    this.held.clear()
  }

  block(block: number): void {
    this.blockedBy |= block
  }

  /** Something that blocked is settled: goes on with what is held, then with the socket. */
  unblock(block: number): void {
    if ((this.blockedBy & block) === 0) return
    this.blockedBy &= ~block
    if (this.blockedBy !== 0 || !this.taker.isOpen) return
    if (!this.held.isEmpty) {
      this.walkHeld()
      if (!this.taker.isOpen) return
      this.taker.afterWalk()
      if (!this.taker.isOpen) return
    }
    this.resume()
  }

  pause(): void {
    if (this.isPaused) return
    this.isPaused = true
    this.socket.pause()
  }

  /** Reads on, unless there is a reason not to. */
  resume(): void {
    if (!this.isPaused || this.taker.isReadingStopped || (this.blockedBy & blocks.drain) !== 0) return
    if (this.blockedBy !== 0 && this.held.length > limits.lookAheadBytesMax / 2) return
    this.isPaused = false
    this.excuse(this.taker.nowMs)
    this.socket.resume()
  }

  private onData(chunk: Buffer, end: number): void {
    const { held, taker } = this
    if (!taker.isOpen) return
    this.heardAt = taker.nowMs
    let at = 0
    // What is held is an unfinished packet (or nothing), or whole packets that wait behind a block.
    while (!held.isEmpty && this.blockedBy === 0 && at < end) {
      const missing = held.missing()
      if (missing < 0) {
        taker.refuse('malformed-packet')
        return
      }
      const taken = Math.min(missing, end - at)
      held.append(chunk, at, at + taken)
      at += taken
      this.walkHeld()
      if (!taker.isOpen) return
    }
    if (held.isEmpty) at = this.walk(chunk, at, end)
    if (!taker.isOpen) return
    if (at < end) this.keep(chunk, at, end)
    taker.afterWalk()
  }

  private keep(chunk: Buffer, at: number, end: number): void {
    const { held } = this
    if (held.isEmpty) this.packetSince = this.taker.nowMs
    held.append(chunk, at, end)
    if (this.blockedBy === 0) return
    if (this.taker.isWelcomed) for (let pings = held.pingsAhead(); pings > 0; pings--) this.taker.onPingAhead()
    if (held.length > limits.lookAheadBytesMax) this.pause()
  }

  private walkHeld(): void {
    const { held } = this
    const end = this.walk(held.bytes, held.start, held.end)
    if (!this.taker.isOpen) return
    if (end !== held.start) this.packetSince = this.taker.nowMs
    held.consume(end)
  }

  /** Takes whole packets from `from` on; returns where it stopped: at a packet that is not whole, or that has to wait. */
  private walk(bytes: Buffer, from: number, end: number): number {
    const { taker } = this
    let at = from
    while (at < end && this.blockedBy === 0) {
      const first = bytes[at]!
      // The length field, in place: this loop runs once a message, and most lengths have one or two bytes.
      let body = at + 2
      let length = body <= end ? bytes[at + 1]! : -1
      if (length > 127) {
        if (body < end && bytes[body]! < 128) {
          length = (length & 127) | (bytes[body]! << 7)
          body++
        } else {
          const size = packetSize(bytes, at, end)
          if (size < 0) return this.refuse('malformed-packet', at)
          body = size === 0 ? 0 : bodyStart(bytes, at)
          length = size === 0 ? -1 : at + size - body
        }
      }
      const next = body + length
      if (length < 0 || next > end || taker.awaitsConnect || length > limits.packetBytesMax) {
        const cause = this.causeToRefuse(first, length)
        if (cause !== undefined) return this.refuse(cause, at)
        if (length < 0 || next > end) return at
      } else if (first >> 4 !== packetTypes.publish && !isPacketStart(first, length)) {
        return this.refuse('malformed-packet', at)
      }
      if (!taker.take(first, bytes, at, body, next)) return at
      at = next
    }
    return at
  }

  /** What is wrong with a packet by its header alone; `length` is -1 while that is not whole. */
  private causeToRefuse(first: number, length: number): CloseCause | undefined {
    const isConnect = this.taker.awaitsConnect
    if (isConnect && first !== 0x10) return 'connect-expected'
    if (length < 0 ? !isFirstByte(first) : !isPacketStart(first, length)) return 'malformed-packet'
    if (isConnect) return length > limits.connectBytesMax ? 'connect-too-large' : undefined
    return length > limits.packetBytesMax ? 'packet-too-large' : undefined
  }

  private refuse(cause: CloseCause, at: number): number {
    this.taker.refuse(cause)
    return at
  }
}
