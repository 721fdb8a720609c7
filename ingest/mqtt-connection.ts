// One MQTT connection: walks the packets in what its socket brings, settles what the front settles itself (CONNECT, telemetry, PINGREQ), and
// passes the rest to its session in the broker, which is opened when there is something to pass. Reading stops at whatever is not settled yet.
//
//   socket ──▶ walk ──┬─ telemetry ──▶ accepter ──(durable)──▶ ack ring ──▶ socket
//                     ├─ PINGREQ ───▶ socket
//                     └─ the rest ──▶ session (aedes) ──▶ socket
import type { Duplex } from 'node:stream'
import { type DeviceCredential, everyone } from '../domain/authority.ts'
import type { CloseCause } from './events.ts'
import { ingestLimits as limits } from './limits.ts'
import { AckRing, type AckSlab } from './mqtt-acks.ts'
import { admit, type DoorKeeper, refusalOf } from './mqtt-admission.ts'
import {
  type ConnackCode,
  type ConnectPacket,
  connack,
  packetTypes,
  pingresp,
  pubcomp,
  readFilters,
  subackRefused,
} from './mqtt-frames.ts'
import { MqttOutput, type OutputOwner } from './mqtt-output.ts'
import { MqttPassage, type PassageEnd } from './mqtt-passage.ts'
import { MqttPublishes, type PublishHost, type PublishOwner } from './mqtt-publishes.ts'
import { blocks, PacketReader, type PacketTaker } from './mqtt-reader.ts'

/** A credential, 0 (welcome, whoever it is), or the CONNACK code of the refusal. */
type Admittance = DeviceCredential | ConnackCode
/** Who may connect. */
export type Authenticate = (connect: ConnectPacket, certificate?: string) => Admittance | Promise<Admittance>

/** What all connections of a front share. */
export interface ConnectionHost extends PublishHost, DoorKeeper {
  readonly slab: AckSlab
  readonly authenticate: Authenticate
  /** Milliseconds of a live event loop, in steps: a loop that stood still ages nobody. */
  readonly nowMs: number
  /** True while the memory of all connections is used up. */
  readonly isReadingStopped: boolean
  /** There are acknowledgements to come: tell me when a cycle is durable. */
  awaitsDurable(connection: MqttConnection): void
  /** The connection holds so many bytes more (or less). */
  charge(bytes: number): void
  /** The client id is this connection's from now on; an older one is closed. */
  claim(clientId: string, connection: MqttConnection): void
  closed(connection: MqttConnection): void
}

type State = 'connecting' | 'authenticating' | 'open' | 'lingering' | 'closed'

export class MqttConnection implements PassageEnd, PacketTaker, OutputOwner, PublishOwner {
  clientId = ''
  state: State = 'connecting'
  private readonly host: ConnectionHost
  private readonly socket: Duplex
  private readonly peer: string
  /** The device of the certificate that it showed. */
  private readonly certificate: string | undefined
  private readonly reader: PacketReader
  private readonly output: MqttOutput
  /** Charged to the host. */
  private charged = 0
  private readonly ring = new AckRing()
  private readonly publishes: MqttPublishes
  /** The host's: where this connection stands in its list of those that acknowledgements are to come for; -1: in none. */
  awaitedAt = -1

  private connect: ConnectPacket | undefined
  /** Who it is, once it was let in. */
  private admitted: DeviceCredential | undefined
  private passage: MqttPassage | undefined

  private keepaliveMs = 0
  /** When the wait began for CONNECT, for its answer, for the session, or for the peer to close. */
  private stateSince: number
  /** When the peer went; -1: it is there. */
  private goneAt = -1
  private pingedAt = 0
  private pingsToAnswer = 0

  constructor(host: ConnectionHost, socket: Duplex, peer: string, certificate?: string) {
    this.host = host
    this.socket = socket
    this.peer = peer
    this.certificate = certificate
    this.stateSince = host.nowMs
    this.reader = new PacketReader(socket, this)
    this.output = new MqttOutput(socket, this)
    this.publishes = new MqttPublishes(this, host, this.reader, this.ring)
    socket.on('error', () => this.onPeerGone())
    socket.on('end', () => this.onPeerGone())
    socket.on('close', () => this.onPeerGone())
    if (host.isReadingStopped) this.reader.pause()
  }

  get outputBytes(): number {
    return this.output.bytes
  }

  get credential(): DeviceCredential {
    return this.admitted ?? everyone
  }

