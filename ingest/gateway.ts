// The gateway's port: readings over HTTP and WebSocket, and MQTT over WebSocket on its way to the MQTT front. One `accept` for all of them, and nobody
// is answered before the cycle that holds their readings is durable. What was decided and measured: docs/decisions/0011-gateway.md.
//
//   POST /v1/telemetry/{device} ──▶ gateway-http ──────────┐
//   WebSocket /v1/ingest ─────────▶ gateway-ingest-socket ─┴▶ accepter ──(durable)──▶ answers, acknowledgements
//   WebSocket /mqtt ──────────────▶ gateway-mqtt-socket ───▶ MQTT front

import type { DeviceCredential } from '../domain/authority.ts'
import type { EventLog } from '../domain/event-log.ts'
import { isDeviceName } from '../domain/reading.ts'
import { foreignHost, foreignOrigin, type OriginRules } from '../runtime/access/request-origin.ts'
import { RequestError } from '../runtime/errors.ts'
import { listenError } from '../runtime/listen-error.ts'
import type { Health } from '../runtime/service.ts'
import {
  type Answer,
  createWebServer,
  type RequestHead,
  type SocketRoute,
  type WebServer,
} from '../runtime/web-server.ts'
import type { Accepter } from './accept.ts'
import { type DeviceAuth, foreignDevice } from './device-auth.ts'
import type { IngestEvents } from './events.ts'
import { GatheredMessages } from './gateway-gathered.ts'
import { answerHealth, type IngestParts, logHealth } from './gateway-health.ts'
import { TelemetryRequests } from './gateway-http.ts'
import { IngestSocket, type IngestSocketHost } from './gateway-ingest-socket.ts'
import { MqttSocket, type MqttSocketHost } from './gateway-mqtt-socket.ts'
import { invalidDeviceName, invalidParameter, problemAnswer, unavailable } from './gateway-problems.ts'
import { ingestLimits as limits } from './limits.ts'
import type { MqttFront } from './mqtt-front.ts'
import type { RateLimits } from './rate-limits.ts'

export interface GatewayOptions {
  readonly host: string
  readonly port: number
  /** Most bytes of what is not durable yet, over all doors. */
  readonly memoryBytesMax: number
  readonly log: EventLog
  readonly accepter: Accepter
  /** Takes MQTT over WebSocket, and shares its memory. */
  readonly front: MqttFront
  readonly events: IngestEvents
  readonly auth: DeviceAuth
  readonly origins: OriginRules
  readonly rates?: RateLimits | undefined
}

const tickMs = 250

export class Gateway implements IngestSocketHost, MqttSocketHost {
  readonly accepter: Accepter
  readonly events: IngestEvents
  readonly auth: DeviceAuth
  readonly origins: OriginRules
  readonly rates: RateLimits | undefined
  readonly queuedBytesMax: number
  nowMs = 0
  queuedBytes = 0
  isDraining = false
  private readonly options: GatewayOptions
  private readonly server: WebServer
  private readonly requests: TelemetryRequests
  private readonly sockets = new Set<IngestSocket>()
  /** Those of them that have not said who they are, the oldest first. */
  private readonly strangers = new Set<IngestSocket>()
  /** Those whose acknowledgements wait for a device's rate. */
  private readonly paced = new Set<IngestSocket>()
  /** Sockets with acknowledgements to come. Two sets that take turns. */
  private awaiting = new Set<IngestSocket>()
  private awaitingNext = new Set<IngestSocket>()
  private readonly gathered = new GatheredMessages()
  private tick: NodeJS.Timeout | undefined
  private port = 0

  constructor(options: GatewayOptions) {
    this.options = options
    this.accepter = options.accepter
    this.events = options.events
    this.auth = options.auth
    this.origins = options.origins
    this.rates = options.rates
    this.auth.onChange(() => {
      for (const socket of this.sockets) socket.onAuthChanged()
    })
    this.queuedBytesMax = options.memoryBytesMax * limits.mqttQueuesShareMax
    this.requests = new TelemetryRequests(this, options.memoryBytesMax)
    this.server = createWebServer({
      connectionsMax: limits.gatewayConnectionsMax,
      onConnectionRefused: (peer) => this.events.requestRefused('connections-max', { peer, path: '' }),
      onRequest: (exchange) => {
        const health = exchange.isLengthPlain() ? answerHealth(exchange, () => this.parts()) : undefined
        if (health === undefined) this.requests.onRequest(exchange)
        else exchange.answer(health)
      },
      sockets: { '/v1/ingest': this.ingestRoute(), '/mqtt': this.mqttRoute() },
    })
    this.accepter.beforeCommit(() => this.gathered.takeAll())
    this.accepter.onDurable((durableCycle) => this.onDurable(durableCycle))
  }

