// The embedded log on a disk in memory, for tests.
import type { EventLog } from '../../domain/event-log.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { type EmbeddedLogOptions, openEmbeddedLog } from './embedded-log.ts'
import type { MemoryDisk } from './memory-disk.ts'

export const testLogDirectory = '/log'

type Varied = Partial<Pick<EmbeddedLogOptions, 'partitions' | 'segmentBytes' | 'groups'>>

/** Without groups, retention waits for nobody. */
export function openTestLog(disk: MemoryDisk, varied: Varied = {}): Promise<EventLog> {
  return openEmbeddedLog({
    directory: testLogDirectory,
    mode: 'append',
    partitions: 2,
    segmentBytes: 16_384,
    quotaBytes: 1e9,
    retentionMs: 1e12,
    groups: [],
    logger: silentLogger,
    clock: { nowMicros: () => 1_700_000_000_000_000 },
    files: disk.files,
    ...varied,
  })
}
