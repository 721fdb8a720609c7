// Picks the log's adapter from the configuration. Either is loaded only where it is used.

import { readdirSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import * as path from 'node:path'
import type { ConsumerGroup, EventLog } from '../../domain/event-log.ts'
import type { Clock } from '../../runtime/clock.ts'
import { type Config, usesTls } from '../../runtime/config.ts'
import { StartError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { KafkaEndpoint, SaslOptions } from './kafka-client.ts'

/** Groups that must have read a chunk before retention may take it. */
export const requiredGroups: readonly ConsumerGroup[] = ['writer']
/** Waited for while there is room: at the quota devices matter more than what is found in their readings. */
const yieldingGroups: readonly ConsumerGroup[] = ['detector']

export function logDirectory(config: Pick<Config, 'data'>): string {
  return path.join(config.data, 'log')
}

/** Whether this machine holds one, or did: its segments are there. */
export function hasEmbeddedLog(config: Pick<Config, 'data'>): boolean {
  try {
    return readdirSync(logDirectory(config)).some((name) => name.endsWith('.seg'))
  } catch {
    return false
  }
}

type KafkaConfig = Pick<Config, Extract<keyof Config, `kafka${string}`>>
type LogConfig = Pick<Config, 'data' | 'log' | 'roles' | 'partitions' | 'logQuota' | 'retentionLog'> & KafkaConfig

export interface OpenLogOptions {
  readonly config: LogConfig
  readonly mode: 'append' | 'read'
  readonly logger: Logger
  readonly clock: Clock
  /** Ends the wait for a log that is elsewhere and not there yet. */
  readonly signal?: AbortSignal
}

export async function openLog({ config, mode, logger, clock, signal }: OpenLogOptions): Promise<EventLog> {
  if (config.log === 'kafka') {
    const { openKafkaLog } = await import('./kafka-log.ts')
    return openKafkaLog({
      endpoint: kafkaEndpoint(config, logger),
      prefix: config.kafkaPrefix,
      mode,
      partitions: config.partitions,
      retentionMs: config.retentionLog,
      compression: config.kafkaCompression,
      sessionTimeoutMs: config.kafkaSessionTimeout,
      logger,
      signal,
    })
  }
  const { openEmbeddedLog } = await import('./embedded-log.ts')
  if (mode === 'append') await (await import('./move-record.ts')).refuseMovedLog(logDirectory(config))
  return openEmbeddedLog({
    directory: logDirectory(config),
    mode,
    partitions: config.partitions,
    quotaBytes: config.logQuota,
    retentionMs: config.retentionLog,
    groups: requiredGroups,
    // A group that nobody runs would hold everything back until the quota.
    yieldingGroups: config.roles.includes('detector') ? yieldingGroups : [],
    logger,
    clock,
  })
}

/** Throws a StartError for a file that can't be read. */
export function kafkaEndpoint(config: KafkaConfig, logger: Logger): KafkaEndpoint {
  const tls = usesTls(config)
    ? { ca: pem(config.kafkaTlsCa), cert: pem(config.kafkaTlsCert), key: pem(config.kafkaTlsKey) }
    : undefined
  const requestTimeoutMs = config.kafkaRequestTimeout
  return { brokers: config.kafkaBrokers ?? [], tls, sasl: saslOf(config), requestTimeoutMs, logger }
}

function saslOf(config: KafkaConfig): SaslOptions | undefined {
  const { kafkaSasl: mechanism, kafkaUsername: username = '', kafkaPassword: password = '', kafkaTokenFile } = config
  if (mechanism === undefined) return undefined
  if (mechanism !== 'oauthbearer') return { mechanism, username, password }
  return { mechanism, token: async () => (await readFile(kafkaTokenFile!, 'utf8')).trim() }
}

function pem(file: string | undefined): string | undefined {
  if (file === undefined) return undefined
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw new StartError(`The file ${file} for TLS to Kafka can't be read: ${(error as Error).message}`)
  }
}