  /** Sockets of /v1/ingest; those of /mqtt are the front's connections. */
  get socketCount(): number {
    return this.sockets.size
  }

  /** Bytes of unfinished bodies, and of MQTT that the front does not read. */
  get bytes(): number {
    return this.requests.bytes + this.queuedBytes
  }

  /** Throws a StartError when the port can't be had. */
  async listen(): Promise<void> {
    const { host, port } = this.options
    try {
      this.port = await this.server.listen(host, port)
    } catch (error) {
      throw listenError(error as NodeJS.ErrnoException, { what: 'Gateway', host, port, option: 'WEIR_GATEWAY_PORT' })
    }
    this.tick = setInterval(() => this.onTick(), tickMs)
    this.events.gatewayListening(host, this.port)
  }

  address(): { host: string; port: number } {
    return { host: this.options.host, port: this.port }
  }

  health(): Health {
    if (this.port === 0) return { state: 'starting', detail: 'the gateway is not listening yet' }
    if (this.isDraining) return { state: 'degraded', detail: 'the gateway is draining' }
    if (this.sockets.size >= limits.ingestSocketsMax) {
      return { state: 'degraded', detail: `all ${limits.ingestSocketsMax} sockets of the gateway are in use` }
    }
    return { state: 'ok' }
  }

  private parts(): IngestParts {
    const { log, front } = this.options
    return { log: logHealth(log.state()), mqtt: front.health(), gateway: this.health() }
  }

  /** Takes nothing new; what was taken is answered as it becomes durable. */
  beginDrain(): void {
    this.gathered.takeAll()
    this.isDraining = true
    this.server.stopListening()
    this.requests.beginDrain()
  }

  /** Everything is durable, or the deadline has come: sockets are closed in order. */
  finish(): void {
    this.onDurable(this.accepter.durableCycle)
    for (const socket of this.sockets) socket.finish()
  }

  /** Lets go of everything at once. */
  stop(): void {
    this.isDraining = true
    clearInterval(this.tick)
    this.server.close()
  }

  // --- what the doors ask of their host ---

  isMemoryUsed(): boolean {
    return this.options.front.usedBytes() > this.options.memoryBytesMax
  }

  refusal(): RequestError | undefined {
    if (this.isDraining) return unavailable.stopping()
    const state = this.options.log.state()
    if (state.state !== 'ok') return unavailable.logRefuses(state.reason)
    const health = this.accepter.health()
    if (health.state !== 'ok') return unavailable.logRefuses(health.detail ?? 'The log refuses readings')
    return this.isMemoryUsed() ? unavailable.memoryUsed() : undefined
  }

  gather(socket: IngestSocket, bytes: Uint8Array, isBinary: boolean): void {
    if (this.gathered.isEmpty) this.accepter.expect()
    this.gathered.add(socket, bytes, isBinary)
  }

  takeGathered(): void {
    this.gathered.takeAll()
  }

  awaitsDurable(socket: IngestSocket): void {
    socket.isAwaited = true
    this.awaiting.add(socket)
  }

  admitted(socket: IngestSocket): void {
    this.strangers.delete(socket)
  }

  awaitsRate(socket: IngestSocket): void {
    this.paced.add(socket)
  }

  closed(socket: IngestSocket): void {
    this.sockets.delete(socket)
    this.strangers.delete(socket)
    this.paced.delete(socket)
    this.awaiting.delete(socket)
    this.awaitingNext.delete(socket)
  }

  opened(socket: MqttSocket): void {
    this.options.front.take(socket, socket.peer)
  }

  private onDurable(durableCycle: number): void {
    const { awaiting } = this
    this.awaiting = this.awaitingNext
    this.awaitingNext = awaiting
    for (const socket of awaiting) {
      socket.isAwaited = false
      socket.flush(durableCycle)
    }
    awaiting.clear()
    this.requests.onDurable(durableCycle)
  }

