// One WebSocket of /v1/ingest: frames in, cumulative acknowledgements out. Its socket can't be paused, so its protocol has a window, announced in the
// hello: a peer that has more unsettled is closed with 4008, and what it had unsettled was never acknowledged.
//
//   message ──▶ gathered ──(end of the turn)──▶ frame ──▶ accepter ──(durable)──▶ window ──▶ ack, rejects: one send
import { type DeviceCredential, everyone, maySpeakFor } from '../domain/authority.ts'
import { isDeviceName } from '../domain/reading.ts'
import type { ServerSocket, SocketHandler } from '../runtime/web-server.ts'
import type { AcceptRoute } from './accept.ts'
import type { SocketCloseCause } from './events.ts'
import { IngestFrame } from './gateway-frames.ts'
import type { MessageTaker } from './gateway-gathered.ts'
import type { GatewayHost } from './gateway-host.ts'
import { frameCodecs, isJsonCodec } from './gateway-payloads.ts'
import { ackFrame, IngestWindow } from './gateway-window.ts'
import { ingestLimits as limits } from './limits.ts'
import { RememberedTopic, RememberedTopics } from './mqtt-topics-remembered.ts'
import type { RateBucket } from './rate-limits.ts'

export interface IngestSocketHost extends GatewayHost {
  /** Hands the message to `take` by the end of the turn, after all that came before it. */
  gather(socket: IngestSocket, bytes: Uint8Array, isBinary: boolean): void
  /** Hands over at once what was gathered. */
  takeGathered(): void
  /** There are acknowledgements to come: call `flush` when a cycle is durable. */
  awaitsDurable(socket: IngestSocket): void
  /** It has said who it is. */
  admitted(socket: IngestSocket): void
  /** Acknowledgements wait for a device's rate: ask `isPaidFor` now and then. */
  awaitsRate(socket: IngestSocket): void
  closed(socket: IngestSocket): void
}

const hello = `{"type":"hello","window":${limits.ingestWindow},"maxBytes":${limits.ingestMessageBytesMax}}`
const origin = '/v1/ingest'
/** Why we close: the code, and the word that goes with it. */
const closeCodes = {
  malformed: 4000,
  window: 4008,
  order: 4009,
  size: 1009,
  busy: 1013,
  'not-authorised': 4401,
  revoked: 4403,
} as const satisfies Partial<Record<SocketCloseCause, number>>

/** Sockets take turns, so what is read of a frame is in one place for all. */
const frame = new IngestFrame()
const nowhere = Buffer.alloc(0)

export class IngestSocket implements SocketHandler, MessageTaker {
  /** The host knows that acknowledgements are to come. */
  isAwaited = false
  private readonly host: IngestSocketHost
  /** Who speaks, unless a frame says so. */
  private device: string | undefined
  /** Undefined until a frame has said who it is. */
  private credential: DeviceCredential | undefined
  private readonly bornMs: number
  private readonly peer: string
  private readonly window = new IngestWindow(limits.ingestWindow)
  private readonly routes = new Map<string, RememberedTopics>()
  private routeOfDevice: AcceptRoute | undefined
  private bucketOfDevice: RateBucket | undefined
  /** What acknowledgements wait for, while a device sends faster than it may. */
  private pacedBy: RateBucket | undefined
  private socket: ServerSocket | undefined
  private lastId = -1

  constructor(
    host: IngestSocketHost,
    of: { device: string | undefined; credential: DeviceCredential | undefined; peer: string },
  ) {
    this.host = host
    this.device = of.device
    this.peer = of.peer
    this.bornMs = host.nowMs
    if (of.credential !== undefined) this.admit(of.credential)
  }

  opened(socket: ServerSocket): void {
    this.socket = socket
    socket.send(hello, false)
  }

  ended(): void {
    // What came before the end was sent before it.
    this.host.takeGathered()
    this.socket = undefined
    this.host.closed(this)
  }

  message(bytes: Uint8Array, isBinary: boolean): void {
    // What comes while we stop is not taken; the peer learns with the close what was.
    if (this.socket === undefined || this.host.isDraining) return
    if (bytes.length > limits.ingestMessageBytesMax) {
      this.host.takeGathered()
      this.close('size')
    } else if (this.credential === undefined) this.authenticate(bytes, isBinary)
    else this.host.gather(this, bytes, isBinary)
  }

