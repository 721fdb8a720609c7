// The composition root of the first process: roles -> services, in order, and child processes around them. Downstream starts first, stops last.
//
//   first process ── ingest: MQTT ▶ accept ▶ log (the one appender)          --roles ingest
//     │ supervises (app-children.ts)
//     ├── serve ────── log (read) ▶ writer ▶ store · detector · api ▶ pages  --roles writer,detector,api
//     ├── clickhouse ─ the embedded store, when nobody else runs it          with those, unless WEIR_CLICKHOUSE is elsewhere
//     └── demo ─────── a fleet of devices, through the front door            --demo
//
// Devices are acknowledged by the first process alone: it never waits for a child, and loads neither the engine nor the API.
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { Intake } from './app-intake.ts'
import { type CommandWorld, StoppedError } from './cli/command.ts'
import { systemClock } from './runtime/clock.ts'
import { type Config, isLoopback } from './runtime/config.ts'
import { acquireLock, type DataLock } from './runtime/data-lock.ts'
import { StartError } from './runtime/errors.ts'
import { createHealthServer, type HealthServer } from './runtime/health-server.ts'
import { createInstruments, type Instruments } from './runtime/instruments.ts'
import { createLogger, type Logger } from './runtime/logger.ts'
import { makeDataDirectory } from './runtime/make-data-directory.ts'
import { type RowsToAppend, statusEveryMs } from './runtime/process-channel.ts'
import { type Health, type Service, startServices, stopServices } from './runtime/service.ts'
import type { ProcessStatus } from './runtime/status.ts'
import { type SupervisedProcess, superviseProcess } from './runtime/supervisor.ts'
import { hasEngine } from './storage/embedded-server/endpoint.ts'
import { findClickHouse, isEmbedded, needsStore } from './storage/find-clickhouse.ts'
import { hasEmbeddedLog } from './stream/log/open-log.ts'

export interface StartWeir {
  readonly config: Config
  readonly demo: boolean
  readonly world: CommandWorld
}

/** The engine's calls wait in libuv's pool, which has 4 threads unless told before a process starts. */
const engineEnvironment = { UV_THREADPOOL_SIZE: '16' }
/** Someone who was killed just before us may still be letting go of a port. */
const patienceAfterCrashMs = 5_000
const logComesWithinMs = 10_000

/** Runs until it is told to stop; resolves with the exit code. */
export async function startWeir(options: StartWeir): Promise<number> {
  const first = new FirstProcess(options)
  try {
    await first.start().catch((error: unknown) => {
      // What it waited for (a lock, a log, Kafka) is not what ended it.
      if (!(error instanceof StartError && options.world.stop.aborted)) throw error
      throw new StoppedError('stopped before it began: it was still waiting')
    })
    await first.told()
    await first.stop()
    return 0
  } finally {
    first.letGo()
  }
}

/** The store alone, for a command that needs it while nobody runs it. */
export async function superviseStore(
  options: Pick<StartWeir, 'config' | 'world'> & { logger: Logger },
): Promise<Service> {
  const { config, world, logger } = options
  let settle = (_error?: Error): void => {}
  const ready = new Promise<void>((done, fail) => {
    settle = (error) => (error ? fail(error) : done())
  })
  const store = superviseProcess({
    name: 'clickhouse',
    parts: ['clickhouse'],
    mainFile: world.mainFile,
    words: ['clickhouse'],
    logger,
    environment: () => childEnvironment(world, config, engineEnvironment),
    onReady: () => settle(),
    onRefused: (message) => settle(new StartError(message)),
  })
  world.stop.addEventListener(
    'abort',
    () => settle(new StoppedError('stopped before it began: the store was not open yet')),
    {
      once: true,
    },
  )
  await store.start()
  await ready.catch(async (error) => {
    await store.stop()
    throw error
  })
  return store
}

/** Children are told everything in one variable; the options' own are settled. */
function childEnvironment(world: CommandWorld, config: Config, more: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...world.environment, ...more, WEIR_INTERNAL_CONFIG: JSON.stringify(config) }
}

