// HTTP and WebSocket by uWebSockets.js, which is known here alone. Its sharp edges are handled once: an answer that was aborted or given must not be
// touched again, bytes are taken away when a callback returns, a listen shares its port unless told not to, what a limit on output drops is dropped in
// silence, and an inbound socket cannot be paused (who uses this must bound what is in flight).

import uWebSockets, { type HttpRequest, type HttpResponse, type us_listen_socket, type WebSocket } from 'uWebSockets.js'
import { STATUS_CODES } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'

/** The request line and headers; may be asked only until the handler that was given it returns. */
export interface RequestHead {
  /** As sent, in upper case. */
  readonly method: string
  /** Still percent-encoded. */
  readonly path: string
  readonly query: string
  /** '' when it is not there; the name in lower case. */
  header(name: string): string
  readonly peer: string
  /**
   * Whether the length of the body is said once and in a way that everybody reads alike (RFC 9112 §6.1, §6.3). The library takes the first of several
   * Content-Length, and any Transfer-Encoding for chunked: a proxy in front that does otherwise would see another request where the body ends.
   */
  isLengthPlain(): boolean
}

export interface Answer {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  /** The connection ends with it. */
  readonly close?: boolean
}

/** One request and its answer. */
export interface HttpExchange extends RequestHead {
  /** Answered, or given up by the peer. */
  readonly isOver: boolean
  /** The bytes are the socket's: what is kept must be copied. Called until `isLast`, never after `onAborted`. */
  receive(onBytes: (bytes: Buffer, isLast: boolean) => void): void
  /** The peer is gone before it had an answer. */
  onAborted(listener: () => void): void
  /** Once; nothing happens when the exchange is over. */
  answer(answer: Answer): void
}

/** One open WebSocket. Nothing happens when it is closed already. */
export interface ServerSocket {
  readonly isOpen: boolean
  /** Sent and not taken by the peer. */
  readonly bufferedBytes: number
  /** False: what the peer has not taken is at its limit, and the socket was closed for it. */
  send(message: string | Uint8Array, isBinary: boolean): boolean
  /** What is sent within goes out in one. */
  cork(send: () => void): void
  /** A close frame, after what was sent. */
  end(code: number, reason: string): void
  /** At once, without a close frame. */
  destroy(): void
}

/** What happens on a socket. `ended` comes last and once, whoever closed it. */
export interface SocketHandler {
  opened(socket: ServerSocket): void
  /** The bytes are the socket's: what is kept must be copied. */
  message(bytes: Uint8Array, isBinary: boolean): void
  /** The peer took what was buffered. */
  drained?(): void
  ended(code: number): void
}

export interface SocketRoute {
  /** A larger message ends the connection without a close frame (code 1006 at the peer): a protocol's own limit lies below it. */
  readonly messageBytesMax: number
  /** Sent and not taken: beyond it the socket is closed. */
  readonly outputBytesMax: number
  /** The peer is pinged, and let go after so long without an answer. */
  readonly silenceSecondsMax: number
  /** The handler of the new socket, with the subprotocol that was chosen (one that was offered, or ''); or a refusal. */
  upgrade(head: RequestHead): { readonly handler: SocketHandler; readonly protocol: string } | Answer
}

export interface WebServerOptions {
  onRequest(exchange: HttpExchange): void
  /**
   * Connections that are no WebSocket: those with a request, and those without one, which the library ends within 12 s of their last request, or of
   * their beginning, whatever trickles in meanwhile. One more is closed without a word.
   */
  readonly connectionsMax: number
  onConnectionRefused?(peer: string): void
  readonly sockets: Readonly<Record<string, SocketRoute>>
}

export interface WebServer {
  /** The port that was taken. Rejects with an error that has Node's `code` (EADDRINUSE, …). */
  listen(host: string, port: number): Promise<number>
  /** Those that count against `connectionsMax`. */
  readonly connectionCount: number
  /** No further connection; those that are open go on. */
  stopListening(): void
  /** Ends every connection at once. A thread that ends before this is called takes the process with it. */
  close(): void
}

