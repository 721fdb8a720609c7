// The durable log as files on this machine: one appender (the process that takes readings in), and readers in any process. All topics and
// partitions share one sequence of preallocated segment files, so that a commit is one durable write. docs/log-format.md has the bytes.

import { randomBytes } from 'node:crypto'
import type {
  Chunk,
  ConsumerGroup,
  EventLog,
  LogConsumer,
  LogPosition,
  LogState,
  LogTopic,
  Offset,
  Partition,
  SubscribeOptions,
} from '../../domain/event-log.ts'
import type { Clock } from '../../runtime/clock.ts'
import { RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { Appender } from './appender.ts'
import { EndFile, EndFollower, EndSignal, type LogEnd } from './end-file.ts'
import { logTopics } from './frame-format.ts'
import { GroupOffsets, readCommitted } from './group-offsets.ts'
import { type LogFiles, systemFiles } from './log-files.ts'
import { RecentBytes } from './recent-bytes.ts'
import { checkSegment, type Recovered, recover } from './recovery.ts'
import { createMarks, partitionsMax, segmentHeaderBytes } from './segment-header.ts'
import { SegmentReader } from './segment-reader.ts'
import { isRecycled, listSegmentsPatiently } from './segment-scan.ts'
import { SegmentStore } from './segment-store.ts'

export interface EmbeddedLogOptions {
  readonly directory: string
  /** `append`: the one process that owns the log. `read`: any other; it may read, and commit positions, but not append. */
  readonly mode: 'append' | 'read'
  readonly partitions: number
  readonly quotaBytes: number
  readonly retentionMs: number
  /** Retention never passes these. */
  readonly groups: readonly ConsumerGroup[]
  /** Nor these, until the quota is reached. */
  readonly yieldingGroups?: readonly ConsumerGroup[]
  readonly segmentBytes?: number
  readonly logger: Logger
  readonly clock: Clock
  /** Where tests inject faults. */
  readonly files?: LogFiles
}

const segmentBytesDefault = 64 * 1024 * 1024
const tailBytesMax = 1024 * 1024

/**
 * In `append` mode checks the whole log first: cuts what a crash left half-written, throws a LogDamagedError for what is not what was written, and
 * a StartError when the log was made with another number of partitions. In `read` mode returns at once; reads wait for the log to come.
 */
export async function openEmbeddedLog(options: EmbeddedLogOptions): Promise<EventLog> {
  const { partitions, directory } = options
  if (!(Number.isInteger(partitions) && partitions >= 1 && partitions <= partitionsMax))
    throw new RangeError(`a log has 1 to ${partitionsMax} partitions, not ${partitions}`)
  const files = options.files ?? systemFiles
  if (options.mode === 'read') return new EmbeddedLog(options, files, new EndFollower(directory), undefined)
  const segmentBytes = options.segmentBytes ?? segmentBytesDefault
  if (segmentBytes % 4096 !== 0 || segmentBytes < 4 * segmentHeaderBytes)
    throw new RangeError(`a segment is a multiple of 4096 bytes and at least 16384, not ${segmentBytes}`)
  await files.makeDirectory(directory)
  const end = new EndSignal()
  let log: EmbeddedLog | undefined
  const appender = await openAppender({ ...options, segmentBytes }, files, end, (state) => log?.tellState(state))
  log = new EmbeddedLog(options, files, end, appender)
  return log
}

async function openAppender(
  options: EmbeddedLogOptions & { readonly segmentBytes: number },
  files: LogFiles,
  end: EndSignal,
  onState: (state: LogState) => void,
): Promise<Appender> {
  const { directory, partitions, logger, segmentBytes } = options
  const found = await recover(files, directory, partitions, logger)
  const logId = found?.logId ?? randomBytes(4).readUInt32LE()
  const store = new SegmentStore({ ...options, files, logId }, found?.segments ?? [])
  const marks = found?.marks ?? createMarks(partitions)
  const newest = found?.segments.at(-1)
  const lastCommit = found?.lastCommit ?? 0
  const segment = newest
    ? { header: newest.header, descriptor: await files.openDurable(newest.file) }
    : await store.roll(0, 1, marks)
  const endFile = await EndFile.open(files, directory, logger)
  if (found) void checkMeanwhile(files, found.unchecked, end, logger)
  return new Appender({
    files,
    logId,
    partitions,
    segmentBytes,
    store,
    segment,
    byte: found?.end ?? segmentHeaderBytes,
    lastCommit,
    marks,
    endFile,
    end,
    logger,
    onState,
  })
}

/** Damage in what is old is said as soon as it is found; readers that come to it are refused. */
async function checkMeanwhile(
  files: LogFiles,
  unchecked: Recovered['unchecked'],
  end: EndSignal,
  logger: Logger,
): Promise<void> {
  for (const [segment, next] of unchecked) {
    if (end.isClosed) return
    try {
      await checkSegment(files, segment, next)
    } catch (error) {
      if (!(await isRecycled(files, segment).catch(() => true))) logger.error({ error }, (error as Error).message)
    }
  }
}

class EmbeddedLog implements EventLog {
  readonly partitions: number
  readonly hasManyAppenders = false
  private readonly options: EmbeddedLogOptions
  private readonly files: LogFiles
  private readonly endSignal: EndSignal
  private readonly recent = new RecentBytes()
  private readonly appender: Appender | undefined
  private closing: Promise<void> | undefined
  private readonly listeners: ((state: LogState) => void)[] = []

  constructor(options: EmbeddedLogOptions, files: LogFiles, end: EndSignal, appender: Appender | undefined) {
    this.options = options
    this.partitions = options.partitions
    this.files = files
    this.endSignal = end
    this.appender = appender
  }

  append(topic: LogTopic, partition: Partition, rows: Uint8Array, count: number, receivedAt: number): Promise<Offset> {
    if (!this.appender)
      return Promise.reject(new RetryableError('this process reads the log and does not append to it'))
    return this.appender.append(topic, partition, rows, count, receivedAt)
  }

  async subscribe(group: ConsumerGroup, topic: LogTopic, { startAt }: SubscribeOptions = {}): Promise<LogConsumer> {
    const offsets = await GroupOffsets.open(this.files, this.options.directory, group, topic)
    const from = new Map(offsets.position())
    // One reader has all partitions, from the first moment on.
    for (let partition = 0; startAt && partition < this.partitions; partition++) {
      const start = startAt(partition, from.get(partition))
      if (start === 'beginning') from.delete(partition)
      else if (start !== 'committed') from.set(partition, start)
    }
    const reader = this.openReader(topic, from)
    return {
      read: (bytesMax, signal) => reader.read(bytesMax, signal),
      commit: (position) => offsets.commit(position),
      lag: async () => {
        const [first, last] = [await this.beginning(topic), await this.end(topic)]
        let chunks = 0
        for (const [partition, offset] of last)
          chunks += Math.max(0, offset - (offsets.position().get(partition) ?? first.get(partition) ?? 0))
        return chunks
      },
      trouble: () => undefined,
      close: async () => {
        await reader.close()
        await offsets.close()
      },
    }
  }

  tail(topic: LogTopic, from: LogPosition | 'end', signal: AbortSignal): AsyncIterable<readonly Chunk[]> {
    // The end is taken now, not when the first chunk is asked for.
    this.endSignal.refresh()
    const reader = this.openReader(topic, from === 'end' ? (this.endSignal.current ?? new Map()) : from)
    return follow(reader, this.endSignal, signal)
  }

  async committed(group: ConsumerGroup, topic: LogTopic): Promise<LogPosition> {
    return (await readCommitted(this.options.directory, group, topic)) ?? new Map()
  }

  async beginning(topic: LogTopic): Promise<LogPosition> {
    this.endSignal.refresh()
    if (!this.endSignal.current) return new Map()
    const [oldest] = await listSegmentsPatiently(this.files, this.options.directory)
    return this.positionOf(topic, oldest?.header.base.offsets)
  }

  async end(topic: LogTopic): Promise<LogPosition> {
    this.endSignal.refresh()
    return this.positionOf(topic, this.endSignal.current?.marks.offsets)
  }

  receivedAtMax(topic: LogTopic, partition: Partition): number {
    const slot = logTopics.indexOf(topic) * this.partitions + partition
    if (this.appender) return this.appender.receivedAtMax(slot)
    this.endSignal.refresh()
    return this.endSignal.current?.marks.receivedAt[slot] ?? 0
  }

  async newest(topic: LogTopic): Promise<ReadonlyMap<Partition, number>> {
    const found = new Map<Partition, number>()
    for (let partition = 0; partition < this.partitions; partition++) {
      const receivedAt = this.receivedAtMax(topic, partition)
      if (receivedAt > 0) found.set(partition, receivedAt)
    }
    return found
  }

  bytesOnDisk(): number | undefined {
    return this.appender?.bytesOnDisk()
  }

  state(): LogState {
    return this.appender?.state ?? { state: 'ok' }
  }

  onState(listener: (state: LogState) => void): void {
    this.listeners.push(listener)
  }

  tellState(state: LogState): void {
    for (const listener of this.listeners) listener(state)
  }

  close(): Promise<void> {
    this.closing ??= this.closeOnce()
    return this.closing
  }

  private async closeOnce(): Promise<void> {
    await this.appender?.close()
    this.endSignal.close()
  }

  private openReader(topic: LogTopic, from: LogPosition | LogEnd): SegmentReader {
    const { files, endSignal: end, recent } = this
    return new SegmentReader({ files, directory: this.options.directory, end, recent, topic, from })
  }

  private positionOf(topic: LogTopic, offsets: Float64Array | undefined): LogPosition {
    if (!offsets) return new Map()
    const partitions = offsets.length / logTopics.length
    const first = logTopics.indexOf(topic) * partitions
    return new Map(Array.from({ length: partitions }, (_, partition) => [partition, offsets[first + partition]!]))
  }
}

async function* follow(reader: SegmentReader, end: EndSignal, signal: AbortSignal): AsyncGenerator<readonly Chunk[]> {
  try {
    while (!signal.aborted && !end.isClosed) {
      const chunks = await reader.read(tailBytesMax, signal)
      if (chunks.length > 0) yield chunks
    }
  } finally {
    await reader.close()
  }
}
