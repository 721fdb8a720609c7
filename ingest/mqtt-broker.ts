// aedes, for everything of MQTT that is not telemetry on its way in: sessions, subscriptions, delivery, wills, retained messages, QoS 2 between
// devices and owners. The only importer of aedes. The front has already checked every packet that comes here and is the only one who sends
// any; the hooks check again what the front decided (a second fence), since aedes on its own handles packets before authentication.
import { Aedes, type AuthenticateError, type Client } from 'aedes'
import { type DeviceCredential, ownerOf as ownerKeyOf } from '../domain/authority.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Accepter } from './accept.ts'
import type { IngestEvents } from './events.ts'
import { ingestLimits } from './limits.ts'
import { type ConnectPacket, encodeConnect } from './mqtt-frames.ts'
import { LiveFilters } from './mqtt-live-filters.ts'
import { type BrokerSession, type SessionOwner, SessionStream } from './mqtt-session-stream.ts'
import { SessionStore } from './mqtt-sessions.ts'
import { isFilterAllowed, isForeign, mayPublish, maySubscribe, readMqttTopic } from './mqtt-topic.ts'
import type { RateLimits } from './rate-limits.ts'

export interface MqttBroker {
  openSession(owner: SessionOwner, connect: Pick<ConnectPacket, 'clientId' | 'clean' | 'will'>): BrokerSession
  /** A clean session begins without one being opened. */
  forgetSession(clientId: string): void
  /** Whose the session is that is kept under this client id (`ownerOf`); undefined: there is none. */
  sessionOwner(clientId: string): string | undefined
  /** Grows when the set of filters that could match telemetry changes. */
  readonly generation: number
  /** Whether a live subscriber matches. */
  isWanted(topic: string): boolean
  /** A copy of telemetry for live subscribers, outside the acknowledged path: QoS 0, dropped beyond the bounds. `payload` is kept. */
  sendCopy(topic: string, payload: Buffer): void
  /** Wills are not published any more: the devices did not go, we do. */
  beginDrain(): void
  close(): Promise<void>
}

export interface MqttBrokerOptions {
  readonly topicsOpen: boolean
  readonly accepter: Accepter
  /** False once a credential was revoked. */
  readonly stands?: (credential: DeviceCredential) => boolean
  /** Devices have tokens: none may take the room of the others. */
  readonly hasShares?: boolean
  readonly rates?: RateLimits | undefined
  readonly clock: Clock
  readonly events: IngestEvents
  readonly instruments: Instruments
}

const expireEveryMs = 60_000