export function createWebServer(options: WebServerOptions): WebServer {
  const { onRequest, sockets } = options
  const app = uWebSockets.App()
  const plain = { count: 0 }
  const onConnection = (response: HttpResponse, change: number): void => {
    plain.count += change
    if (change < 0 || plain.count <= options.connectionsMax) return
    options.onConnectionRefused?.(peerOf(response))
    response.close()
  }
  app.filter(onConnection as Parameters<App['filter']>[0])
  let listening: us_listen_socket | undefined
  let isClosed = false
  for (const [path, route] of Object.entries(sockets)) addRoute(app, path, route, plain)
  app.any('/*', (response, request) => onRequest(new Exchange(response, request)))
  return {
    get connectionCount() {
      return plain.count
    },
    async listen(host, port) {
      for (let attempt = 1; ; attempt++) {
        // uWebSockets.js says only that it could not: Node says why.
        const free = await probe(host, port)
        const socket = await new Promise<us_listen_socket | false>((resolve) =>
          listenExclusively(app, host, free, resolve),
        )
        if (socket !== false) {
          listening = socket
          return uWebSockets.us_socket_local_port(socket as never)
        }
        // A free port may have been taken in between; another one is as good.
        if (port !== 0 || attempt === freePortAttempts) throw taken()
      }
    },
    stopListening() {
      if (listening !== undefined) uWebSockets.us_listen_socket_close(listening)
      listening = undefined
    },
    close() {
      if (isClosed) return
      isClosed = true
      listening = undefined
      app.close()
    },
  }
}

type App = ReturnType<typeof uWebSockets.App>
/** Host, port and options together: the library takes them, its types do not know. */
type Listen = (host: string, port: number, options: number, done: (socket: us_listen_socket | false) => void) => void

/** LIBUS_LISTEN_EXCLUSIVE_PORT */
const exclusivePort = 1

/** By default two processes could share a port, and each would get some of the connections. */
function listenExclusively(
  app: App,
  host: string,
  port: number,
  done: (socket: us_listen_socket | false) => void,
): void {
  ;(app.listen as unknown as Listen).call(app, host, port, exclusivePort, done)
}

const freePortAttempts = 5

/**
 * Resolves with the port, or a free one for 0. The library is never given 0: it opens such a port without SO_REUSEADDR, and whoever is killed and started
 * again on the port that it had could not open it for a minute.
 */
function probe(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen({ host, port, exclusive: true }, () => {
      const { port: found } = server.address() as AddressInfo
      server.close(() => resolve(found))
    })
  })
}

function taken(): Error {
  return Object.assign(new Error('the port could not be opened'), { code: 'EADDRINUSE' })
}

function addRoute(app: App, path: string, route: SocketRoute, plain: { count: number }): void {
  app.ws<Held>(path, {
    maxPayloadLength: route.messageBytesMax,
    maxBackpressure: route.outputBytesMax,
    idleTimeout: route.silenceSecondsMax,
    sendPingsAutomatically: true,
    compression: uWebSockets.DISABLED,
    upgrade(response, request, context) {
      const head = new Exchange(response, request)
      const chosen = route.upgrade(head)
      if (!('handler' in chosen)) {
        head.answer(chosen)
        return
      }
      // From here on the filter hears no more of it.
      plain.count--
      response.upgrade(
        { connection: new Connection(chosen.handler) } satisfies Held,
        request.getHeader('sec-websocket-key'),
        chosen.protocol,
        request.getHeader('sec-websocket-extensions'),
        context,
      )
    },
    open: (socket) => connectionOf(socket).open(socket),
    message: (socket, bytes, isBinary) => connectionOf(socket).handler.message(new Uint8Array(bytes), isBinary),
    drain: (socket) => connectionOf(socket).handler.drained?.(),
    close: (socket, code) => connectionOf(socket).closed(code),
  })
}

