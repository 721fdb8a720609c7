// A connection's way to the broker: its session there, opened when the connection first has something for it, what is under way in it, and what it
// sends back. Most devices only publish telemetry and never have one.
import type { DeviceCredential } from '../domain/authority.ts'
import { ingestLimits as limits } from './limits.ts'
import { ackKinds } from './mqtt-acks.ts'
import type { MqttBroker } from './mqtt-broker.ts'
import { type ConnectPacket, packetSize, packetTypes } from './mqtt-frames.ts'
import type { BrokerSession, SessionOwner } from './mqtt-session-stream.ts'

/** What a passage asks of its connection. */
export interface PassageEnd {
  readonly clientId: string
  readonly credential: DeviceCredential
  /** Bytes written to the peer that it has not taken. */
  readonly outputBytes: number
  /** Whole packets for the peer. */
  write(bytes: Buffer): void
  /** Calls back when more may be written. */
  whenWritable(done: () => void): void
  /** The broker acknowledged a passed publish: true when it goes out in the order of the publishes, not now. */
  onAcknowledged(kind: number, packetId: number): boolean
  /** A session that was opened stands, or there is room again. */
  onPassageFree(): void
  onSessionClosed(error: Error | undefined): void
}

export class MqttPassage implements SessionOwner {
  private readonly broker: MqttBroker
  private readonly end: PassageEnd
  private session: BrokerSession | undefined
  private isReady = false
  /** The client waits for the broker's CONNACK; else it had one from the front. */
  forwardsConnack = false
  /** Publishes and subscriptions that the broker has and has not dealt with, and their bytes. */
  private passed = 0
  private passedBytes = 0
  /** QoS 2 messages that were passed and are not released. */
  private unreleased: Set<number> | undefined
  /** The beginning of a packet of the broker. */
  private unfinished: Buffer | undefined

  constructor(broker: MqttBroker, end: PassageEnd) {
    this.broker = broker
    this.end = end
  }

  get clientId(): string {
    return this.end.clientId
  }

  get credential(): DeviceCredential {
    return this.end.credential
  }

  get outputBytes(): number {
    return this.end.outputBytes
  }

  /** The session stands. */
  get isOpen(): boolean {
    return this.isReady
  }

  get isOpening(): boolean {
    return this.session !== undefined && !this.isReady
  }

  /** The broker has something that it has not dealt with. */
  get isBusy(): boolean {
    return this.passed > 0
  }

  open(connect: ConnectPacket, forwardsConnack: boolean): void {
    this.forwardsConnack = forwardsConnack
    this.session = this.broker.openSession(this, connect)
  }

  /** Whether a publish or a subscription of so many bytes may be passed now; if not, `onPassageFree` tells when to try again. */
  hasRoom(bytes: number): boolean {
    if (this.passed === 0) return true
    return this.passed < limits.passedInFlightMax && this.passedBytes + bytes <= limits.passedBytesInFlightMax
  }

  /** A publish, SUBSCRIBE or UNSUBSCRIBE: counts until the broker has dealt with it. */
  pass(bytes: Buffer, start: number, end: number): void {
    this.passed++
    this.passedBytes += end - start
    this.passSmall(bytes, start, end)
  }

  /** A packet of two bytes of body or none: dealt with at once. */
  passSmall(bytes: Buffer, start: number, end: number): void {
    this.session?.pass(Buffer.from(bytes.subarray(start, end)))
  }

  /** Notes a QoS 2 publish on its way; false when too many are not released (waiting would wait for ever). */
  noteUnreleased(packetId: number): boolean {
    this.unreleased ??= new Set()
    this.unreleased.add(packetId)
    return this.unreleased.size <= limits.unreleasedMax
  }

  noteReleased(packetId: number): void {
    this.unreleased?.delete(packetId)
  }

  close(): void {
    const { session } = this
    this.session = undefined
    session?.close()
  }

  onSessionReady(): void {
    this.isReady = true
    this.end.onPassageFree()
  }

  onSessionClosed(error: Error | undefined): void {
    if (this.session === undefined) return
    this.session = undefined
    this.end.onSessionClosed(error)
  }

  onPassedDone(): void {
    this.passed--
    if (this.passed === 0) this.passedBytes = 0
    if (this.passed <= limits.passedInFlightMax / 2) this.end.onPassageFree()
  }

  /** What aedes sends, in whole packets only, since acknowledgements of the front go out in between. */
  onSessionOutput(output: Buffer, done: () => void): void {
    const bytes = this.unfinished === undefined ? output : Buffer.concat([this.unfinished, output])
    let at = 0
    let from = 0
    while (at < bytes.length) {
      const size = packetSize(bytes, at, bytes.length)
      if (size <= 0 || at + size > bytes.length) break
      if (!this.isForwarded(bytes, at)) {
        if (at > from) this.end.write(bytes.subarray(from, at))
        from = at + size
      }
      at += size
    }
    if (at > from) this.end.write(bytes.subarray(from, at))
    this.unfinished = at < bytes.length ? Buffer.from(bytes.subarray(at)) : undefined
    this.end.whenWritable(done)
  }

  private isForwarded(bytes: Buffer, at: number): boolean {
    switch (bytes[at]! >> 4) {
      case packetTypes.connack:
        return this.forwardsConnack
      case packetTypes.puback:
        return !this.end.onAcknowledged(ackKinds.puback, bytes.readUInt16BE(at + 2))
      case packetTypes.pubrec:
        this.onPassedDone()
        return !this.end.onAcknowledged(ackKinds.pubrec, bytes.readUInt16BE(at + 2))
      case packetTypes.suback:
      case packetTypes.unsuback:
        this.onPassedDone()
        return true
      default:
        return true
    }
  }
}