export async function createMqttBroker(options: MqttBrokerOptions): Promise<MqttBroker> {
  const { events, clock, topicsOpen, accepter, stands = () => true } = options
  const live = new LiveFilters()
  const granted = new WeakMap<Client, Set<string>>()
  const byClientId = new Map<string, Client>()
  const authenticated = new WeakSet<Client>()
  let isDraining = false

  const sessions = new SessionStore({
    clock,
    hasShares: options.hasShares ?? false,
    onDropped: (cause, fields) => events.messageDropped(cause, fields),
    isGranted: (clientId, filter) => {
      const client = byClientId.get(clientId)
      return client !== undefined && (granted.get(client)?.has(filter) ?? false)
    },
    isConnected: (clientId) => byClientId.has(clientId),
    ownerOf(clientId) {
      const client = byClientId.get(clientId)
      const owner = client && ownerOf(client)
      return owner ? ownerKeyOf(owner.credential) : ''
    },
  })

  const broker = await Aedes.createBroker({
    persistence: sessions,
    // Unlimited, since its queue has no limit either: what is under way is bounded by the front's credit and by the bound on copies.
    concurrency: 0,
    drainTimeout: ingestLimits.outputStalledMsMax,
    maxInflightInbound: ingestLimits.unreleasedMax,
    maxTopicLevels: ingestLimits.topicLevelsMax,
    maxClientsIdLength: ingestLimits.clientIdBytesMax,
    queueLimit: ingestLimits.passedInFlightMax * 2,
    // The front asks the peer for its credentials before it opens a session.
    authenticate(client, _username, _password, done) {
      const owner = ownerOf(client)
      if (owner === undefined) {
        done(Object.assign(new Error('not from the front'), { returnCode: 5 }) as AuthenticateError, false)
        return
      }
      authenticated.add(client)
      granted.set(client, new Set())
      byClientId.set(client.id, client)
      done(null, true)
    },
    authorizePublish(client, packet, done) {
      const credential = client === null ? undefined : ownerOf(client)?.credential
      if (client === null || credential === undefined || !authenticated.has(client))
        return done(new Error('not authenticated'))
      // The will of somebody whose token was revoked is not heard either.
      if (!stands(credential)) return done(new Error('revoked'))
      const topic = readMqttTopic(packet.topic, topicsOpen)
      if (topic.kind === 'refused') return done(new Error(`refused: ${topic.cause}`))
      if (!mayPublish(credential, topic, packet.topic)) return done(new Error('refused: topic-foreign'))
      if (topic.kind === 'telemetry') {
        // Only a will comes here: telemetry that is published goes past the broker.
        if (isDraining) return done(new Error('draining'))
        packet.retain = false
        const payload = Buffer.from(packet.payload)
        const route = accepter.route(credential.tenant, topic.device, topic.codec, packet.topic)
        accepter.accept(route, payload, 0, payload.length)
        // It was taken, and counts: what its device owes keeps the next will of it out (mqtt-connection.ts).
        options.rates?.of(credential.tenant, topic.device).spend(accepter.lastAccepted + accepter.lastDeadLettered)
      }
      // So that what is kept of it counts as its publisher's.
      Object.assign(packet, { clientId: client.id })
      return done(isDraining ? new Error('draining') : null)
    },
    authorizeSubscribe(client, subscription, done) {
      const filters = granted.get(client)
      const credential = ownerOf(client)?.credential
      const filter = subscription.topic
      const isKnown = filters?.has(filter) ?? false
      if (
        filters === undefined ||
        credential === undefined ||
        !isFilterAllowed(filter, topicsOpen) ||
        !maySubscribe(credential, filter) ||
        (!isKnown && filters.size >= ingestLimits.filtersPerConnectionMax)
      ) {
        events.subscriptionRefused({ clientId: client.id, filter: filter.slice(0, 200) })
        // Of a session that was kept, whose owner may no longer have it: nothing more waits for that.
        void sessions.removeSubscriptions(client, [filter])
        return done(null, null)
      }
      if (!isKnown) {
        filters.add(filter)
        live.add(filter)
      }
      return done(null, subscription)
    },
    authorizeForward(client, packet) {
      if (packet.topic.startsWith('$')) return null
      const owner = ownerOf(client)
      // What waited in a session that was kept, from when its owner might speak for more.
      if (owner !== undefined && isForeign(owner.credential, packet.topic)) return null
      const untaken = (owner?.outputBytes ?? 0) + client.conn.writableLength
      if (packet.qos === 0 && untaken > ingestLimits.outputBytesBeforeDropMax) {
        events.messageDropped('slow-reader', { clientId: client.id, topic: packet.topic })
        return null
      }
      return packet
    },
    published(packet, client, done) {
      // QoS 2 is settled by its PUBREC, which the front sees.
      if (client && packet.qos < 2) ownerOf(client)?.onPassedDone()
      done(null)
    },
  })

  const letGo = (client: Client): void => {
    for (const filter of granted.get(client) ?? []) live.remove(filter)
    granted.delete(client)
    if (byClientId.get(client.id) === client) byClientId.delete(client.id)
  }
  broker.on('clientReady', (client) => ownerOf(client)?.onSessionReady())
  broker.on('clientError', (client, error) => ownerOf(client)?.onSessionClosed(error))
  broker.on('connectionError', (client, error) => ownerOf(client)?.onSessionClosed(error))
  broker.on('unsubscribe', (filters, client) => {
    const known = granted.get(client)
    for (const filter of filters) if (known?.delete(filter)) live.remove(filter)
  })

  const expiry = setInterval(() => sessions.expire(), expireEveryMs)
  expiry.unref()
  options.instruments.gauge(
    'weir_mqtt_sessions',
    'Sessions that outlive their connection',
    () => sessions.counts().sessions,
  )
  options.instruments.gauge(
    'weir_mqtt_sessions_bytes',
    'Bytes of messages that wait in sessions',
    () => sessions.counts().sessionsBytes,
  )
  options.instruments.gauge(
    'weir_mqtt_retained_bytes',
    'Bytes of retained messages',
    () => sessions.counts().retainedBytes,
  )

  options.instruments.gauge(
    'weir_mqtt_live_filters',
    'Filters of live subscribers that could match telemetry',
    () => live.size,
  )

  let copies = 0
  let copiesBytes = 0

  return {
    openSession(owner, connect) {
      const session = new SessionStream(owner)
      const client = broker.handle(session)
      session.once('close', () => letGo(client))
      session.push(encodeConnect(connect))
      return session
    },
    forgetSession: (clientId) => sessions.forget(clientId),
    sessionOwner: (clientId) => sessions.ownerOf(clientId),
    get generation() {
      return live.generation
    },
    isWanted: (topic) => live.matches(topic),
    sendCopy(topic, payload) {
      const bytes = payload.length + topic.length
      if (copies >= ingestLimits.copiesInFlightMax || copiesBytes + bytes > ingestLimits.copiesBytesInFlightMax) {
        events.messageDropped('copies-in-flight', { topic })
        return
      }
      copies++
      copiesBytes += bytes
      broker.publish({ cmd: 'publish', topic, payload, qos: 0, retain: false, dup: false }, () => {
        copies--
        copiesBytes -= bytes
      })
    },
    beginDrain() {
      isDraining = true
    },
    close: () => {
      clearInterval(expiry)
      return new Promise((resolve) => broker.close(() => resolve()))
    },
  }
}

function ownerOf(client: Client): SessionOwner | undefined {
  return client.conn instanceof SessionStream ? client.conn.owner : undefined
}