class FirstProcess {
  private readonly config: Config
  private readonly demo: boolean
  private readonly world: CommandWorld
  private readonly logger: Logger
  private readonly instruments: Instruments
  private readonly addresses: Record<string, string> = {}
  private readonly waitedFor = new Set<string>()
  private readonly children: SupervisedProcess[] = []
  private readonly intake: Intake | undefined
  private readonly healthServer: HealthServer | undefined
  private readonly services: Service[] = []
  private readonly refused = new AbortController()
  private lock: DataLock | undefined
  private fleet: SupervisedProcess | undefined
  private ticker: NodeJS.Timeout | undefined
  private isReady = false
  private stopping = false

  constructor({ config, demo, world }: StartWeir) {
    this.config = config
    this.demo = demo
    this.world = world
    const has = (role: Config['roles'][number]): boolean => config.roles.includes(role)
    const name = has('ingest') ? 'ingest' : 'supervisor'
    this.logger = createLogger(config.logLevel, name)
    this.instruments = createInstruments(name)
    if (config.healthPort !== undefined) {
      const status = { all: () => this.allStatuses() }
      const { host, healthPort: port } = config
      this.healthServer = createHealthServer({ host, port, status, clock: systemClock })
    }
    if (has('writer') || has('detector') || has('api')) {
      if (isEmbedded(config) && needsStore(config)) {
        this.waitedFor.add('clickhouse')
        this.services.push(this.child('clickhouse', ['clickhouse'], engineEnvironment))
      }
      this.waitedFor.add('serve')
      this.services.push(this.child('serve', (['writer', 'detector', 'api'] as const).filter(has)))
    }
    if (has('ingest')) {
      this.intake = new Intake(config, this.logger, this.instruments, world.stop)
      this.services.push(this.intake)
    }
  }

  async start(): Promise<void> {
    const { config } = this
    // What counts is where the ports of a container are published.
    const host = config.publishedHost ?? config.host
    if (!isLoopback(host)) {
      this.logger.warn(
        { host },
        'others reach this address, and only MQTT can have TLS here: who listens on the way sees tokens',
      )
    }
    makeDataDirectory(config.data)
    if (this.waitedFor.has('clickhouse') && !hasEngine())
      throw new StartError(
        'This installation has no embedded ClickHouse (a container image leaves it out): set WEIR_CLICKHOUSE to the address of a server',
      )
    // A certificate that can't be read is said now: a child that ends is only started again.
    findClickHouse(config)
    if (!this.intake && config.log === 'embedded') await untilLogIsHere(config, this.world.stop)
    // Kafka has any number of appenders.
    if (this.intake && config.log === 'embedded') {
      this.lock = await acquireLock(join(config.data, 'lock'), {
        signal: this.world.stop,
        whenTaken: (pid) =>
          `The data directory ${config.data} is in use by process ${pid}: end that one first, or choose another with --data`,
      })
    }
    this.ticker = setInterval(() => {
      this.becomeReady()
      void this.tellWorld()
    }, statusEveryMs)
    if (this.healthServer) {
      await this.healthServer.start()
      this.listening('health', this.healthServer.url())
    }
    await startServices(this.services)
    if (this.intake) {
      this.listening('mqtt', this.intake.url())
      const tls = this.intake.tlsUrl()
      if (tls !== undefined) this.listening('mqtts', tls)
      this.listening('gateway', this.intake.gatewayUrl())
    }
    this.becomeReady()
  }

  /** Resolves when a signal comes; throws when a child can't start because of something outside ourselves. */
  async told(): Promise<void> {
    await new Promise<void>((done) => {
      for (const signal of [this.world.stop, this.refused.signal]) {
        signal.addEventListener('abort', () => done(), { once: true })
        if (signal.aborted) done()
      }
    })
    if (this.world.stop.aborted) return
    await this.stop()
    throw this.refused.signal.reason
  }

  /** Not ready, drain upstream first, stop: all within one deadline. */
  async stop(): Promise<void> {
    this.stopping = true
    this.logger.info({}, 'stopping')
    const deadline = AbortSignal.timeout(this.config.drainMs)
    // A signal may have been sent to the whole group: a child that ends before it is told to is not missed.
    for (const child of this.children) child.letEnd()
    await this.tellWorld()
    const services = this.fleet ? [...this.services, this.fleet] : this.services
    const problems = await stopServices(services, deadline)
    for (const problem of problems) this.logger.warn({ error: problem.message }, 'a part did not stop in order')
    this.logger.info({}, 'stopped')
  }

