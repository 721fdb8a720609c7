// The role ingest as a part of the first process: the registry of devices, the log, and what listens, in one service. Only here is a log appended to.
import type { EventLog, LogTopic } from './domain/event-log.ts'
import { logHealth } from './ingest/gateway-health.ts'
import { createIngestService, type IngestService } from './ingest/ingest-service.ts'
import { DeviceRegistry } from './runtime/access/device-registry.ts'
import { systemClock } from './runtime/clock.ts'
import { type Config, devicesFile } from './runtime/config.ts'
import { RetryableError } from './runtime/errors.ts'
import type { Instruments } from './runtime/instruments.ts'
import { linkSignals } from './runtime/linked-signal.ts'
import type { Logger } from './runtime/logger.ts'
import type { Health, Service } from './runtime/service.ts'
import { openLog } from './stream/log/open-log.ts'

/** Of the time that a stop may take, where other processes end after this one: a log that takes nothing must not cost them theirs. */
const shareOfDrain = 0.5

/** The log is opened (and checked) first, because what listens can be given something. */
export class Intake implements Service {
  readonly name = 'ingest'
  private readonly config: Config
  private readonly logger: Logger
  private readonly instruments: Instruments
  /** Ends the wait for a log that is not there yet. */
  private readonly stopSignal: AbortSignal
  private log: EventLog | undefined
  private ingest: IngestService | undefined
  private registry: DeviceRegistry | undefined
  private deadline: AbortSignal | undefined

  constructor(config: Config, logger: Logger, instruments: Instruments, stopSignal: AbortSignal) {
    this.stopSignal = stopSignal
    this.config = config
    this.logger = logger
    this.instruments = instruments
  }

  async start(): Promise<void> {
    const { config, logger, instruments } = this
    const shared = { config, logger, clock: systemClock }
    const registry = new DeviceRegistry({ file: devicesFile(config), logger })
    this.registry = registry
    registry.watch()
    const log = await openLog({ ...shared, mode: 'append', signal: this.stopSignal })
    this.log = log
    instruments.gauge('weir_log_bytes', 'Bytes of the log that count against its quota', () => log.bytesOnDisk() ?? 0)
    instruments.gauge('weir_log_quota_bytes', 'WEIR_LOG_QUOTA', () => config.logQuota)
    this.ingest = createIngestService({ ...shared, log, instruments, registry })
    await this.ingest.start()
  }

  async drain(deadline: AbortSignal): Promise<void> {
    this.deadline = deadline
    const { roles, drainMs } = this.config
    const hasOthers = roles.some((role) => role !== 'ingest')
    const own = linkSignals([deadline], hasOthers ? drainMs * shareOfDrain : undefined)
    await this.ingest?.drain(own.signal)
    own.release()
  }

  async stop(): Promise<void> {
    await this.ingest?.stop()
    this.registry?.close()
    // What detection finds as it ends is appended until here.
    await this.log?.close(this.deadline)
  }

  async append(topic: LogTopic, partition: number, rows: Uint8Array, count: number): Promise<void> {
    if (!this.log) throw new RetryableError('the log is not open yet')
    // Readers of the log may rely on it that instants never go back within a partition.
    const receivedAt = Math.max(systemClock.nowMicros(), this.log.receivedAtMax(topic, partition) + 1)
    await this.log.append(topic, partition, rows, count, receivedAt)
  }

  url(): string {
    const { host, port } = this.ingest!.mqttAddress()
    return `mqtt://${host}:${port}`
  }

  tlsUrl(): string | undefined {
    const address = this.ingest!.mqttTlsAddress()
    return address && `mqtts://${address.host}:${address.port}`
  }

  gatewayUrl(): string {
    const { host, port } = this.ingest!.gatewayAddress()
    return `http://${host}:${port}`
  }

  totals(): ReturnType<IngestService['totals']> | undefined {
    return this.ingest?.totals()
  }

  health(): Health {
    return this.parts().mqtt
  }

  parts(): { readonly log: Health; readonly mqtt: Health; readonly gateway: Health } {
    const starting: Health = { state: 'starting', detail: 'the log is opened and checked' }
    return {
      log: this.log ? logHealth(this.log.state()) : starting,
      mqtt: this.ingest?.health() ?? starting,
      gateway: this.ingest?.gatewayHealth() ?? starting,
    }
  }
}
