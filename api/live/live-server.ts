// The live port: viewers over WebSocket, beside the server-sent events of the HTTP port. An upgrade is checked as a request is (origin, authority,
// parameters, room), and refused as one: with a problem. Anything else on this port is told where to go.
import { type Asking, challengeOf, type ViewerAccess, type ViewerSession } from '../../runtime/access/viewer-access.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LimitError, RequestError } from '../../runtime/errors.ts'
import type { Instruments } from '../../runtime/instruments.ts'
import { listenError } from '../../runtime/listen-error.ts'
import {
  type Answer,
  createWebServer,
  type HttpExchange,
  type RequestHead,
  type SocketHandler,
  type WebServer,
} from '../../runtime/web-server.ts'
import { tenantOf } from '../context.ts'
import { problemMediaType, problemOf } from '../problems.ts'
import type { Problem } from '../wire.ts'
import type { AnomalyFeed } from './anomaly-feed.ts'
import type { LiveHub } from './hub.ts'
import { closeCodes, LiveSocket, type LiveSocketHost } from './live-socket.ts'
import type { Outbox, ViewerTransport } from './outbox.ts'
import { type Asked, parseSubscription, tooManyViewers } from './subscription.ts'
import type { Viewer } from './viewer.ts'

export interface LiveServerOptions {
  readonly host: string
  readonly port: number
  readonly hub: LiveHub
  readonly anomalies: AnomalyFeed
  readonly partitions: number
  readonly clock: Clock
  readonly instruments: Instruments
  readonly access: ViewerAccess
  readonly socketsMax?: number
}

const path = '/v1/live'
const columnsProtocol = 'weir.columns'
const jsonProtocol = 'weir.json'
/** The protocol's own limit (64 KiB, 1009) lies below: beyond this one the connection ends without a close frame. */
const messageBytesReadMax = 256 * 1024
/** Never reached by what the outbox lets out: what the library drops above it, it drops in silence. */
const outputBytesMax = 64 * 1024 * 1024
/** A viewer that reads nothing is told why within seconds, and has so long to hear it. */
const silenceSecondsMax = 120
const socketsMaxDefault = 2_000
/** That are no WebSocket yet, which takes a moment. */
const connectionsMax = 4_096

export class LiveServer implements LiveSocketHost {
  readonly nowMs = (): number => performance.now()
  private readonly options: LiveServerOptions
  private readonly socketsMax: number
  private readonly server: WebServer
  private readonly sockets = new Set<LiveSocket>()
  private readonly closes: ReturnType<typeof countCloses>
  private isDraining = false
  private port = 0

  constructor(options: LiveServerOptions) {
    this.options = options
    this.socketsMax = options.socketsMax ?? socketsMaxDefault
    const { instruments } = options
    instruments.gauge('weir_live_sockets', 'WebSockets of live viewers', () => this.sockets.size)
    this.closes = countCloses(instruments)
    const refused = instruments.counter('weir_live_connections_refused_total', 'Connections beyond those there may be')
    this.server = createWebServer({
      connectionsMax,
      onConnectionRefused: () => refused.inc(),
      onRequest: (exchange) => this.onRequest(exchange),
      sockets: {
        [path]: {
          messageBytesMax: messageBytesReadMax,
          outputBytesMax,
          silenceSecondsMax,
          upgrade: (head) => this.upgrade(head),
        },
      },
    })
  }

  /** Throws a StartError when the port can't be had. */
  async listen(): Promise<void> {
    const { host, port } = this.options
    try {
      this.port = await this.server.listen(host, port)
    } catch (error) {
      throw listenError(error as NodeJS.ErrnoException, { what: 'Live', host, port, option: 'WEIR_LIVE_PORT' })
    }
  }

  address(): { readonly host: string; readonly port: number } {
    return { host: this.options.host, port: this.port }
  }

  /** Nobody new; those that are there are told bye and closed. */
  drain(): void {
    if (this.isDraining) return
    this.isDraining = true
    this.server.stopListening()
    for (const socket of [...this.sockets]) socket.finish('stopping')
  }

  /** Ends every connection at once. */
  close(): void {
    this.isDraining = true
    this.server.close()
  }

  // --- what sockets ask of their host ---

  connect(transport: ViewerTransport, session: ViewerSession | undefined): Outbox {
    return this.options.hub.connect(transport, session)
  }

  parse(parameters: Readonly<Record<string, string | string[]>>): Asked {
    const { partitions, clock } = this.options
    return parseSubscription(parameters, { partitions, now: clock.nowMicros() })
  }

