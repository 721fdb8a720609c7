// The role api as a service: last values, live hub and HTTP server, started and ended in order.
//
//   log ──▶ feed ──▶ last values ──▶ routes ──▶ HTTP
//    │          └──▶ live hub ─────▶ SSE on HTTP, WebSocket on the live port
//    └─▶ anomaly feed ─────────────────┘
import type { AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { EventLog } from '../domain/event-log.ts'
import type { DeviceRegistry } from '../runtime/access/device-registry.ts'
import { createViewerAccess, type ViewerAccess } from '../runtime/access/viewer-access.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Config } from '../runtime/config.ts'
import type { Instruments } from '../runtime/instruments.ts'
import { listenError } from '../runtime/listen-error.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import type { StatusBoard } from '../runtime/status.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import { createApp } from './create-app.ts'
import { AnomalyFeed, type AskAnomalies } from './live/anomaly-feed.ts'
import { LiveHub } from './live/hub.ts'
import { LastValues } from './live/last-values.ts'
import { LiveServer } from './live/live-server.ts'
import { LogFeed } from './live/log-feed.ts'
import type { AskHistory, AskReceived } from './live/table-pages.ts'
import { PipelineRates } from './pipeline-rates.ts'
import { askReceivedAnomalies } from './queries/anomalies.ts'
import { catchUpSettings } from './queries/question.ts'
import { askReadings } from './queries/readings.ts'
import { askReceivedReadings } from './queries/received-readings.ts'
import { askStoredSeries } from './queries/stored-series.ts'

export interface ApiServiceOptions {
  readonly config: Pick<Config, 'host' | 'httpPort'> & Partial<Pick<Config, 'livePort' | 'retentionRaw'>>
  /** Opened for reading. */
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly status: StatusBoard
  readonly logger: Logger
  readonly instruments: Instruments
  readonly clock: Clock
  /** Most live viewers at once. */
  readonly viewersMax?: number
  /** Registered into the same server. */
  readonly pages?: (app: FastifyInstance) => Promise<void>
  /** Who may look; everybody when left out. */
  readonly access?: ViewerAccess
  /** Without it devices can't be registered here. */
  readonly registry?: DeviceRegistry
  /** What is shown at the gateway, where it asks for a token. */
  readonly gatewayToken?: string | undefined
  /** Where dead letters are put back. */
  readonly gatewayUrl?: () => string | undefined
}

export interface ApiService extends Service {
  /** Connections of viewers that were let go because they stayed behind. */
  slowViewers(): number
  httpAddress(): { readonly host: string; readonly port: number }
  /** undefined: without a live port. */
  liveAddress(): { readonly host: string; readonly port: number } | undefined
}

const rateSampleMs = 1_000

export function createApiService(options: ApiServiceOptions): ApiService {
  const { config, log, clickhouse, status, logger, instruments, clock, pages, viewersMax } = options
  const lastValues = new LastValues()
  const withLogOffset = log.hasManyAppenders
  const history: AskHistory = (question, signal) =>
    askReadings(
      clickhouse,
      { ...question, to: Number.MAX_SAFE_INTEGER - 1, order: 'asc', withLogOffset },
      signal,
      catchUpSettings,
    )
  const received: AskReceived = (question, signal) =>
    askReceivedReadings(clickhouse, { ...question, withLogOffset }, signal)
  const retentionMs = config.retentionRaw
  const hubOptions = { log, lastValues, clock, logger, history, received, retentionMs }
  const hub = new LiveHub({ ...hubOptions, ...(viewersMax && { viewersMax }) })
  const stored = (signal: AbortSignal) => askStoredSeries(clickhouse, clock.nowMicros(), signal)
  const feed = new LogFeed({ log, lastValues, hub, logger, stored })
  const foundBefore: AskAnomalies = (question, signal) => askReceivedAnomalies(clickhouse, question, signal)
  const anomalies = new AnomalyFeed({ log, clock, logger, stored: foundBefore })
  const rates = new PipelineRates()
  const openConfig = { host: config.host, auth: 'open' } as const
  const { access = createViewerAccess({ config: openConfig, clock }), registry } = options
  let app: FastifyInstance | undefined
  let port = 0
  let sampler: NodeJS.Timeout | undefined

  instruments.gauge('weir_api_series', 'Series with a latest value', () => lastValues.seriesCount)
  instruments.gauge('weir_api_untracked_readings', 'Readings of series beyond the limit', () => lastValues.untracked)
  const { host, livePort } = config
  const socketOptions = { hub, anomalies, instruments, access, partitions: log.partitions, clock }
  const live = livePort === undefined ? undefined : new LiveServer({ host, port: livePort, ...socketOptions })

  instruments.gauge('weir_live_viewers', 'Live subscriptions', () => hub.viewerCount)
  instruments.gauge('weir_live_slow', 'Viewers let go because they stayed behind', () => hub.slowCount)
  instruments.gauge(
    'weir_live_frames_held_back',
    'Frames of latest that were held back because time was short',
    () => hub.heldBackFrameCount,
  )
  instruments.gauge('weir_live_queued_bytes', 'Bytes that viewers have not taken', () => hub.queuedBytes)

  async function sample(): Promise<void> {
    rates.add(await status.all(), feed.seenReadings, clock.nowMicros() / 1000)
  }

  async function close(deadline: AbortSignal): Promise<void> {
    clearInterval(sampler)
    hub.close()
    live?.drain()
    await Promise.all([feed.stop(), anomalies.stop()])
    if (app) await closeServer(app, deadline)
  }

  return {
    name: 'api',

    async start() {
      const context = {
        log,
        clickhouse,
        lastValues,
        feed,
        hub,
        anomalies,
        status,
        clock,
        logger,
        gatewayUrl: options.gatewayUrl ?? (() => undefined),
        gatewayToken: options.gatewayToken,
        registry,
      }
      app = await createApp({ ...context, rates, pages, access })
      feed.start()
      anomalies.start()
      sampler = setInterval(() => void sample().catch(() => {}), rateSampleMs).unref()
      try {
        await app.listen({ host: config.host, port: config.httpPort })
      } catch (error) {
        const { host, httpPort: port } = config
        throw listenError(error as NodeJS.ErrnoException, { what: 'HTTP', host, port, option: 'WEIR_HTTP_PORT' })
      }
      port = (app.server.address() as AddressInfo).port
      await live?.listen()
    },

    drain: close,

    async stop() {
      await close(AbortSignal.abort())
      live?.close()
    },

    health(): Health {
      return feed.health()
    },

    httpAddress: () => ({ host: config.host, port }),
    liveAddress: () => live?.address(),
    slowViewers: () => hub.slowCount,
  }
}

const closeLookMs = 50

/**
 * Waits for answers under way until the deadline. Connections are looked at again and again, not once: one that becomes idle while the server closes,
 * or is accepted in the last moment, would hold it for as long as an idle connection may stay.
 */
async function closeServer(app: FastifyInstance, deadline: AbortSignal): Promise<void> {
  const { server } = app
  const look = (): void => {
    if (deadline.aborted) server.closeAllConnections()
    else server.closeIdleConnections()
  }
  look()
  const looking = setInterval(look, closeLookMs)
  try {
    await app.close()
  } finally {
    clearInterval(looking)
  }
}