  letGo(): void {
    clearInterval(this.ticker)
    void this.healthServer?.stop()
    this.lock?.release()
  }

  private child(name: string, parts: readonly string[], environment: NodeJS.ProcessEnv = {}): SupervisedProcess {
    const bornAt = performance.now()
    const { world, config, logger } = this
    const child = superviseProcess({
      name,
      parts,
      mainFile: world.mainFile,
      words: [name],
      logger,
      // A restart listens where the last one did: whoever asked there goes on asking there.
      environment: () => {
        const { http, live } = this.addresses
        const settled = {
          ...config,
          httpPort: portOf(http) ?? config.httpPort,
          livePort: portOf(live) ?? config.livePort,
        }
        return childEnvironment(world, settled, environment)
      },
      onListening: (each, url) => this.listening(each, url),
      onAppend: (rows) => this.append(rows),
      onReady: () => {
        if (this.waitedFor.delete(name)) this.becomeReady()
        void this.tellWorld()
      },
      hungMsMax: config.hungTimeout,
      isPatient: () => this.lock?.afterCrash === true && performance.now() - bornAt < patienceAfterCrashMs,
      onRefused: (message) => this.refused.abort(new StartError(message)),
    })
    this.children.push(child)
    return child
  }

  /** What a child found. */
  private async append({ topic, partition, count, rows }: RowsToAppend): Promise<void> {
    if (!this.intake) throw new StartError('this process does not own the log')
    await this.intake.append(topic, partition, Buffer.from(rows, 'base64'), count)
  }

  private listening(name: string, url: string): void {
    if (this.addresses[name] === url) return
    this.addresses[name] = url
    this.world.print(`${name} listening on ${url}`)
  }

  /** Once: when the intake listens and each child has done its job. */
  private becomeReady(): void {
    if (this.isReady || this.stopping || this.waitedFor.size > 0) return
    if (this.intake && !(this.addresses.mqtt && this.intake.parts().log.state === 'ok')) return
    this.isReady = true
    this.world.print('ready')
    if (!this.demo) return
    const { mqtt = '', http = '' } = this.addresses
    this.fleet = this.child('demo', [], { WEIR_INTERNAL_MQTT: mqtt, WEIR_INTERNAL_HTTP: http })
    void this.fleet.start()
    if (this.addresses.http) this.world.print(`open ${this.addresses.http}`)
  }

  /** Everyone hears of everyone else. */
  private async tellWorld(): Promise<void> {
    const own = await this.ownStatus()
    for (const child of this.children) {
      const others = this.children.filter((each) => each !== child).map((each) => each.status())
      child.tell({ kind: 'world', statuses: own ? [own, ...others] : others, addresses: this.addresses })
    }
  }

  private async allStatuses(): Promise<readonly ProcessStatus[]> {
    const own = await this.ownStatus()
    const others = this.children.map((child) => child.status())
    return own ? [own, ...others] : others
  }

  private async ownStatus(): Promise<ProcessStatus | undefined> {
    if (!this.intake) return undefined
    const instruments = await this.instruments.snapshot()
    const stopping: Health = { state: 'failed', detail: 'stopping' }
    const { log, mqtt, gateway } = this.intake.parts()
    const parts = this.stopping ? { log, mqtt: stopping, gateway: stopping } : { log, mqtt, gateway }
    const ingest = this.intake.totals()
    return { process: 'ingest', at: Date.now(), parts, instruments, ...(ingest ? { ingest } : {}) }
  }
}

/** Ingest may be started a moment later; a log that stays away is on another machine, where no file of it can be read from here. */
async function untilLogIsHere(config: Config, stop: AbortSignal): Promise<void> {
  const giveUpAt = performance.now() + logComesWithinMs
  while (!hasEmbeddedLog(config)) {
    if (stop.aborted || performance.now() > giveUpAt)
      throw new StartError(
        `There is no log in ${config.data}, and ${config.roles.join(', ')} can't work without one. The embedded log is read on the machine that holds it: start the role ingest there with the same --data, or all roles together; for roles on several machines set WEIR_LOG=kafka`,
      )
    await pause(200, undefined, { signal: stop }).catch(() => {})
  }
}

function portOf(url: string | undefined): number | undefined {
  return url === undefined ? undefined : Number(new URL(url).port)
}