  open({ device, metric, mode, anomalies, start }: Asked, outbox: Outbox, id: string): Viewer {
    const { hub, anomalies: feed } = this.options
    const tenant = tenantOf()
    const viewer = hub.open({ tenant, device, metric, mode }, outbox, start, id)
    if (anomalies) feed.watch({ tenant, device, metric }, viewer, start)
    return viewer
  }

  closed(socket: LiveSocket): void {
    this.sockets.delete(socket)
  }

  onClose(code: number): void {
    this.closes.inc({ code: String(code) })
  }

  // --- upgrades and requests ---

  private upgrade(head: RequestHead): { readonly handler: SocketHandler; readonly protocol: string } | Answer {
    try {
      if (this.isDraining) throw new RequestError(503, 'stopping', 'Weir is stopping', 'Connect again in a moment.')
      const { access } = this.options
      const asking = askingOf(head)
      const refusal = access.authorizeViewer(asking, 'same-host')
      if (refusal) throw refusal
      const query = new URLSearchParams(head.query)
      const protocol = chosenProtocol(head.header('sec-websocket-protocol'))
      const asked = this.parseQuery(query)
      if (this.sockets.size >= this.socketsMax) throw tooManyViewers(`There are ${this.socketsMax} sockets already.`)
      if (asked) this.options.hub.requireRoom()
      const socket = new LiveSocket(this, asked, protocol === columnsProtocol, access.sessionOf(asking))
      this.sockets.add(socket)
      return { handler: socket, protocol }
    } catch (error) {
      if (error instanceof RequestError) return problemAnswer(problemOf(error), challengeOf(error))
      if (error instanceof LimitError) return problemAnswer(problemOf(tooManyViewers(error.message)))
      throw error
    }
  }

  /** undefined: the socket's frames will say what it is for. */
  private parseQuery(query: URLSearchParams): Asked | undefined {
    const parameters: Record<string, string | string[]> = {}
    for (const name of new Set(query.keys())) {
      const values = query.getAll(name)
      parameters[name] = values.length === 1 ? values[0]! : values
    }
    if (parameters.mode !== 'none') return this.parse(parameters)
    const stray = Object.keys(parameters).find((name) => name !== 'mode')
    if (stray === undefined) return undefined
    const message = 'says nothing beside mode=none: the subscriptions of this socket come in frames'
    throw new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `${stray.slice(0, 60)} ${message}`, [
      { path: stray.slice(0, 60), message },
    ])
  }

  private onRequest(exchange: HttpExchange): void {
    exchange.answer(problemAnswer(problemOf(notASocket(exchange))))
  }
}

function countCloses(instruments: Instruments) {
  return instruments.counter('weir_live_closes_total', 'WebSockets of viewers closed by us, by close code', {
    code: Object.values(closeCodes).map(String),
  })
}

function askingOf(head: RequestHead): Asking {
  const said = (name: string): string | undefined => head.header(name) || undefined
  return { authorization: said('authorization'), cookie: said('cookie'), host: said('host'), origin: said('origin') }
}

/** Of those that are offered the first that we speak; a client that offers none gets JSON text. */
function chosenProtocol(offered: string): string {
  if (offered === '') return ''
  const names = offered.split(',').map((each) => each.trim())
  const known = names.find((name) => name === columnsProtocol || name === jsonProtocol)
  if (known !== undefined) return known
  const detail = `Offer ${jsonProtocol} or ${columnsProtocol} in Sec-WebSocket-Protocol, or nothing for JSON text.`
  throw new RequestError(400, 'subprotocol-expected', 'Not with this subprotocol', detail)
}

function notASocket({ method, path: asked }: RequestHead): RequestError {
  if (asked !== path) {
    const detail = `This port has ${path} alone, as a WebSocket. Pages and the REST API are on the HTTP port (8080 unless configured).`
    return new RequestError(404, 'unknown-route', 'No such route', detail)
  }
  if (method !== 'GET') {
    const detail = `${path} is opened as a WebSocket, which begins with GET.`
    return new RequestError(405, 'method-not-allowed', 'Not with this method', detail)
  }
  const detail = `Open ${path} here as a WebSocket (ws://…). For server-sent events ask GET ${path} of the HTTP port (8080 unless configured).`
  return new RequestError(426, 'upgrade-required', 'This is a WebSocket', detail)
}

function problemAnswer(problem: Problem, challenge?: string): Answer {
  const { status } = problem
  return {
    status,
    headers: {
      'content-type': problemMediaType,
      ...(challenge !== undefined && { 'www-authenticate': challenge }),
      ...(status === 503 && { 'retry-after': '1' }),
      ...(status === 405 && { allow: 'GET' }),
      ...(status === 426 && { upgrade: 'websocket' }),
    },
    body: JSON.stringify(problem),
    close: true,
  }
}