  private onTick(): void {
    this.nowMs += tickMs
    this.requests.onTick(this.nowMs)
    for (const stranger of this.strangers) if (!stranger.isLate()) break
    for (const socket of this.paced) if (socket.isPaidFor(this.accepter.durableCycle)) this.paced.delete(socket)
  }

  // --- upgrades ---

  private ingestRoute(): SocketRoute {
    return {
      messageBytesMax: limits.ingestMessageBytesReadMax,
      outputBytesMax: limits.ingestOutputBytesMax,
      silenceSecondsMax: limits.socketSilenceSecondsMax,
      upgrade: (head) => {
        const device = deviceOf(head.query)
        const foreign = this.problemOfUpgrade(head)
        if (foreign !== undefined) return this.refuse(head, foreign)
        const credential = this.credentialOf(head)
        if (credential instanceof RequestError) return this.refuse(head, credential)
        if (device instanceof RequestError) return this.refuse(head, device)
        const problem = device && credential ? foreignDevice(credential, device) : undefined
        if (problem !== undefined) return this.refuse(head, problem)
        if (credential === undefined && this.strangers.size >= limits.ingestStrangersMax) this.letStrangerGo()
        if (this.sockets.size >= limits.ingestSocketsMax) this.letStrangerGo()
        if (this.sockets.size >= limits.ingestSocketsMax) return this.refuse(head, tooManySockets())
        const socket = new IngestSocket(this, { device, credential, peer: head.peer })
        this.sockets.add(socket)
        if (credential === undefined) this.strangers.add(socket)
        return { handler: socket, protocol: '' }
      },
    }
  }

  private mqttRoute(): SocketRoute {
    return {
      messageBytesMax: limits.mqttFrameBytesMax,
      outputBytesMax: limits.mqttOutputBytesMax,
      silenceSecondsMax: limits.socketSilenceSecondsMax,
      upgrade: (head) => {
        const offered = head.header('sec-websocket-protocol').split(',')
        const problem =
          this.problemOfUpgrade(head) ?? (offered.some((each) => each.trim() === 'mqtt') ? undefined : wrongProtocol())
        if (problem !== undefined) return this.refuse(head, problem)
        return { handler: new MqttSocket(this, head.peer), protocol: 'mqtt' }
      },
    }
  }

  private problemOfUpgrade(head: RequestHead): RequestError | undefined {
    if (this.isDraining) return unavailable.stopping()
    const host = head.header('host')
    return foreignHost(host, this.origins) ?? foreignOrigin(head.header('origin'), host, this.origins)
  }

  /** Undefined: the first frame will say, since a browser can't set a header. */
  private credentialOf(head: RequestHead): DeviceCredential | RequestError | undefined {
    const authorization = head.header('authorization')
    return authorization === '' && this.auth.isRequired ? undefined : this.auth.byHeader(authorization)
  }

  private letStrangerGo(): void {
    for (const stranger of this.strangers) {
      stranger.makeRoom()
      return
    }
  }

  private refuse(head: RequestHead, problem: RequestError): Answer {
    this.events.requestRefused(problem.slug, { peer: head.peer, path: head.path.slice(0, 200) })
    return problemAnswer(problem, { close: true })
  }
}

/** The device that a socket speaks for; undefined: its frames say. */
function deviceOf(query: string): string | undefined | RequestError {
  const parameters = new URLSearchParams(query)
  const devices = parameters.getAll('device')
  const stray = [...parameters.keys()].find((name) => name !== 'device')
  if (stray !== undefined) return invalidParameter(stray, 'is not a parameter of /v1/ingest, which has device alone')
  if (devices.length > 1) return invalidParameter('device', 'may be given once: a socket for many devices has none')
  const [device] = devices
  return device === undefined || isDeviceName(device) ? device : invalidDeviceName()
}

function wrongProtocol(): RequestError {
  const detail = 'MQTT over WebSocket is opened with the subprotocol mqtt: offer it in Sec-WebSocket-Protocol.'
  return new RequestError(400, 'subprotocol-expected', 'Not with this subprotocol', detail)
}

function tooManySockets(): RequestError {
  const detail = `All ${limits.ingestSocketsMax} sockets are in use: close one, or let one socket speak for many devices.`
  return new RequestError(503, 'sockets-max', 'There is no room for another socket', detail)
}
