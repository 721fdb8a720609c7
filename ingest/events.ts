// What happens at the intake, by name: each event is one log line and one counter, so that nobody logs or counts by hand elsewhere. None is
// per reading. An attacker can make many of them, so each name logs a few lines in ten seconds and then says how many it held back.
import type { Clock } from '../runtime/clock.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import { refusalHints, type TopicRefusal } from './mqtt-topic.ts'

/** Why a connection was ended by us. Bounded: it is a label. */
export const closeCauses = [
  'malformed-packet',
  'packet-too-large',
  'connect-too-large',
  'connect-expected',
  'connect-twice',
  'connect-late',
  'packet-late',
  'session-late',
  'keepalive',
  'protocol-version',
  'client-id',
  'not-authorised',
  'will-refused',
  'publish-refused',
  'unreleased',
  'memory',
  'slow-reader',
  'taken-over',
  'left-behind',
  'connections-max',
  'revoked',
  'tls',
  'broker',
] as const
export type CloseCause = (typeof closeCauses)[number]

/** Why a socket of the gateway was closed by us. Bounded: it is a label. */
export const socketCloseCauses = [
  'window',
  'order',
  'size',
  'malformed',
  'busy',
  'not-binary',
  'slow-reader',
  'not-authorised',
  'revoked',
] as const
export type SocketCloseCause = (typeof socketCloseCauses)[number]

export const dropCauses = ['copies-in-flight', 'slow-reader', 'session-full', 'sessions-max', 'retained-full'] as const
export type DropCause = (typeof dropCauses)[number]

/** Where a device that is too fast waits. */
const pacedDoors = ['mqtt', 'websocket'] as const

const windowMicros = 10_000_000
const linesPerWindow = 10

export interface IngestEvents {
  listening(host: string, port: number): void
  /** By us, for a reason that the peer or an operator should know. */
  connectionClosed(cause: CloseCause, fields: { clientId?: string; peer?: string; detail?: string }): void
  /** The publish was not taken and not acknowledged. */
  publishRefused(cause: TopicRefusal, fields: { clientId: string; topic: string; hint: string }): void
  subscriptionRefused(fields: { clientId: string; filter: string }): void
  /** Messages between devices and owners, or copies of telemetry, that a limit kept from a subscriber; never a reading on its way to the log. */
  messageDropped(cause: DropCause, fields: { clientId?: string; topic?: string }): void
  /** Publishes refused since the start. */
  refusedCount(): number
  strayPacket(fields: { clientId: string; type: number }): void
  /** Reading stopped, or goes on, for all connections: the memory for unacknowledged publishes is used up. */
  readingStopped(bytes: number): void
  readingResumed(): void
  /** A device sends faster than it may: nothing more is taken of it for a while. HTTP is told with 429, which `requestRefused` counts. */
  rateLimited(door: (typeof pacedDoors)[number], fields: { device: string; waitMs: number }): void
  /** Connections that come from now on see the certificate that these files hold now. */
  certificateChanged(files: { cert: string }): void
  certificateUnusable(fields: { cert: string; key: string; error: string }): void
  gatewayListening(host: string, port: number): void
  /** By us, for something that its peer did. */
  socketClosed(cause: SocketCloseCause, fields: { path: string; peer: string; device?: string }): void
  /** A request or an upgrade was refused: nothing of it was kept. `problem` is the slug that the sender was given. */
  requestRefused(problem: string, fields: { peer: string; path: string }): void
}