  get nowMs(): number {
    return this.host.nowMs
  }

  get isReadingStopped(): boolean {
    return this.host.isReadingStopped
  }

  get isOpen(): boolean {
    return this.state !== 'lingering' && this.state !== 'closed'
  }

  get isWelcomed(): boolean {
    // The broker's CONNACK, where it is the answer, comes before its session is open.
    return this.state === 'open' && !(this.passage?.isOpening && this.passage.forwardsConnack)
  }

  get awaitsConnect(): boolean {
    return this.state === 'connecting'
  }

  /** After each run of packets: answers, memory, acknowledgements that need no waiting. */
  afterWalk(): void {
    if (this.pingsToAnswer > 0) {
      const pings = this.pingsToAnswer
      this.pingsToAnswer = 0
      this.write(pings === 1 ? pingresp : Buffer.alloc(2 * pings, pingresp))
    }
    this.output.uncork()
    this.charge()
    this.flushReady()
    this.endIfGone()
  }

  /** Acknowledgements that need not wait go out; for the others the host calls when they are durable. */
  private flushReady(): void {
    if (this.ring.empty) return
    const { durableCycle } = this.host.accepter
    if (this.ring.ready(durableCycle)) this.flush(durableCycle)
    else if (this.awaitedAt < 0) this.host.awaitsDurable(this)
  }

  /** The host's: this socket is not read until `continueReading`. What was read goes on as credit allows. */
  stopReading(): void {
    this.reader.pause()
  }

  continueReading(): void {
    this.reader.resume()
  }

  /** Nothing is taken any more; what was taken is still acknowledged. */
  beginDrain(): void {
    this.reader.block(blocks.drain)
    this.reader.pause()
  }

  /** Bytes of a packet that may never be whole. */
  get unfinishedBytes(): number {
    return this.reader.isUnfinished ? this.reader.heldBytes : 0
  }

  // --- packets ---

  take(first: number, bytes: Buffer, at: number, body: number, end: number): boolean {
    return first >> 4 === packetTypes.publish
      ? this.publishes.take(first, bytes, at, body, end)
      : this.other(first, bytes, at, body, end)
  }

  /** Everything but PUBLISH. */
  private other(first: number, bytes: Buffer, at: number, body: number, end: number): boolean {
    switch (first >> 4) {
      case packetTypes.connect:
        return this.state === 'connecting' ? this.onConnect(bytes, body, end) : this.refuse('connect-twice')
      case packetTypes.pingreq:
        if (!this.reader.takeAnsweredPing()) this.pingsToAnswer++
        return true
      case packetTypes.disconnect:
        this.onDisconnect(bytes, at, end)
        return false
      case packetTypes.subscribe:
      case packetTypes.unsubscribe:
        return this.onFilters(first, bytes, at, body, end)
      case packetTypes.pubrel:
        return this.onPubrel(bytes, at, body, end)
      default:
        // PUBACK, PUBREC, PUBCOMP: the broker delivered something, or nobody did.
        if (readUint16(bytes, body) === 0) return this.refuse('malformed-packet')
        if (this.passage?.isOpen) this.passage.passSmall(bytes, at, end)
        else this.host.events.strayPacket({ clientId: this.clientId, type: first >> 4 })
        return true
    }
  }

  private onPubrel(bytes: Buffer, at: number, body: number, end: number): boolean {
    const packetId = readUint16(bytes, body)
    if (packetId === 0) return this.refuse('malformed-packet')
    if (this.publishes.release(packetId) || !this.passage?.isOpen) {
      this.output.cork()
      this.write(pubcomp(packetId))
      return true
    }
    this.passage.noteReleased(packetId)
    this.passage.passSmall(bytes, at, end)
    return true
  }

  private onFilters(first: number, bytes: Buffer, at: number, body: number, end: number): boolean {
    const isSubscribe = first >> 4 === packetTypes.subscribe
    const filters = readFilters(bytes, body, end, isSubscribe)
    if (filters === undefined) return this.refuse('malformed-packet')
    // The same filter twice would be answered with too few codes by the broker; more than a few at once is refused whole.
    if (isSubscribe && (filters.length > limits.filtersPerSubscribeMax || new Set(filters).size < filters.length)) {
      this.host.events.subscriptionRefused({ clientId: this.clientId, filter: `${filters.length} in one packet` })
      this.write(subackRefused(readUint16(bytes, body), filters.length))
      return true
    }
    const passage = this.passageFor(end - at)
    passage?.pass(bytes, at, end)
    return passage !== undefined
  }

