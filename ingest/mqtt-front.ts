// The MQTT port. Stands between every socket and aedes, and takes telemetry out of the stream itself; what it guards against and what was measured
// is in docs/decisions/0002-mqtt-front.md. This file owns the sockets, the memory of all connections together, the clock that ages them, and
// the moment when a durable cycle frees acknowledgements.
import { createServer, type Server, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { createServer as createTlsServer, type TLSSocket, type Server as TlsServer } from 'node:tls'
import { type DeviceCredential, ownerOf } from '../domain/authority.ts'
import { listenError } from '../runtime/listen-error.ts'
import type { Health } from '../runtime/service.ts'
import type { Accepter } from './accept.ts'
import type { DeviceAuth } from './device-auth.ts'
import type { IngestEvents } from './events.ts'
import { ingestLimits as limits } from './limits.ts'
import { AckSlab } from './mqtt-acks.ts'
import type { MqttBroker } from './mqtt-broker.ts'
import { type CertificateFiles, MqttCertificate } from './mqtt-certificate.ts'
import { type Authenticate, type ConnectionHost, MqttConnection } from './mqtt-connection.ts'
import type { RateLimits } from './rate-limits.ts'

export interface MqttTlsOptions {
  readonly port: number
  readonly files: CertificateFiles
}

export interface MqttFrontOptions {
  readonly host: string
  readonly port: number
  readonly tls?: MqttTlsOptions | undefined
  readonly topicsOpen: boolean
  readonly connectionsMax: number
  /** Most bytes of unacknowledged publishes and unfinished packets over all connections, with the rows made of them. */
  readonly memoryBytesMax: number
  readonly accepter: Accepter
  readonly broker: MqttBroker
  readonly events: IngestEvents
  readonly auth: DeviceAuth
  readonly rates?: RateLimits | undefined
  /** Instead of `auth`, for tests. */
  readonly authenticate?: Authenticate
}

/** A peer that vanished without a word, with no MQTT keepalive, is found by TCP's. */
const peerProbeMs = 60_000
/** Connections are aged in steps of this. */
const tickMs = 250
/** Reading goes on when this part of the memory is in use. */
const resumeAt = 0.75

export class MqttFront implements ConnectionHost {
  readonly accepter: Accepter
  readonly broker: MqttBroker
  readonly events: IngestEvents
  readonly slab = new AckSlab()
  readonly topicsOpen: boolean
  readonly authenticate: Authenticate
  readonly auth: DeviceAuth
  readonly rates: RateLimits | undefined
  nowMs = 0
  isReadingStopped = false
  private readonly options: MqttFrontOptions
  private readonly server: Server
  private tlsServer: TlsServer | undefined
  private certificate: MqttCertificate | undefined
  private readonly connections = new Set<MqttConnection>()
  /** Those that have not been let in yet, in the order in which they came. */
  private readonly strangers = new Set<MqttConnection>()
  private readonly byClientId = new Map<string, MqttConnection>()
  /** Connections with acknowledgements to come, each once, at its `awaitedAt`. Two lists that take turns. */
  private awaiting: (MqttConnection | undefined)[] = []
  private awaitingNext: (MqttConnection | undefined)[] = []
  private heldBytes = 0
  private tick: NodeJS.Timeout | undefined
  private state: 'new' | 'listening' | 'draining' | 'stopped' = 'new'
  private failure: string | undefined

  constructor(options: MqttFrontOptions) {
    this.options = options
    this.accepter = options.accepter
    this.broker = options.broker
    this.events = options.events
    this.topicsOpen = options.topicsOpen
    this.auth = options.auth
    this.rates = options.rates
    this.authenticate = options.authenticate ?? ((connect, certificate) => this.auth.byConnect(connect, certificate))
    this.auth.onChange(() => {
      for (const connection of this.connections) connection.onAuthChanged()
    })
    this.server = createServer({ noDelay: true, keepAlive: true, keepAliveInitialDelay: peerProbeMs }, (socket) =>
      this.take(socket, peerOf(socket)),
    )
    this.accepter.onDurable((durableCycle) => this.onDurable(durableCycle))
  }

  get connectionCount(): number {
    return this.connections.size
  }

  get bytes(): number {
    return this.heldBytes
  }

  /** Throws a StartError when the port can't be had. */
  async listen(): Promise<{ host: string; port: number }> {
    const { port, tls } = this.options
    await this.open(this.server, port, { what: 'MQTT', option: 'WEIR_MQTT_PORT' })
    if (tls) {
      this.tlsServer = this.createTls(tls)
      await this.open(this.tlsServer, tls.port, { what: 'MQTT over TLS', option: 'WEIR_MQTT_TLS_PORT' })
    }
    this.state = 'listening'
    this.tick = setInterval(() => this.onTick(), tickMs)
    const address = this.address()
    this.events.listening(address.host, address.port)
    return address
  }

  address(): { host: string; port: number } {
    return addressOf(this.server)
  }

  tlsAddress(): { host: string; port: number } | undefined {
    return this.tlsServer && addressOf(this.tlsServer)
  }

  private async open(server: Server, port: number, names: { what: string; option: string }): Promise<void> {
    const { host } = this.options
    await new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, { ...names, host, port })))
      server.listen({ host, port, backlog: 1024 }, resolve)
    })
    server.removeAllListeners('error')
    server.on('error', (error) => {
      this.failure = `${names.what} can't take connections: ${error.message}`
    })
  }

  /** A certificate is asked for where an authority is known, and never has to be there: a token does as well. */
  private createTls({ files }: MqttTlsOptions): TlsServer {
    const certificate = new MqttCertificate(files, this.events)
    const server = createTlsServer({
      ...certificate.first,
      ...(files.clientCa !== undefined && { requestCert: true, rejectUnauthorized: false }),
      handshakeTimeout: limits.connectWithinMs,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: peerProbeMs,
    })
    server.maxConnections = this.options.connectionsMax
    server.on('secureConnection', (socket) => this.take(socket, peerOf(socket), deviceOfCertificate(socket)))
    server.on('tlsClientError', (error, socket) => {
      this.events.connectionClosed('tls', { peer: peerOf(socket), detail: error.message })
      socket.destroy()
    })
    certificate.watch((renewed) => server.setSecureContext(renewed))
    this.certificate = certificate
    return server
  }

  health(): Health {
    if (this.failure !== undefined) return { state: 'failed', detail: this.failure }
    if (this.state === 'new') return { state: 'starting', detail: 'MQTT is not listening yet' }
    if (this.state !== 'listening') return { state: 'degraded', detail: 'MQTT is draining' }
    if (this.isReadingStopped) {
      return { state: 'degraded', detail: 'unacknowledged publishes use all their memory: MQTT sockets are not read' }
    }
    if (this.connections.size >= this.options.connectionsMax) {
      return { state: 'degraded', detail: `all ${this.options.connectionsMax} MQTT connections are in use` }
    }
    return this.certificate?.health() ?? { state: 'ok' }
  }

  /** Takes nothing new; what was taken is made durable and acknowledged; then the connections are closed in order. */
  async drain(deadline: AbortSignal): Promise<void> {
    if (this.state !== 'listening') return
    this.state = 'draining'
    this.server.close()
    this.tlsServer?.close()
    this.broker.beginDrain()
    for (const connection of this.connections) connection.beginDrain()
    await this.accepter.drain(deadline)
    for (const connection of this.connections) connection.finish()
    while (this.connections.size > 0 && !deadline.aborted) await nextTick(deadline)
  }

  /** Lets go of everything at once. */
  async stop(): Promise<void> {
    this.state = 'stopped'
    clearInterval(this.tick)
    this.certificate?.stop()
    if (this.server.listening) this.server.close()
    if (this.tlsServer?.listening) this.tlsServer.close()
    for (const connection of this.connections) connection.end()
  }

  /** A new connection: a socket of this port, or one that came another way and carries MQTT all the same. */
  take(socket: Duplex, peer: string, certificate?: string): void {
    if (this.connections.size >= this.options.connectionsMax) this.letStrangerGo()
    if (this.connections.size >= this.options.connectionsMax || this.state !== 'listening') {
      // Without a word: a CONNACK would mean to wait for its CONNECT, and to keep the socket that there is no room for.
      if (this.state === 'listening') this.events.connectionClosed('connections-max', { peer })
      socket.on('error', () => {})
      socket.destroy()
      return
    }
    const connection = new MqttConnection(this, socket, peer, certificate)
    this.connections.add(connection)
    this.strangers.add(connection)
  }

  /** Whoever opens connections and says nothing must not keep those out that have something to say. */
  private letStrangerGo(): void {
    for (const stranger of this.strangers) {
      stranger.close('connections-max', 'it had not said who it is when another one came')
      return
    }
  }

  private onDurable(durableCycle: number): void {
    const { awaiting } = this
    this.awaiting = this.awaitingNext
    this.awaitingNext = awaiting
    for (const connection of awaiting) {
      if (connection === undefined) continue
      connection.awaitedAt = -1
      connection.flush(durableCycle)
    }
    awaiting.length = 0
    this.mayResume()
  }

  private onTick(): void {
    this.nowMs += tickMs
    for (const connection of this.connections) connection.onTick(this.nowMs)
    if (this.isReadingStopped) {
      this.shedUnfinished()
      this.mayResume()
    }
  }

  // --- what connections ask of their host ---

  awaitsDurable(connection: MqttConnection): void {
    connection.awaitedAt = this.awaiting.push(connection) - 1
  }

  charge(bytes: number): void {
    this.heldBytes += bytes
    if (!this.isReadingStopped && bytes > 0 && this.usedBytes() > this.options.memoryBytesMax) {
      this.isReadingStopped = true
      this.events.readingStopped(this.usedBytes())
      for (const connection of this.connections) connection.stopReading()
    }
  }

  mayClaim(clientId: string, credential: DeviceCredential): boolean {
    // Its own name is nobody else's, also where somebody took it before the device was registered.
    if (isOwnName(credential, clientId)) return true
    const holder = this.byClientId.get(clientId)
    const owner = ownerOf(credential)
    if (holder !== undefined && ownerOf(holder.credential) !== owner) return false
    return (this.broker.sessionOwner(clientId) ?? owner) === owner
  }

  claim(clientId: string, connection: MqttConnection): void {
    this.strangers.delete(connection)
    const before = this.byClientId.get(clientId)
    this.byClientId.set(clientId, connection)
    if (before !== undefined && before !== connection) before.close('taken-over')
    const { credential } = connection
    const owner = ownerOf(credential)
    if (isOwnName(credential, clientId) && (this.broker.sessionOwner(clientId) ?? owner) !== owner)
      this.broker.forgetSession(clientId)
  }

  closed(connection: MqttConnection): void {
    this.connections.delete(connection)
    this.strangers.delete(connection)
    const { awaitedAt } = connection
    for (const list of [this.awaiting, this.awaitingNext])
      if (awaitedAt >= 0 && list[awaitedAt] === connection) list[awaitedAt] = undefined
    if (this.byClientId.get(connection.clientId) === connection) this.byClientId.delete(connection.clientId)
  }

  /** Held by connections, and by rows that are not durable yet. */
  usedBytes(): number {
    return this.heldBytes + this.accepter.pendingBytes
  }

  private mayResume(): void {
    if (!this.isReadingStopped || this.usedBytes() > resumeAt * this.options.memoryBytesMax) return
    this.isReadingStopped = false
    this.events.readingResumed()
    for (const connection of this.connections) {
      if (this.isReadingStopped) break
      connection.continueReading()
    }
  }

  /** Packets that were begun and never end must not keep the others from being read: those that hold most of the memory are let go. */
  private shedUnfinished(): void {
    let unfinished = 0
    for (const connection of this.connections) unfinished += connection.unfinishedBytes
    if (unfinished < this.options.memoryBytesMax / 2) return
    for (const connection of this.connections) {
      const bytes = connection.unfinishedBytes
      if (bytes < 4096) continue
      connection.close('memory', 'an unfinished packet while the memory for packets was used up')
      unfinished -= bytes
      if (unfinished < this.options.memoryBytesMax / 4) return
    }
  }
}

function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress}:${remotePort}`
}

function addressOf(server: Server): { host: string; port: number } {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('MQTT is not listening')
  return { host: address.address, port: address.port }
}

/** The CN of a certificate that our authority signed and that is of today. */
function deviceOfCertificate(socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined
  const name: unknown = socket.getPeerCertificate().subject?.CN
  return typeof name === 'string' ? name : undefined
}

function nextTick(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer)
      signal.removeEventListener('abort', done)
      resolve()
    }
    const timer = setTimeout(done, 10)
    signal.addEventListener('abort', done)
  })
}

/** A device's name as a client id, alone or before a slash. Without authentication there is no such thing. */
function isOwnName({ device }: DeviceCredential, clientId: string): boolean {
  return device !== '' && (clientId === device || clientId.startsWith(`${device}/`))
}