/** The library copies what it is given onto the socket. */
interface Held {
  readonly connection: Connection
}

function connectionOf(socket: WebSocket<Held>): Connection {
  return (socket as unknown as Held).connection
}

class Connection implements ServerSocket {
  readonly handler: SocketHandler
  private socket: WebSocket<Held> | undefined

  constructor(handler: SocketHandler) {
    this.handler = handler
  }

  open(socket: WebSocket<Held>): void {
    this.socket = socket
    this.handler.opened(this)
  }

  closed(code: number): void {
    this.socket = undefined
    this.handler.ended(code)
  }

  get isOpen(): boolean {
    return this.socket !== undefined
  }

  get bufferedBytes(): number {
    return this.socket === undefined ? 0 : this.socket.getBufferedAmount()
  }

  send(message: string | Uint8Array, isBinary: boolean): boolean {
    if (this.socket === undefined) return false
    if (this.socket.send(message, isBinary) !== 2) return true
    // Dropped: what comes after it would not be what the peer is owed.
    this.destroy()
    return false
  }

  cork(send: () => void): void {
    this.socket?.cork(send)
  }

  end(code: number, reason: string): void {
    const { socket } = this
    // The close handler runs within end(): nothing may use the socket from here on.
    this.socket = undefined
    socket?.end(code, reason)
  }

  destroy(): void {
    const { socket } = this
    this.socket = undefined
    socket?.close()
  }
}

class Exchange implements HttpExchange {
  readonly method: string
  readonly path: string
  readonly query: string
  isOver = false
  private readonly response: HttpResponse
  private readonly request: HttpRequest
  private abortedListener: (() => void) | undefined

  constructor(response: HttpResponse, request: HttpRequest) {
    this.response = response
    this.request = request
    this.method = request.getCaseSensitiveMethod().toUpperCase()
    this.path = request.getUrl()
    // Undefined when there is no question mark, whatever its types say.
    this.query = request.getQuery() ?? ''
    response.onAborted(() => {
      this.isOver = true
      this.abortedListener?.()
    })
  }

  header(name: string): string {
    return this.request.getHeader(name)
  }

  isLengthPlain(): boolean {
    const { request } = this
    const transferEncoding = request.getHeader('transfer-encoding')
    if (transferEncoding === '' && request.getHeader('content-length') === '') return true
    if (transferEncoding !== '' && transferEncoding.toLowerCase() !== 'chunked') return false
    let lengths = 0
    request.forEach((name) => {
      if (name === 'content-length' || name === 'transfer-encoding') lengths++
    })
    return lengths === 1
  }

  get peer(): string {
    return this.isOver ? '' : peerOf(this.response)
  }

  receive(onBytes: (bytes: Buffer, isLast: boolean) => void): void {
    this.response.onData((chunk, isLast) => {
      if (!this.isOver) onBytes(Buffer.from(chunk), isLast)
    })
  }

  onAborted(listener: () => void): void {
    this.abortedListener = listener
  }

  answer({ status, headers = {}, body = '', close = false }: Answer): void {
    if (this.isOver) return
    this.isOver = true
    const { response } = this
    response.cork(() => {
      response.writeStatus(`${status} ${STATUS_CODES[status] ?? ''}`)
      for (const name of Object.keys(headers)) response.writeHeader(name, headers[name]!)
      // A body after such a head would be read as the next answer.
      if (this.method !== 'HEAD' || close) response.end(this.method === 'HEAD' ? '' : body, close)
      else {
        // Given the length, or nothing in its place, the library waits for that many bytes and closes at the next request.
        response.writeHeader('content-length', String(Buffer.byteLength(body)))
        response.endWithoutBody()
      }
    })
  }
}

function peerOf(response: HttpResponse): string {
  return Buffer.from(response.getRemoteAddressAsText()).toString('latin1')
}
