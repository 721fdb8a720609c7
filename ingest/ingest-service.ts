import type { EventLog } from '../domain/event-log.ts'
import type { DeviceRegistry } from '../runtime/access/device-registry.ts'
import { originRulesOf } from '../runtime/access/viewer-access.ts'
import type { Clock } from '../runtime/clock.ts'
import type { AccessOptions, Config } from '../runtime/config.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import type { IngestTotals } from '../runtime/status.ts'
import { type Accepter, createAccepter } from './accept.ts'
import { createDeviceAuth } from './device-auth.ts'
import { createIngestEvents } from './events.ts'
import { Gateway } from './gateway.ts'
import { createMqttBroker, type MqttBroker } from './mqtt-broker.ts'
import type { Authenticate } from './mqtt-connection.ts'
import { MqttFront, type MqttTlsOptions } from './mqtt-front.ts'
import { RateLimits } from './rate-limits.ts'

export interface IngestServiceOptions {
  readonly config: Pick<
    Config,
    'host' | 'mqttPort' | 'gatewayPort' | 'mqttTopicsOpen' | 'mqttConnectionsMax' | 'ingestMemory'
  > &
    Partial<Pick<Config, 'rateLimitReadingsPerS' | 'mqttTlsPort' | 'tlsCert' | 'tlsKey' | 'tlsClientCa'>> &
    AccessOptions
  readonly log: EventLog
  readonly clock: Clock
  readonly logger: Logger
  readonly instruments: Instruments
  /** Who has tokens; nobody when left out. */
  readonly registry?: DeviceRegistry
  /** Who may connect over MQTT, instead of what the configuration says, for tests. */
  readonly authenticate?: Authenticate
}

export interface IngestService extends Service {
  totals(): IngestTotals
  mqttAddress(): { host: string; port: number }
  /** Undefined where MQTT over TLS is not opened. */
  mqttTlsAddress(): { host: string; port: number } | undefined
  gatewayHealth(): Health
  gatewayAddress(): { host: string; port: number }
}

export function createIngestService(options: IngestServiceOptions): IngestService {
  const { config, log, clock, logger, instruments } = options
  const events = createIngestEvents({ clock, logger, instruments })
  const { rateLimitReadingsPerS } = config
  const auth = createDeviceAuth(config, options.registry)
  const origins = originRulesOf(config)
  const rates = rateLimitReadingsPerS === undefined ? undefined : new RateLimits(rateLimitReadingsPerS)
  let accepter: Accepter | undefined
  let broker: MqttBroker | undefined
  let front: MqttFront | undefined
  let gateway: Gateway | undefined

  instruments.gauge('weir_mqtt_connections', 'MQTT connections', () => front?.connectionCount ?? 0)
  instruments.gauge(
    'weir_devices_registered',
    'Devices that have a place in the registry',
    () => options.registry?.deviceCount ?? 0,
  )
  instruments.gauge('weir_gateway_sockets', 'WebSockets of /v1/ingest', () => gateway?.socketCount ?? 0)
  instruments.gauge(
    'weir_gateway_held_bytes',
    'Bytes of unfinished bodies, and of MQTT over WebSocket that waits',
    () => gateway?.bytes ?? 0,
  )
  instruments.gauge(
    'weir_ingest_held_bytes',
    'Bytes of unacknowledged publishes and unfinished packets',
    () => front?.bytes ?? 0,
  )

  return {
    name: 'ingest',

    async start() {
      accepter = createAccepter({ log, clock, logger, instruments })
      broker = await createMqttBroker({
        topicsOpen: config.mqttTopicsOpen,
        accepter,
        stands: auth.stands,
        hasShares: auth.isRequired,
        rates,
        clock,
        events,
        instruments,
      })
      front = new MqttFront({
        host: config.host,
        port: config.mqttPort,
        tls: tlsOf(config),
        topicsOpen: config.mqttTopicsOpen,
        connectionsMax: config.mqttConnectionsMax,
        memoryBytesMax: config.ingestMemory,
        accepter,
        broker,
        events,
        auth,
        rates,
        ...(options.authenticate && { authenticate: options.authenticate }),
      })
      gateway = new Gateway({
        host: config.host,
        port: config.gatewayPort,
        memoryBytesMax: config.ingestMemory,
        log,
        accepter,
        front,
        events,
        auth,
        origins,
        rates,
      })
      await front.listen()
      await gateway.listen()
    },

    async drain(deadline) {
      gateway?.beginDrain()
      await front?.drain(deadline)
      gateway?.finish()
    },

    async stop() {
      await front?.stop()
      gateway?.stop()
      await broker?.close()
      await accepter?.close()
    },

    health(): Health {
      if (accepter === undefined || front === undefined) return { state: 'starting', detail: 'ingest has not started' }
      const accepting = accepter.health()
      if (accepting.state !== 'ok') return accepting
      const taking = front.health()
      return taking.state === 'ok' && auth.isRequired ? (options.registry?.health() ?? taking) : taking
    },

    totals(): IngestTotals {
      const totals = accepter?.totals()
      const oldest = totals?.oldestPendingAt ?? 0
      return {
        receivedReadings: totals?.received ?? 0,
        durableReadings: totals?.durable ?? 0,
        deadLettered: totals?.deadLettered ?? 0,
        refused: events.refusedCount(),
        connections: (front?.connectionCount ?? 0) + (gateway?.socketCount ?? 0),
        durableLagMs: oldest > 0 ? Math.max(0, (clock.nowMicros() - oldest) / 1000) : 0,
      }
    },

    mqttAddress() {
      if (front === undefined) throw new Error('ingest has not started')
      return front.address()
    },

    mqttTlsAddress: () => front?.tlsAddress(),

    gatewayHealth(): Health {
      return gateway?.health() ?? { state: 'starting', detail: 'ingest has not started' }
    },

    gatewayAddress() {
      if (gateway === undefined) throw new Error('ingest has not started')
      return gateway.address()
    },
  }
}

function tlsOf({
  mqttTlsPort: port,
  tlsCert: cert,
  tlsKey: key,
  tlsClientCa: clientCa,
}: IngestServiceOptions['config']): MqttTlsOptions | undefined {
  if (port === undefined || cert === undefined || key === undefined) return undefined
  return { port, files: { cert, key, clientCa } }
}
