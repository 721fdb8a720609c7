// The composition roots of the child processes: what each of them is made of. Loaded when asked for, because none needs what another holds.
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import type { EventLog } from './domain/event-log.ts'
import { DeviceRegistry } from './runtime/access/device-registry.ts'
import { createViewerAccess, insideToken, type ViewerAccess } from './runtime/access/viewer-access.ts'
import { appendByParent, partsOf, runChild } from './runtime/child-process.ts'
import { systemClock } from './runtime/clock.ts'
import { type Config, devicesFile, requiresAuth } from './runtime/config.ts'
import { acquireLock, type DataLock, lockOwner } from './runtime/data-lock.ts'
import { RetryableError } from './runtime/errors.ts'
import { createInstruments } from './runtime/instruments.ts'
import { createLogger, type Logger } from './runtime/logger.ts'
import { watchPeers } from './runtime/peers.ts'
import type { Health, Service } from './runtime/service.ts'
import type { ProcessStatus, StoredTotals } from './runtime/status.ts'
import type { ClickHouse } from './storage/open-clickhouse.ts'
import type { AppendAnomalies } from './stream/detector-run.ts'
import type { OpenLogOptions } from './stream/log/open-log.ts'

export interface ChildWorld {
  readonly config: Config
  /** The demo: where its devices publish, and what they ask. */
  readonly mqttUrl: string | undefined
  readonly httpUrl: string | undefined
  readonly stop: AbortSignal
}

type OpenLogWorld = Pick<OpenLogOptions, 'config' | 'logger' | 'clock'>

/** By the word that the first process starts them with. Each resolves with the exit code. */
export const childProcesses: Readonly<Record<string, (world: ChildWorld) => Promise<number>>> = {
  serve: runServe,
  clickhouse: runClickHouse,
  demo: runDemo,
}

/** Part of the stop's time that is left for the store, which stops after the serving process. */
const serveShareOfDrain = 0.75
/** After Kafka refused us: somebody has to change something. */
const openAgainMs = 5_000

async function runServe({ config, stop }: ChildWorld): Promise<number> {
  const logger = createLogger(config.logLevel, 'serve')
  const instruments = createInstruments('serve')
  const shared = { config, logger, clock: systemClock, instruments }
  const { openLog } = await import('./stream/log/open-log.ts')
  const { openClickHouse } = await import('./storage/open-clickhouse.ts')
  const { findClickHouse, isEmbedded, needsStore, storeName } = await import('./storage/find-clickhouse.ts')
  const endpoint = findClickHouse(config)
  const log = await openLog({ ...shared, mode: 'read' })
  const clickhouse = openClickHouse(endpoint, { logger })

  let others: readonly ProcessStatus[] = []
  let addresses: Readonly<Record<string, string>> = {}
  const services: Service[] = []
  let totals: () => { stored?: StoredTotals } = () => ({})
  let http: () => Record<string, string> = () => ({})
  const peers = watchPeers(config.roles.includes('api') ? (config.peers ?? []) : [])
  const status = {
    async all(): Promise<readonly ProcessStatus[]> {
      const instrumentsNow = await instruments.snapshot()
      const own = {
        process: 'serve',
        at: Date.now(),
        parts: partsOf(services),
        instruments: instrumentsNow,
        ...totals(),
      }
      return [own, ...others, ...peers.statuses()]
    },
  }

  const registry = new DeviceRegistry({ file: devicesFile(config), logger })
  const isDeviceToken = (token: string): boolean => registry.holderOf(token) !== undefined
  const access = createViewerAccess({ config, clock: systemClock, isDeviceToken })
  const gatewayToken = config.adminToken && insideToken(config.adminToken)

  if (!isEmbedded(config) && needsStore(config)) {
    const { createServerWatch } = await import('./storage/server-watch.ts')
    services.push(createServerWatch({ clickhouse, endpoint: await endpoint(), logger }))
  }
  // The api first: it answers, if only that the store is away, while the writer waits for the store.
  if (config.roles.includes('api')) {
    const { createApiService } = await import('./api/api-service.ts')
    const { registerPages } = await import('./dashboards/pages.tsx')
    const pages = (app: FastifyInstance): Promise<void> =>
      registerPages(app, {
        ask: (path, body) => askInside(app, path, access, body),
        mqttUrl: () => addresses.mqtt ?? configured('mqtt', config.mqttPort),
        gatewayUrl: () => addresses.gateway ?? configured('http', config.gatewayPort),
        liveUrl: () => addresses.live,
        needsToken: access.isRequired,
      })
    // Started apart from ingest, nobody says where it listens: then it is where the configuration says.
    const configured = (protocol: string, port: number): string | undefined =>
      port === 0 ? undefined : `${protocol}://${config.host}:${port}`
    const gatewayUrl = (): string | undefined =>
      config.gatewayUrl ?? addresses.gateway ?? configured('http', config.gatewayPort)
    registry.watch()
    const asked = { access, registry, gatewayToken }
    const api = createApiService({ ...shared, ...asked, log, clickhouse, status, pages, gatewayUrl })
    services.push(api)
    http = () => {
      const { host, port } = api.httpAddress()
      const live = api.liveAddress()
      return { http: `http://${host}:${port}`, ...(live && { live: `ws://${live.host}:${live.port}` }) }
    }
  }
  if (config.roles.includes('writer')) {
    const { createWriterService } = await import('./stream/writer-service.ts')
    const writer = createWriterService({
      ...shared,
      log,
      clickhouse,
      storeName: storeName(config),
      retentionRawMs: config.retentionRaw,
    })
    totals = () => ({ stored: writer.totals() })
    // Two writers of one table would commit over each other.
    const taken = (pid: number): string =>
      `Process ${pid} already writes the table of ${config.data}: leave out the role writer, or end that one first`
    // On Kafka the group shares the partitions among any number of them.
    services.push(config.log === 'kafka' ? writer : owning(writer, join(config.data, 'writer.lock'), taken))
  }
  if (config.roles.includes('detector')) {
    const { createDetectorService } = await import('./stream/detector-service.ts')
    const { append, service } = await anomaliesTo({ ...shared, clickhouse })
    if (service) services.push(service)
    const detector = createDetectorService({ ...shared, directory: join(config.data, 'detector'), append })
    const taken = (pid: number): string =>
      `Process ${pid} already looks for anomalies with what it keeps in ${config.data}: leave out the role detector, end that one first, or (on Kafka) give this one a --data of its own`
    services.push(owning(detector, join(config.data, 'detector.lock'), taken))
  }
  const code = await runChild({
    process: 'serve',
    services,
    instruments,
    logger,
    drainMs: config.drainMs * serveShareOfDrain,
    addresses: () => http(),
    totals: () => totals(),
    onWorld: (world) => {
      others = world.statuses
      addresses = world.addresses
    },
    signal: stop,
  })
  registry.close()
  peers.close()
  await clickhouse.close()
  await log.close()
  return code
}

