// The segment files of an appender: a spare one is made full of zeros beforehand (or taken back from what retention frees), so that a commit
// never writes metadata and never waits for a file. Holds the quota, and retention, which never passes a group that is still to read.

import * as path from 'node:path'
import type { ConsumerGroup, LogPosition, LogTopic } from '../../domain/event-log.ts'
import type { Clock } from '../../runtime/clock.ts'
import { LimitError, LogDamagedError, LogFailedError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { logTopics } from './frame-format.ts'
import { readGroup } from './group-offsets.ts'
import { isDiskFull, isMissing, type LogFiles, writeAll } from './log-files.ts'
import { copyMarks, encodeSegmentHeader, type Marks, type SegmentHeader, segmentFileName } from './segment-header.ts'
import type { SegmentFile } from './segment-scan.ts'

export interface SegmentStoreOptions {
  readonly files: LogFiles
  readonly directory: string
  readonly logId: number
  readonly partitions: number
  readonly segmentBytes: number
  readonly quotaBytes: number
  readonly retentionMs: number
  readonly groups: readonly ConsumerGroup[]
  readonly yieldingGroups?: readonly ConsumerGroup[]
  readonly logger: Logger
  readonly clock: Clock
}

export interface OpenSegment {
  readonly header: SegmentHeader
  /** For `writeDurably`. */
  readonly descriptor: number
}

const spareName = 'spare'
const zeroBlock = Buffer.alloc(2 * 1024 * 1024)
/** Between two blocks of zeros, so that commits on the same disk hardly notice. */
const zeroPauseMs = 2

export class SegmentStore {
  private readonly options: SegmentStoreOptions
  private readonly segments: SegmentFile[]
  private spare: number | undefined
  private preparing: Promise<void> | undefined
  private freeing: Promise<unknown> = Promise.resolve()
  /** Groups of which it was said that their position can't be read. */
  private readonly unreadable = new Set<ConsumerGroup>()
  private isHurried = false
  private isClosed = false

  constructor(options: SegmentStoreOptions, segments: readonly SegmentFile[]) {
    this.options = options
    this.segments = [...segments]
  }

  private get sparePath(): string {
    return path.join(this.options.directory, spareName)
  }

  /** Begins the next segment. Rejects with a LimitError when there is no room for it, with a LogFailedError when it may or may not be there. */
  async roll(previousEnd: number, firstCommit: number, marks: Marks): Promise<OpenSegment> {
    const { files, directory, logId, partitions, segmentBytes, clock } = this.options
    this.isHurried = true
    try {
      await this.prepare()
    } finally {
      this.isHurried = false
    }
    const descriptor = this.spare!
    const segment = (this.segments.at(-1)?.header.segment ?? 0) + 1
    const createdAt = clock.nowMicros()
    const header: SegmentHeader = {
      logId,
      segment,
      firstCommit,
      previousEnd,
      createdAt,
      partitions,
      bytes: segmentBytes,
      base: copyMarks(marks),
    }
    const file = path.join(directory, segmentFileName(segment))
    // Until it has its name, the file counts for nothing; one that failed here is never used again.
    this.spare = undefined
    try {
      const bytes = encodeSegmentHeader(header)
      await writeAll(files, descriptor, bytes, bytes.length, 0)
      await files.fdatasync(descriptor)
      await files.rename(this.sparePath, file)
    } catch (error) {
      await files.close(descriptor).catch(() => {})
      await files.unlink(this.sparePath).catch(() => {})
      throw error
    }
    try {
      await files.syncDirectory(directory)
    } catch (error) {
      throw new LogFailedError(`the name of ${file} may or may not be on disk: ${(error as Error).message}`, {
        cause: error,
      })
    }
    this.segments.push({ file, header })
    return { header, descriptor }
  }

  /** What counts against the quota: segments with their names; a spare one becomes one of them. */
  bytesOnDisk(): number {
    return this.segments.length * this.options.segmentBytes
  }

  /** Makes sure that there is a spare segment. Concurrent calls share one preparation. */
  prepare(): Promise<void> {
    if (this.spare !== undefined) return Promise.resolve()
    this.preparing ??= this.alone(() => this.prepareSpare()).finally(() => {
      this.preparing = undefined
    })
    return this.preparing
  }

  private async prepareSpare(): Promise<void> {
    const { directory, quotaBytes, segmentBytes } = this.options
    const kept = await this.adoptSpare()
    if (kept) return
    const segmentsMax = Math.max(2, Math.floor(quotaBytes / segmentBytes))
    const isAtQuota = this.segments.length >= segmentsMax
    if ((isAtQuota || (await this.isOldestAged())) && (await this.recycleOldest(isAtQuota))) return
    if (isAtQuota) {
      const slow = await this.slowestGroup(true)
      // It has stored it since it was asked first.
      if (slow === undefined && (await this.recycleOldest(true))) return
      throw new LimitError(
        'log-quota',
        `the log in ${directory} has reached its quota of ${quotaBytes} bytes and nothing in it can be freed${slow ? `: the group ${slow} has not stored its oldest part yet` : ''}. It goes on by itself when that part is stored; see that the store runs, or raise WEIR_LOG_QUOTA.`,
      )
    }
    try {
      await this.makeSpare()
    } catch (error) {
      if (!isDiskFull(error)) throw error
      if (await this.recycleOldest(true)) return
      throw new LimitError(
        'log-disk',
        `the disk of ${directory} is full: no room for another ${segmentBytes} bytes of log. Free space on it; the log goes on by itself.`,
      )
    }
  }

  /** One that an earlier run had left. */
  private async adoptSpare(): Promise<boolean> {
    const { files, segmentBytes } = this.options
    let descriptor: number
    try {
      descriptor = await files.openDurable(this.sparePath)
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    }
    if ((await files.size(descriptor)) === segmentBytes) {
      this.spare = descriptor
      return true
    }
    await files.close(descriptor)
    await files.unlink(this.sparePath)
    return false
  }

  private async makeSpare(): Promise<void> {
    const { files, directory, segmentBytes } = this.options
    const descriptor = await files.open(this.sparePath, 'w+')
    try {
      for (let at = 0; at < segmentBytes; at += zeroBlock.length) {
        await writeAll(files, descriptor, zeroBlock, Math.min(zeroBlock.length, segmentBytes - at), at)
        await files.fdatasync(descriptor)
        if (!this.isHurried) await pause(zeroPauseMs)
        if (this.isClosed) throw new Error('the log was closed')
      }
      await files.fsync(descriptor)
      await files.syncDirectory(directory)
      this.spare = await files.openDurable(this.sparePath)
    } catch (error) {
      await files.unlink(this.sparePath).catch(() => {})
      throw error
    } finally {
      await files.close(descriptor).catch(() => {})
    }
  }

  /** Takes back the oldest segment if every group has read it; under pressure those that yield are not asked. */
  private async recycleOldest(isPressed: boolean): Promise<boolean> {
    const { files, directory, segmentBytes, logger } = this.options
    const oldest = this.segments[0]
    if (!oldest || this.segments.length < 2 || (await this.slowestGroup(isPressed))) return false
    if (oldest.header.bytes !== segmentBytes) {
      await files.unlink(oldest.file)
      this.segments.shift()
      return false
    }
    await files.rename(oldest.file, this.sparePath)
    this.segments.shift()
    await files.syncDirectory(directory)
    this.spare = await files.openDurable(this.sparePath)
    logger.debug({ file: oldest.file }, 'a segment of the log that all groups have read is used again')
    return true
  }

  /** Removes what is older than retention asks for and read by all groups. */
  expire(): Promise<void> {
    return this.alone(() => this.removeAged())
  }

  /** Both who want a spare and who remove what is old take the oldest segment: one at a time. */
  private alone(work: () => Promise<void>): Promise<void> {
    const done = this.freeing.then(work)
    this.freeing = done.catch(() => {})
    return done
  }

  private async removeAged(): Promise<void> {
    const { files, directory } = this.options
    let hasRemoved = false
    while (!this.isClosed && (await this.isOldestAged()) && !(await this.slowestGroup(false))) {
      const oldest = this.segments[0]!
      await files.unlink(oldest.file)
      this.segments.shift()
      hasRemoved = true
    }
    if (hasRemoved) await files.syncDirectory(directory)
  }

  private async isOldestAged(): Promise<boolean> {
    // A segment is as old as its last chunk, which is older than the segment after it.
    const next = this.segments[1]
    return (
      next !== undefined && this.options.clock.nowMicros() - next.header.createdAt > this.options.retentionMs * 1000
    )
  }

  /** A group that has not read all of the oldest segment; undefined when all have. */
  private async slowestGroup(isPressed: boolean): Promise<ConsumerGroup | undefined> {
    const { partitions, yieldingGroups = [] } = this.options
    const groups = isPressed ? this.options.groups : [...this.options.groups, ...yieldingGroups]
    const end = this.segments[1]?.header.base.offsets
    if (!end) return undefined
    for (const group of groups) {
      const topics = await this.positionsOf(group)
      if (topics.size === 0) return group
      for (const [topic, position] of topics) {
        const first = logTopics.indexOf(topic) * partitions
        for (let partition = 0; partition < partitions; partition++) {
          if ((position.get(partition) ?? 0) < end[first + partition]!) return group
        }
      }
    }
    return undefined
  }

  /** Of a group whose position can't be read nothing is known: everything is kept for it, as for one that has never read. */
  private async positionsOf(group: ConsumerGroup): Promise<Map<LogTopic, LogPosition>> {
    try {
      const positions = await readGroup(this.options.directory, group)
      this.unreadable.delete(group)
      return positions
    } catch (error) {
      if (!(error instanceof LogDamagedError)) throw error
      if (!this.unreadable.has(group)) this.options.logger.error({ error }, error.message)
      this.unreadable.add(group)
      return new Map()
    }
  }

  async close(): Promise<void> {
    this.isClosed = true
    await this.freeing
    if (this.spare !== undefined) await this.options.files.close(this.spare)
    this.spare = undefined
  }
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