  take(bytes: Buffer, start: number, end: number, isBinary: boolean): void {
    // Closed for one that came before it.
    if (this.socket === undefined) return
    if (!(isBinary ? frame.readBinary(bytes, start, end) : frame.readText(bytes, start, end))) {
      // Who says who it is where nobody asks is not wrong.
      const isAuth = this.lastId < 0 && !isBinary && readAuthFrame(bytes.subarray(start, end)) !== undefined
      if (!isAuth) this.close('malformed')
      return
    }
    if (frame.id <= this.lastId) {
      this.close('order')
      return
    }
    if (this.window.isFull) {
      this.close('window')
      return
    }
    if (this.host.isMemoryUsed()) {
      this.close('busy')
      return
    }
    this.lastId = frame.id
    const route = this.routeOf(bytes)
    if (route === undefined) return
    if (this.host.rates !== undefined && this.bringsDebt(route, bytes)) {
      this.close('busy')
      return
    }
    const { accepter } = this.host
    const cycle = frame.isPayloadText
      ? this.acceptText(route, bytes)
      : accepter.accept(route, bytes, frame.payloadStart, frame.payloadEnd)
    if (accepter.lastAccepted > 0 || accepter.lastDeadLettered === 0) this.window.push(frame.id, cycle)
    else this.window.pushReject(frame.id, cycle, accepter.lastReason, accepter.lastDeadLetterId)
    if (this.host.rates !== undefined) this.pace(route, bytes)
    if (!this.isAwaited) this.host.awaitsDurable(this)
  }

  /** A cycle is durable: everything that it settles is said in one send. */
  flush(durableCycle: number): void {
    const { window, socket } = this
    if (socket === undefined || this.pacedBy !== undefined) return
    const frames = window.settle(durableCycle)
    const { ackedUpTo } = window
    if (frames === undefined) {
      if (ackedUpTo >= 0) socket.send(ackFrame(ackedUpTo), false)
    } else {
      if (ackedUpTo >= 0) frames.push(ackFrame(ackedUpTo))
      socket.cork(() => {
        for (const each of frames) socket.send(each, false)
      })
    }
    if (!window.isEmpty && !this.isAwaited) this.host.awaitsDurable(this)
  }

  /** In order: what is durable was acknowledged before. */
  finish(): void {
    this.pacedBy = undefined
    this.flush(this.host.accepter.durableCycle)
    this.socket?.end(1001, 'stopping')
  }

  /** False while it may still say who it is. */
  isLate(): boolean {
    if (this.host.nowMs - this.bornMs <= limits.connectWithinMs) return false
    this.close('not-authorised')
    return true
  }

  /** It has not said who it is, and somebody else wants to. */
  makeRoom(): void {
    this.close('busy')
  }

  onAuthChanged(): void {
    if (this.credential === undefined || this.host.auth.stands(this.credential)) return
    // What came before was sent while it stood.
    this.host.takeGathered()
    this.close('revoked')
  }

  /** True when the debt is paid: what waited is said. */
  isPaidFor(durableCycle: number): boolean {
    if (this.pacedBy !== undefined && this.pacedBy.waitMs() > 0) return false
    this.pacedBy = undefined
    this.flush(durableCycle)
    return true
  }

  /** What was taken counts; beyond the rate nothing is acknowledged until it is paid for, so that the window fills. */
  private pace(route: AcceptRoute, bytes: Buffer): void {
    const { accepter, events } = this.host
    const bucket = this.bucketOf(route, bytes)
    const waitMs = bucket?.spend(accepter.lastAccepted + accepter.lastDeadLettered) ?? 0
    if (waitMs === 0) return
    if (this.pacedBy === undefined) events.rateLimited('websocket', { device: route.device, waitMs: Math.ceil(waitMs) })
    if (this.pacedBy === undefined || this.pacedBy.waitMs() < waitMs) this.pacedBy = bucket
    this.host.awaitsRate(this)
  }

  /** What it sent here fills the window; a device that owes from elsewhere would only have to come again, to be taken a window more. */
  private bringsDebt(route: AcceptRoute, bytes: Buffer): boolean {
    if (this.pacedBy !== undefined) return false
    const waitMs = this.bucketOf(route, bytes)?.waitMs() ?? 0
    if (waitMs <= limits.debtMsMax) return false
    this.host.events.rateLimited('websocket', { device: route.device, waitMs: Math.ceil(waitMs) })
    return true
  }

  private bucketOf(route: AcceptRoute, bytes: Buffer): RateBucket | undefined {
    const { rates } = this.host
    if (frame.deviceStart < 0) {
      this.bucketOfDevice ??= rates?.of(route.tenant, route.device)
      return this.bucketOfDevice
    }
    const known = this.routes.get(route.codec)?.find(bytes, frame.deviceStart, frame.deviceEnd)
    return known === undefined ? rates?.of(route.tenant, route.device) : known.bucket
  }

  private admit(credential: DeviceCredential): void {
    this.credential = credential
    // Without a name in the address a device speaks for itself; a gateway's frames say for whom.
    if (credential !== everyone && credential.speaksFor.length === 0) this.device ??= credential.device
    this.host.admitted(this)
  }