export function createIngestEvents(options: { clock: Clock; logger: Logger; instruments: Instruments }): IngestEvents {
  const { clock, logger, instruments } = options
  const closed = instruments.counter('weir_mqtt_connections_closed_total', 'Connections that we ended', {
    cause: closeCauses,
  })
  const refused = instruments.counter('weir_mqtt_publishes_refused_total', 'Publishes neither kept nor acknowledged', {
    cause: Object.keys(refusalHints),
  })
  const filters = instruments.counter('weir_mqtt_subscriptions_refused_total', 'Filters answered with 0x80')
  const dropped = instruments.counter('weir_mqtt_messages_dropped_total', 'Messages kept from a subscriber', {
    cause: dropCauses,
  })
  const stray = instruments.counter('weir_mqtt_stray_packets_total', 'Acknowledgements of nothing, ignored')
  const stopped = instruments.counter('weir_mqtt_reading_stopped_total', 'Times that reading stopped for all')

  const limited = instruments.counter('weir_rate_limited_total', 'Times that a device had to wait for its rate', {
    door: pacedDoors,
  })
  const sockets = instruments.counter('weir_gateway_sockets_closed_total', 'WebSockets that we closed', {
    cause: socketCloseCauses,
  })
  // Slugs of problems are no closed set: a cause is here once it has happened.
  const requests = instruments.counter('weir_gateway_requests_refused_total', 'Requests of which nothing was kept', [
    'cause',
  ])

  let refusedCount = 0
  const lines = new Map<string, { since: number; count: number }>()
  const say = (event: string, level: 'info' | 'warn', fields: object, message: string): void => {
    const now = clock.nowMicros()
    let line = lines.get(event)
    if (line === undefined || now - line.since > windowMicros || now < line.since) {
      const heldBack = line ? line.count - linesPerWindow : 0
      line = { since: now, count: 0 }
      lines.set(event, line)
      if (heldBack > 0) logger.warn({ event, heldBack }, 'log lines of this event were held back')
    }
    if (++line.count <= linesPerWindow) logger[level]({ event, ...fields }, message)
  }

  return {
    listening(host, port) {
      logger.info({ event: 'mqtt-listening', host, port }, 'MQTT is listening')
    },
    connectionClosed(cause, fields) {
      closed.inc({ cause })
      say(`connection-closed ${cause}`, 'warn', { cause, ...fields }, 'a connection was closed')
    },
    refusedCount: () => refusedCount,
    publishRefused(cause, fields) {
      refusedCount++
      refused.inc({ cause })
      say(`publish-refused ${cause}`, 'warn', { cause, ...fields }, 'a publish was refused')
    },
    subscriptionRefused(fields) {
      filters.inc()
      say('subscription-refused', 'warn', fields, 'a subscription was refused')
    },
    messageDropped(cause, fields) {
      dropped.inc({ cause })
      say(`message-dropped ${cause}`, 'warn', { cause, ...fields }, 'a message was kept from a subscriber')
    },
    strayPacket(fields) {
      stray.inc()
      say('stray-packet', 'info', fields, 'an acknowledgement of nothing was ignored')
    },
    readingStopped(bytes) {
      stopped.inc()
      say('reading-stopped', 'warn', { bytes }, 'unacknowledged publishes use all their memory: no socket is read')
    },
    readingResumed() {
      say('reading-resumed', 'info', {}, 'sockets are read again')
    },
    rateLimited(door, fields) {
      limited.inc({ door })
      say(`rate-limited ${door}`, 'warn', { door, ...fields }, 'a device sends faster than it may: it waits')
    },
    certificateChanged({ cert }) {
      logger.info({ event: 'certificate-changed', cert }, 'MQTT over TLS shows another certificate from now on')
    },
    certificateUnusable(fields) {
      const message = 'the certificate of MQTT over TLS changed and can’t be used: the one before is shown on'
      say('certificate-unusable', 'warn', fields, message)
    },
    gatewayListening(host, port) {
      logger.info({ event: 'gateway-listening', host, port }, 'the gateway is listening')
    },
    socketClosed(cause, fields) {
      sockets.inc({ cause })
      say(`socket-closed ${cause}`, 'warn', { cause, ...fields }, 'a WebSocket was closed')
    },
    requestRefused(problem, fields) {
      refusedCount++
      requests.inc({ cause: problem })
      say(`request-refused ${problem}`, 'warn', { cause: problem, ...fields }, 'a request was refused')
    },
  }
}
