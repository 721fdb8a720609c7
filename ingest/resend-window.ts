// Recognises what a device without a clock sends again (MQTT's DUP flag, topic, packet id and payload), so that the same measurement does not get
// a second instant. Bounded: a few recent publishes a client, a budget over all clients, in memory only. So the promise is weaker than for
// devices with a clock: after a restart of ours, or past the window, a resend becomes a second reading.

/** Recent publishes kept a client. The front allows 128 in flight, so no more can be sent again. */
const publishesMax = 128
const publishesMin = 8
/** A publish that is this old is not waited for any more when its place is needed. */
const settledAfterMicros = 30_000_000
/** Numbers kept a publish: packet id and CRC32 (of topic and payload) in one, the payload's length, cycle, when. */
const slots = 4
const clientOverheadBytes = 300

class ClientWindow {
  ring = new Float64Array(publishesMin * slots)
  next = 0
  touched = true
}

export class ResendWindow {
  private readonly bytesMax: number
  private readonly clients = new Map<string, ClientWindow>()
  private lastClient = ''
  private lastWindow: ClientWindow | undefined
  bytes = 0

  constructor(bytesMax = 16 * 1024 * 1024) {
    this.bytesMax = bytesMax
  }

  /**
   * The cycle that the same publish was written into; or -1. Only the last one with this packet id counts: a client uses an id again once it
   * was acknowledged, so it sends none of the earlier ones again.
   */
  find(clientId: string, packetId: number, crc: number, length: number): number {
    const window = this.windowOf(clientId)
    if (!window) return -1
    const { ring } = window
    const key = packetId * 0x1_0000_0000 + crc
    let at = window.next * slots
    for (let seen = 0; seen < ring.length; seen += slots) {
      at = at === 0 ? ring.length - slots : at - slots
      if (Math.floor(ring[at]! / 0x1_0000_0000) !== packetId) continue
      return ring[at] === key && ring[at + 1] === length ? ring[at + 2]! : -1
    }
    return -1
  }

  remember(clientId: string, packetId: number, crc: number, length: number, cycle: number, now: number): void {
    const window = this.windowOf(clientId) ?? this.open(clientId)
    window.touched = true
    let { ring } = window
    let at = window.next * slots
    if (ring[at] !== 0 && ring.length < publishesMax * slots && now - ring[at + 3]! < settledAfterMicros) {
      // The one to give way is recent: this client has more in flight than the window holds.
      const larger = new Float64Array(ring.length * 2)
      larger.set(ring.subarray(at), 0)
      larger.set(ring.subarray(0, at), ring.length - at)
      window.ring = larger
      at = ring.length
      this.bytes += ring.byteLength
      ring = larger
      this.makeRoom(window)
    }
    ring[at] = packetId * 0x1_0000_0000 + crc
    ring[at + 1] = length
    ring[at + 2] = cycle
    ring[at + 3] = now
    window.next = (at / slots + 1) % (ring.length / slots)
  }

  get clientCount(): number {
    return this.clients.size
  }

  private windowOf(clientId: string): ClientWindow | undefined {
    if (clientId !== this.lastClient || !this.lastWindow) {
      this.lastClient = clientId
      this.lastWindow = this.clients.get(clientId)
    }
    return this.lastWindow
  }

  private open(clientId: string): ClientWindow {
    const window = new ClientWindow()
    this.clients.set(clientId, window)
    this.lastWindow = window
    this.bytes += window.ring.byteLength + clientOverheadBytes + 2 * clientId.length
    this.makeRoom(window)
    return window
  }

  /** Second chance: a client that was heard from since the last round goes to the back once, then it gives way. */
  private makeRoom(keep: ClientWindow): void {
    for (const [clientId, window] of this.clients) {
      if (this.bytes <= this.bytesMax) return
      if (window === keep) continue
      this.clients.delete(clientId)
      if (window.touched) {
        window.touched = false
        this.clients.set(clientId, window)
        continue
      }
      this.bytes -= window.ring.byteLength + clientOverheadBytes + 2 * clientId.length
      if (this.lastWindow === window) this.lastWindow = undefined
    }
  }
}