  // --- CONNECT and the session ---

  private onConnect(bytes: Buffer, body: number, end: number): boolean {
    const admission = admit(bytes, body, end, this.host.topicsOpen)
    if (admission.kind === 'refused') {
      const { answer, cause, detail } = admission
      if (answer === undefined) return this.refuse(cause)
      return this.answerAndClose(answer, cause, detail)
    }
    const { connect } = admission
    this.clientId = connect.clientId
    // The password is not kept beyond the question.
    this.connect = { ...connect, password: undefined }
    this.state = 'authenticating'
    this.stateSince = this.host.nowMs
    const answer = this.host.authenticate(connect, this.certificate)
    if (!(answer instanceof Promise)) this.onAuthenticated(answer)
    else {
      this.reader.block(blocks.connack)
      const goOn = (given: Admittance): void => {
        this.onAuthenticated(given)
        this.reader.unblock(blocks.connack)
      }
      answer.then(goOn, () => goOn(3))
    }
    return this.isOpen
  }

  private onAuthenticated(answer: Admittance): void {
    if (this.state !== 'authenticating') return
    const credential = answer === 0 ? everyone : answer
    if (typeof credential === 'number') {
      this.answerAndClose(connack(credential), 'not-authorised')
      return
    }
    const { host } = this
    const connect = this.connect!
    const refusal = refusalOf(credential, connect, host)
    if (refusal !== undefined) {
      this.answerAndClose(refusal.answer, refusal.cause, refusal.detail)
      return
    }
    this.admitted = credential
    this.state = 'open'
    this.keepaliveMs = connect.keepaliveSeconds * 1000
    this.host.claim(this.clientId, this)
    if (connect.clean && connect.will === undefined) {
      // Nothing yet that the broker would have to know of; most devices only ever publish.
      this.host.broker.forgetSession(this.clientId)
      this.write(connack(0))
    } else this.openPassage(true)
  }

  private openPassage(forwardsConnack: boolean): void {
    this.reader.block(blocks.passage)
    this.stateSince = this.host.nowMs
    this.passage = new MqttPassage(this.host.broker, this)
    this.passage.open(this.connect!, forwardsConnack)
  }

  /** The way to the broker, when it is open and has room; else the packet waits. */
  passageFor(bytes: number): MqttPassage | undefined {
    if (this.passage === undefined) this.openPassage(false)
    else if (this.passage.hasRoom(bytes)) return this.passage
    this.reader.block(blocks.passage)
    return undefined
  }

  onPassageFree(): void {
    this.reader.unblock(blocks.passage)
    this.endIfGone()
  }

  onAcknowledged(kind: number, packetId: number): boolean {
    return this.ring.answered(kind, packetId)
  }

  onSessionClosed(error: Error | undefined): void {
    if (error !== undefined) this.close('broker', error.message)
    else this.end()
  }

  private onDisconnect(bytes: Buffer, at: number, end: number): void {
    // The broker forgets the will and closes; without a session there is nothing to tell.
    if (!this.passage?.isOpen) {
      this.end()
      return
    }
    this.output.uncork()
    this.passage.passSmall(bytes, at, end)
    this.state = 'lingering'
    this.stateSince = this.host.nowMs
  }

  // --- bytes out ---

  /** A cycle is durable: writes the acknowledgements that it frees, all in one. */
  flush(durableCycle: number): void {
    const bytes = this.host.slab.take(this.ring, durableCycle)
    if (bytes !== undefined) this.write(bytes)
    this.reader.unblock(blocks.credit)
    this.charge()
    if (!this.ring.empty && this.awaitedAt < 0) this.host.awaitsDurable(this)
  }

  private charge(): void {
    const holds = this.state === 'closed' ? 0 : this.reader.heldBytes + this.ring.bytes
    if (holds !== this.charged) {
      const more = holds - this.charged
      this.charged = holds
      this.host.charge(more)
    }
  }

  whenWritable(done: () => void): void {
    if (this.goneAt < 0) this.output.whenWritable(done)
    else done()
    this.flushReady()
  }

  write(bytes: Buffer): void {
    if (this.isOpen && this.goneAt < 0) this.output.write(bytes)
  }

  onOutputFull(): void {
    this.reader.block(blocks.output)
  }

  onOutputTaken(): void {
    this.reader.unblock(blocks.output)
  }