interface AnomaliesTo {
  readonly append: AppendAnomalies
  /** What makes them durable, where it lives here. */
  readonly service?: Service
}

/** On Kafka whoever finds something appends it. The embedded log has one appender: the first process, or nobody where ingest runs apart. */
async function anomaliesTo(
  world: OpenLogWorld & { readonly clickhouse: ClickHouse; readonly config: Config },
): Promise<AnomaliesTo> {
  if (world.config.log === 'kafka') return appendToKafka(world)
  if (world.config.roles.includes('ingest')) return { append: appendByFirst }
  return { append: await insertAnomalies(world.clickhouse) }
}

/** What is refused is tried again: topics that were mended, a password that was put right, need no restart. */
function appendToKafka(world: OpenLogWorld): AnomaliesTo {
  const stopping = new AbortController()
  const { signal } = stopping
  const brokers = `Kafka at ${(world.config.kafkaBrokers ?? []).join(', ')}`
  let log: EventLog | undefined
  let refusal: Error | undefined
  let opening: Promise<void> = Promise.resolve()
  let deadline: AbortSignal | undefined
  const open = async (): Promise<void> => {
    const { openLog } = await import('./stream/log/open-log.ts')
    while (!log && !signal.aborted) {
      try {
        log = await openLog({ ...world, mode: 'append', signal })
        if (refusal) world.logger.info({}, 'Kafka takes anomalies now')
        refusal = undefined
      } catch (error) {
        if (signal.aborted) return
        const { message } = error as Error
        if (message !== refusal?.message) world.logger.error({}, message)
        refusal = error as Error
        await pause(openAgainMs, undefined, { signal }).catch(() => {})
      }
    }
  }
  const service: Service = {
    name: 'anomalies-log',
    async start() {
      opening = open()
    },
    async drain(until) {
      deadline = until
    },
    async stop() {
      stopping.abort()
      await opening
      await log?.close(deadline)
    },
    health(): Health {
      if (refusal) return { state: 'failed', detail: refusal.message }
      const state = log?.state()
      if (state === undefined) return { state: 'starting', detail: `${brokers} has not answered yet` }
      return state.state === 'ok' ? { state: 'ok' } : { state: 'failed', detail: state.reason }
    },
  }
  const append: AppendAnomalies = async (partition, rows, count) => {
    if (!log) throw new RetryableError(refusal?.message ?? `${brokers} has not answered yet`)
    const receivedAt = Math.max(world.clock.nowMicros(), log.receivedAtMax('anomalies', partition) + 1)
    await log.append('anomalies', partition, rows, count, receivedAt)
  }
  return { append, service }
}

