// Picks the log's adapter from the configuration. The embedded log is the only one yet; the Kafka adapter takes its place here.

import * as path from 'node:path'
import type { ConsumerGroup, EventLog } from '../../domain/event-log.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Config } from '../../runtime/config.ts'
import type { Logger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from './embedded-log.ts'

/** Groups that must have read a chunk before retention may take it. */
export const requiredGroups: readonly ConsumerGroup[] = ['writer']
/** Waited for while there is room: at the quota devices matter more than what is found in their readings. */
const yieldingGroups: readonly ConsumerGroup[] = ['detector']

export function logDirectory(config: Pick<Config, 'data'>): string {
  return path.join(config.data, 'log')
}

export interface OpenLogOptions {
  readonly config: Pick<Config, 'data' | 'log' | 'roles' | 'partitions' | 'logQuota' | 'retentionLog'>
  readonly mode: 'append' | 'read'
  readonly logger: Logger
  readonly clock: Clock
}

export function openLog({ config, mode, logger, clock }: OpenLogOptions): Promise<EventLog> {
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