  /** Answered at once: a store that stalls must not look like a dead server. */
  onPingAhead(): void {
    this.pingsToAnswer++
  }

  // --- time ---

  /** Called every few hundred milliseconds. */
  onTick(nowMs: number): void {
    if (this.state === 'lingering') {
      if (nowMs - this.stateSince > limits.lingerMs) this.end()
      return
    }
    this.publishes.onTick()
    if (!this.isOpen) return
    if (this.goneAt >= 0) {
      if (nowMs - this.goneAt > limits.leftWithinMs) this.close('left-behind', 'what it sent last had no room in time')
      return
    }
    if (this.state === 'connecting') {
      // While memory is used up its CONNECT waits unread: that is not its silence.
      if (this.reader.isPaused) this.stateSince = nowMs
      if (nowMs - this.stateSince > limits.connectWithinMs) this.close('connect-late')
      return
    }
    if (this.output.isStalled(nowMs)) {
      this.close('slow-reader')
      return
    }
    if (this.state === 'authenticating' || this.passage?.isOpening) {
      if (nowMs - this.stateSince > limits.sessionWithinMs) this.close('session-late')
      return
    }
    const { reader, keepaliveMs } = this
    if (reader.blockedBy !== 0 || reader.isPaused) {
      reader.excuse(nowMs)
      // A peer whose pings we do not even see hears all the same that we live.
      if (reader.isPaused && keepaliveMs > 0 && nowMs - this.pingedAt >= keepaliveMs / 2) {
        this.pingedAt = nowMs
        this.write(pingresp)
      }
      return
    }
    this.pingedAt = nowMs
    if (reader.isLate(nowMs)) this.close('packet-late')
    else if (keepaliveMs > 0 && nowMs - reader.heardAt > keepaliveMs * 1.5) this.close('keepalive')
  }

  // --- the end ---

  /** The registry changed: whoever lost its token goes. */
  onAuthChanged(): void {
    if (this.admitted !== undefined && !this.host.auth.stands(this.admitted)) this.close('revoked')
  }

  /**
   * It closed, or was lost. What it sent before is taken all the same, though nothing tells it so: a publish of QoS 0 and a goodbye come in one go, and may
   * wait behind a session that is opened, behind credit, or for the device's rate.
   */
  private onPeerGone(): void {
    // The broker has its goodbye, and everything that it sent before it.
    if (this.state === 'closed' || (this.state === 'lingering' && this.passage !== undefined)) return
    if (!this.isOpen) {
      this.end()
      return
    }
    if (this.goneAt < 0) {
      this.goneAt = this.host.nowMs
      this.output.close()
      this.reader.unblock(blocks.output)
    }
    this.endIfGone()
  }

  private endIfGone(): void {
    if (this.goneAt >= 0 && this.isOpen && !this.reader.isWaiting && !this.passage?.isBusy) this.end()
  }

  refuse(cause: CloseCause): false {
    this.close(cause)
    return false
  }

  /** Ends the connection for a cause that is counted. */
  close(cause: CloseCause, detail?: string): void {
    if (this.state === 'closed') return
    this.host.events.connectionClosed(cause, {
      peer: this.peer,
      ...(this.clientId !== '' && { clientId: this.clientId }),
      ...(detail !== undefined && { detail }),
    })
    this.end()
  }

  /** A CONNACK that says no; the peer gets a moment to read it before the socket goes (a reset would take it away again). */
  private answerAndClose(answer: Buffer, cause: CloseCause, detail?: string): false {
    this.host.events.connectionClosed(cause, { peer: this.peer, ...(detail !== undefined && { detail }) })
    this.state = 'lingering'
    this.stateSince = this.host.nowMs
    this.reader.clear()
    this.charge()
    this.socket.end(answer)
    return false
  }

  /** Everything acknowledged that can be, then a close in order. */
  finish(): void {
    if (this.state === 'closed') return
    this.flush(this.host.accepter.durableCycle)
    this.passage?.close()
    this.passage = undefined
    this.state = 'lingering'
    this.stateSince = this.host.nowMs
    this.socket.end()
  }

  /** Lets go of everything. */
  end(): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.reader.clear()
    this.charge()
    this.passage?.close()
    this.ring.clear()
    this.socket.destroy()
    this.output.close()
    this.host.closed(this)
  }
}

function readUint16(bytes: Buffer, at: number): number {
  return (bytes[at]! << 8) | bytes[at + 1]!
}
