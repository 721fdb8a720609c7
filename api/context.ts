// What routes work with.
import type { ServerResponse } from 'node:http'
import type { FastifyBaseLogger, FastifyInstance, RawServerDefault } from 'fastify'
import type { ZodTypeProvider } from 'fastify-type-provider-zod'
import type { EventLog } from '../domain/event-log.ts'
import { defaultTenant, type Tenant } from '../domain/reading.ts'
import type { DeviceRegistry } from '../runtime/access/device-registry.ts'
import type { Clock } from '../runtime/clock.ts'
import { RequestError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import type { StatusBoard } from '../runtime/status.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import type { AnomalyFeed } from './live/anomaly-feed.ts'
import type { LiveHub } from './live/hub.ts'
import type { LastValues } from './live/last-values.ts'
import type { LogFeed } from './live/log-feed.ts'

export interface ApiContext {
  readonly log: EventLog
  readonly clickhouse: ClickHouse
  readonly lastValues: LastValues
  readonly feed: LogFeed
  readonly hub: LiveHub
  readonly anomalies: AnomalyFeed
  readonly status: StatusBoard
  readonly clock: Clock
  readonly logger: Logger
  /** Where payloads are put back: the gateway's address, without a slash at the end, when it is known. */
  readonly gatewayUrl: () => string | undefined
  /** Devices and their labels, where they can be registered. */
  readonly registry?: DeviceRegistry | undefined
  /** Shown there, where it asks for a token. */
  readonly gatewayToken?: string | undefined
}

export type ApiApp = FastifyInstance<
  RawServerDefault,
  import('node:http').IncomingMessage,
  ServerResponse,
  FastifyBaseLogger,
  ZodTypeProvider
>

/** Without authentication there is one tenant. */
export function tenantOf(): Tenant {
  return defaultTenant
}

/** A question has a limit on time in the store (`questionSettings`); a store that hangs does not keep to it. */
const answerMsMax = 15_000

/** Aborted when the client goes away before it has its answer, or when the store never gives one: what was asked for it is ended too. */
export function goneSignal(reply: { readonly raw: ServerResponse }, withinMs = answerMsMax): AbortSignal {
  const controller = new AbortController()
  // Not AbortSignal.any: what it makes is held weakly, and Node 20 collects it while the question runs.
  const tooLate = setTimeout(
    () => controller.abort(new DOMException('The store did not answer in time', 'TimeoutError')),
    withinMs,
  ).unref()
  reply.raw.once('close', () => {
    clearTimeout(tooLate)
    controller.abort()
  })
  return controller.signal
}

/** The latest values are answered right or not at all. */
export function requireLatest(feed: LogFeed): void {
  if (feed.isReady) return
  const detail = feed.health().detail ?? 'The latest values are being read.'
  throw new RequestError(503, 'starting', 'The latest values are not known yet', `${detail} Try again in a moment.`)
}