  /** The first frame of a browser, which can't set a header. */
  private authenticate(bytes: Uint8Array, isBinary: boolean): void {
    const token = isBinary ? undefined : readAuthFrame(bytes)
    const credential = token === undefined ? undefined : this.host.auth.byToken(token)
    if (credential === undefined || (this.device !== undefined && !maySpeakFor(credential, this.device)))
      this.close('not-authorised')
    else this.admit(credential)
  }

  private close(cause: keyof typeof closeCodes): void {
    const { device, peer, socket } = this
    if (socket === undefined) return
    // Nothing more is taken from here on, even where the peer closed first and the library has nothing left to end.
    this.socket = undefined
    this.host.events.socketClosed(cause, { path: origin, peer, ...(device !== undefined && { device }) })
    socket.end(closeCodes[cause], cause)
  }

  /** Undefined: the frame was refused, or the socket closed. */
  private routeOf(bytes: Buffer): AcceptRoute | undefined {
    const { codecNumber, codecStart, codecEnd } = frame
    const codec =
      codecNumber >= 0
        ? frameCodecs[codecNumber]!
        : codecStart < 0
          ? 'json'
          : (stringOf(bytes, codecStart, codecEnd) ?? '')
    if (frame.deviceStart < 0) return this.ownRoute(codec)
    const { deviceStart, deviceEnd } = frame
    const known = this.routes.get(codec)?.find(bytes, deviceStart, deviceEnd)
    return known === undefined ? this.learn(bytes, codec) : known.route
  }

  private ownRoute(codec: string): AcceptRoute | undefined {
    if (this.routeOfDevice?.codec === codec) return this.routeOfDevice
    if (this.device === undefined) {
      this.close('malformed')
      return undefined
    }
    this.routeOfDevice = this.host.accepter.route(this.credential!.tenant, this.device, codec, origin)
    return this.routeOfDevice
  }

  private learn(bytes: Buffer, codec: string): AcceptRoute | undefined {
    const { deviceStart, deviceEnd } = frame
    const device = stringOf(bytes, deviceStart, deviceEnd)
    if (device === undefined || !isDeviceName(device)) {
      this.refuse('invalid-device-name')
      return
    }
    const { host, credential = everyone } = this
    if ((this.device !== undefined && device !== this.device) || !maySpeakFor(credential, device)) {
      this.refuse('not-this-device')
      return
    }
    const { tenant } = credential
    const route = host.accepter.route(tenant, device, codec, origin)
    // Codecs that there are not many of are remembered: names of others come from outside.
    if ((frameCodecs as readonly string[]).includes(codec)) {
      let topics = this.routes.get(codec)
      if (topics === undefined) {
        topics = new RememberedTopics()
        this.routes.set(codec, topics)
      }
      const bytesOfDevice = Buffer.from(bytes.subarray(deviceStart, deviceEnd))
      topics.add(new RememberedTopic(bytesOfDevice, device, route, host.rates?.of(tenant, device)))
    }
    return route
  }

  /** Nothing was kept, so nothing has to become durable: said with the next acknowledgements, in order. */
  private refuse(reason: string): undefined {
    this.host.events.requestRefused(reason, { peer: this.peer, path: origin })
    this.window.pushReject(frame.id, 0, reason, '')
    if (!this.isAwaited) this.host.awaitsDurable(this)
    this.flush(this.host.accepter.durableCycle)
    return undefined
  }

  /** A payload that is a JSON string: for a JSON codec a value that it refuses, for any other its text. */
  private acceptText(route: AcceptRoute, bytes: Buffer): number {
    const { accepter } = this.host
    const { payloadStart, payloadEnd } = frame
    const text = isJsonCodec(route.codec) ? undefined : stringOf(bytes, payloadStart + 1, payloadEnd - 1)
    if (text === undefined) return accepter.accept(route, bytes, payloadStart, payloadEnd)
    const payload = text === '' ? nowhere : Buffer.from(text, 'utf8')
    return accepter.accept(route, payload, 0, payload.length)
  }
}

/** The text of the JSON string whose inside is bytes[start, end); undefined when it is none. */
function stringOf(bytes: Buffer, start: number, end: number): string | undefined {
  const text = bytes.toString('utf8', start, end)
  if (!text.includes('\\')) return text
  try {
    return JSON.parse(`"${text}"`) as string
  } catch {
    return undefined
  }
}

/** The token of `{"type":"auth","token":"…"}`; undefined when it is not such a frame. */
function readAuthFrame(bytes: Uint8Array): string | undefined {
  if (bytes.length > limits.authFrameBytesMax) return undefined
  try {
    const { type, token } = JSON.parse(Buffer.from(bytes).toString('utf8')) as { type?: unknown; token?: unknown }
    return type === 'auth' && typeof token === 'string' ? token : undefined
  } catch {
    return undefined
  }
}
