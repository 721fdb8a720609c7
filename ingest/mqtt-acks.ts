// The publishes of one connection that are not acknowledged yet, in order of arrival: a ring of numbers, no object a message. The same ring
// is the connection's credit (MQTT 3.1.1 §4.6 asks for acknowledgements in the order of the publishes).

/** First bytes of the packets that settle a publish; `none` is QoS 0, which counts for memory only. */
export const ackKinds = { none: 0, puback: 0x40, pubrec: 0x50 } as const

const stride = 3
const capacityFirst = 16
/** Cycle of a publish whose answer comes from the broker. */
const fromBroker = Number.POSITIVE_INFINITY

export class AckRing {
  // [kind << 16 | packet id, cycle, bytes] each. Made with the first publish: most idle connections never need it.
  private entries: Float64Array | undefined
  /** Entries that there is room for, less one: a power of two less one, so that places wrap with an `&`. */
  private mask = -1
  private head = 0
  private length = 0
  /** Publishes of QoS 1 and 2 in it. */
  publishes = 0
  /** Bytes of all publishes in it. */
  bytes = 0

  get empty(): boolean {
    return this.length === 0
  }

  /** The publish becomes durable with `cycle`. */
  push(kind: number, packetId: number, cycle: number, bytes: number): void {
    this.bytes += bytes
    let entries = this.entries
    if (kind === ackKinds.none && this.length > 0 && entries !== undefined) {
      // QoS 0 publishes of one cycle share an entry, so that they need no limit on their number.
      const last = ((this.head + this.length - 1) & this.mask) * stride
      if (entries[last] === ackKinds.none && entries[last + 1] === cycle) {
        entries[last + 2] = entries[last + 2]! + bytes
        return
      }
    }
    if (entries === undefined || this.length > this.mask) entries = this.grow()
    const at = ((this.head + this.length) & this.mask) * stride
    entries[at] = kind * 0x1_0000 + packetId
    entries[at + 1] = cycle
    entries[at + 2] = bytes
    this.length++
    if (kind !== ackKinds.none) this.publishes++
  }

  /** A publish that went on to the broker, which answers it. */
  pushPassed(kind: number, packetId: number, bytes: number): void {
    this.push(kind, packetId, fromBroker, bytes)
  }

  /** The broker answered; false when there was no such publish. */
  answered(kind: number, packetId: number): boolean {
    const entries = this.entries
    if (entries === undefined) return false
    const key = kind * 0x1_0000 + packetId
    for (let i = 0; i < this.length; i++) {
      const at = ((this.head + i) & this.mask) * stride
      if (entries[at] === key && entries[at + 1] === fromBroker) {
        entries[at + 1] = 0
        return true
      }
    }
    return false
  }

  /** Whether take() would take something. */
  ready(durableCycle: number): boolean {
    return this.length > 0 && this.entries![this.head * stride + 1]! <= durableCycle
  }

  /** Takes everything that is durable from the front of the ring and writes its acknowledgements to `out`; returns the bytes written. */
  take(durableCycle: number, out: Uint8Array, at: number): number {
    const entries = this.entries
    if (entries === undefined) return 0
    let { head, length } = this
    let end = at
    while (length > 0) {
      const entry = head * stride
      if (entries[entry + 1]! > durableCycle) break
      const key = entries[entry]!
      if (key !== ackKinds.none) {
        out[end] = key >>> 16
        out[end + 1] = 2
        out[end + 2] = (key >>> 8) & 255
        out[end + 3] = key & 255
        end += 4
        this.publishes--
      }
      this.bytes -= entries[entry + 2]!
      head = (head + 1) & this.mask
      length--
    }
    this.head = head
    this.length = length
    return end - at
  }

  clear(): void {
    this.entries = undefined
    this.mask = -1
    this.head = 0
    this.length = 0
    this.publishes = 0
    this.bytes = 0
  }

  private grow(): Float64Array {
    const before = this.entries
    const after = new Float64Array(before === undefined ? capacityFirst * stride : before.length * 2)
    if (before !== undefined) {
      for (let i = 0; i < this.length; i++) {
        const from = ((this.head + i) & this.mask) * stride
        after.set(before.subarray(from, from + stride), i * stride)
      }
    }
    this.head = 0
    this.mask = after.length / stride - 1
    this.entries = after
    return after
  }
}

const slabBytes = 64 * 1024

/** Acknowledgements of one flush, cut from a slab: a socket may keep them until the peer has taken them, so they are not written over. */
export class AckSlab {
  private slab = Buffer.allocUnsafeSlow(slabBytes)
  private at = 0

  take(ring: AckRing, durableCycle: number): Buffer | undefined {
    const need = ring.publishes * 4
    if (this.at + need > slabBytes) {
      this.slab = Buffer.allocUnsafeSlow(slabBytes)
      this.at = 0
    }
    const length = ring.take(durableCycle, this.slab, this.at)
    if (length === 0) return undefined
    const bytes = this.slab.subarray(this.at, this.at + length)
    this.at += length
    return bytes
  }
}
