// The role ingest: takes readings in and acknowledges them once they are durable. Puts its parts together and answers for their health.
import type { EventLog } from '../domain/event-log.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Config } from '../runtime/config.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import type { IngestTotals } from '../runtime/status.ts'
import { type Accepter, createAccepter } from './accept.ts'
import { createIngestEvents } from './events.ts'
import { Gateway } from './gateway.ts'
import { createMqttBroker, type MqttBroker } from './mqtt-broker.ts'
import type { Authenticate } from './mqtt-connection.ts'
import { MqttFront } from './mqtt-front.ts'

export interface IngestServiceOptions {
  readonly config: Pick<
    Config,
    'host' | 'mqttPort' | 'gatewayPort' | 'mqttTopicsOpen' | 'mqttConnectionsMax' | 'ingestMemory'
  >
  readonly log: EventLog
  readonly clock: Clock
  readonly logger: Logger
  readonly instruments: Instruments
  /** Who may connect; everybody when left out. */
  readonly authenticate?: Authenticate
}

export interface IngestService extends Service {
  totals(): IngestTotals
  mqttAddress(): { host: string; port: number }
  gatewayHealth(): Health
  gatewayAddress(): { host: string; port: number }
}

export function createIngestService(options: IngestServiceOptions): IngestService {
  const { config, log, clock, logger, instruments } = options
  const events = createIngestEvents({ clock, logger, instruments })
  let accepter: Accepter | undefined
  let broker: MqttBroker | undefined
  let front: MqttFront | undefined
  let gateway: Gateway | undefined

  instruments.gauge('weir_mqtt_connections', 'MQTT connections', () => front?.connectionCount ?? 0)
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
      broker = await createMqttBroker({ topicsOpen: config.mqttTopicsOpen, accepter, clock, events, instruments })
      front = new MqttFront({
        host: config.host,
        port: config.mqttPort,
        topicsOpen: config.mqttTopicsOpen,
        connectionsMax: config.mqttConnectionsMax,
        memoryBytesMax: config.ingestMemory,
        accepter,
        broker,
        events,
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
      return accepting.state === 'ok' ? front.health() : accepting
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

    gatewayHealth(): Health {
      return gateway?.health() ?? { state: 'starting', detail: 'ingest has not started' }
    },

    gatewayAddress() {
      if (gateway === undefined) throw new Error('ingest has not started')
      return gateway.address()
    },
  }
}