function appendByFirst(partition: number, rows: Uint8Array, count: number): Promise<void> {
  return appendByParent({ topic: 'anomalies', partition, count, rows: Buffer.from(rows).toString('base64') })
}

/** Where ingest runs apart there is nobody to append: straight into the table, where the same row again is one. Live viewers do not see these. */
async function insertAnomalies(clickhouse: ClickHouse): Promise<AppendAnomalies> {
  const { insertRows } = await import('./storage/insert-rows.ts')
  const { anomaliesTable } = await import('./storage/tables.ts')
  return (_partition, rows) => insertRows(clickhouse, anomaliesTable, [rows])
}

/** Pages ask the public API, in the same process but through its whole path. */
async function askInside(
  app: FastifyInstance,
  path: string,
  access: ViewerAccess,
  body?: Uint8Array,
): Promise<unknown> {
  const headers = { authorization: access.ownAuthorization }
  const answer = await app.inject(
    body === undefined
      ? { method: 'GET', url: path, headers }
      : {
          method: 'POST',
          url: path,
          headers: { ...headers, 'content-type': 'application/octet-stream' },
          payload: Buffer.from(body),
        },
  )
  return answer.json()
}

async function runClickHouse({ config, stop }: ChildWorld): Promise<number> {
  const logger = createLogger(config.logLevel, 'clickhouse')
  const instruments = createInstruments('clickhouse')
  const { createEmbeddedServer } = await import('./storage/embedded-server/server.ts')
  const directory = join(config.data, 'clickhouse')
  const server = createEmbeddedServer({ directory, port: config.clickhousePort, logger })
  const services = [standingBy(server, join(directory, 'lock'), logger)]
  return runChild({ process: 'clickhouse', services, instruments, logger, drainMs: config.drainMs, signal: stop })
}

async function runDemo({ config, mqttUrl, httpUrl, stop }: ChildWorld): Promise<number> {
  const logger = createLogger(config.logLevel, 'demo')
  const instruments = createInstruments('demo')
  const { createDemoFleet } = await import('./cli/demo-fleet.ts')
  const credentials = requiresAuth(config) && config.adminToken ? { adminToken: config.adminToken } : {}
  const services = [createDemoFleet({ mqttUrl: mqttUrl!, httpUrl: () => httpUrl, logger, ...credentials })]
  return runChild({ process: 'demo', services, instruments, logger, drainMs: 1_000, signal: stop })
}

/** A service that only one process may be at a time: it starts as the owner of `directory`, or not at all. */
function owning(service: Service, directory: string, whenTaken: (pid: number) => string): Service {
  let lock: DataLock | undefined
  return {
    name: service.name,
    async start() {
      lock = await acquireLock(directory, { whenTaken })
      await service.start()
    },
    drain: (deadline) => service.drain(deadline),
    async stop() {
      await service.stop()
      lock?.release()
    },
    health: () => service.health(),
  }
}

/**
 * Roles that are started apart share one store: the first to come runs it, the others stand by and take over when it goes. Also what makes a start
 * after a kill wait for an engine that is still letting go.
 */
function standingBy(service: Service, directory: string, logger: Logger): Service {
  const waiting = new AbortController()
  let lock: DataLock | undefined
  let taking: Promise<void> | undefined
  const whenTaken = (pid: number): string => `The store in ${directory} is run by process ${pid}`
  const take = async (waitMs: number): Promise<void> => {
    lock = await acquireLock(directory, { whenTaken, waitMs, signal: waiting.signal })
    await service.start()
  }
  return {
    name: service.name,
    async start() {
      const owner = await take(standByAfterMs).then(
        () => undefined,
        (error: unknown) => {
          if (lock) throw error
          return lockOwner(directory)
        },
      )
      if (lock) return
      logger.info({ owner }, 'another process runs the store; this one takes over when that one ends')
      taking = take(Number.POSITIVE_INFINITY).catch((error: unknown) => {
        if (!waiting.signal.aborted) throw error
      })
    },
    drain: async (deadline) => {
      waiting.abort()
      await taking
      if (lock) await service.drain(deadline)
    },
    async stop() {
      waiting.abort()
      await taking
      if (!lock) return
      await service.stop()
      lock.release()
    },
    health: (): Health => (lock ? service.health() : { state: 'ok', detail: 'another process runs the store' }),
  }
}

/** A killed owner's engine is gone within a second. */
const standByAfterMs = 2_000
