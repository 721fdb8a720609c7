// `<directory>/end`: how far the log is durable, told to readers in any process. The appender overwrites it after each commit, unsynced: it
// may be behind what is durable, never ahead. Readers watch it (inotify), so the two sides need no connection.

import * as fs from 'node:fs'
import * as path from 'node:path'
import { crc32 } from 'node:zlib'
import type { Logger } from '../../runtime/logger.ts'
import { formatVersion, getU64, logTopics, setU64 } from './frame-format.ts'
import { isMissing, type LogFiles, writeAll } from './log-files.ts'
import { type Marks, partitionsMax, readMarks, writeMarks } from './segment-header.ts'

export interface LogEnd {
  readonly logId: number
  readonly partitions: number
  /** Of the last durable commit. */
  readonly commit: number
  readonly segment: number
  /** Bytes of that segment that are durable. */
  readonly byte: number
  readonly marks: Marks
}

export const endFileName = 'end'
/** 'WEND' */
const endMagic = 0x444e4557
const fixedBytes = 64
const markBytes = 16
export const endBytesMax = fixedBytes + markBytes * logTopics.length * partitionsMax

function endBytes(partitions: number): number {
  return fixedBytes + markBytes * logTopics.length * partitions
}

function encodeEnd(end: LogEnd, bytes: Buffer): number {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  const length = endBytes(end.partitions)
  words.fill(0, 0, fixedBytes >> 2)
  words[0] = endMagic
  words[2] = formatVersion
  words[3] = end.logId | 0
  setU64(words, 4, end.commit)
  setU64(words, 6, end.segment)
  setU64(words, 8, end.byte)
  words[10] = end.partitions
  writeMarks(words, fixedBytes >> 2, end.marks)
  words[1] = crc32(bytes.subarray(8, length), end.logId) | 0
  return length
}

/** Undefined: not an end record, or caught while it is being overwritten. */
export function decodeEnd(bytes: Buffer, available: number): LogEnd | undefined {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  if (available < fixedBytes || words[0] !== endMagic || words[2] !== formatVersion) return undefined
  const partitions = words[10]!
  if (partitions < 1 || partitions > partitionsMax || available < endBytes(partitions)) return undefined
  const logId = words[3]! >>> 0
  if (crc32(bytes.subarray(8, endBytes(partitions)), logId) !== words[1]! >>> 0) return undefined
  return {
    logId,
    partitions,
    commit: getU64(words, 4),
    segment: getU64(words, 6),
    byte: getU64(words, 8),
    marks: readMarks(words, fixedBytes >> 2, partitions),
  }
}

/** What readers wait on: the newest known end, whoever learned of it. */
export class EndSignal {
  current: LogEnd | undefined
  /** The log was closed: nothing more comes, and nobody waits. */
  isClosed = false
  private readonly waiters = new Map<() => void, (end: LogEnd) => boolean>()

  set(end: LogEnd): void {
    if (this.current && end.commit < this.current.commit) return
    // A look that found nothing new wakes nobody: two who wait would wake each other for ever, and nothing else would run.
    const hasMoved = this.current === undefined || end.commit > this.current.commit
    this.current = end
    if (hasMoved) for (const [wake, isNews] of this.waiters) if (isNews(end)) wake()
  }

  close(): void {
    this.isClosed = true
    for (const wake of [...this.waiters.keys()]) wake()
  }

  /** Brings `current` up to date where that needs a look at the file. */
  refresh(): void {}

  isAwaited(): boolean {
    return this.waiters.size > 0
  }

  /** Resolves when the end may have moved past `commit` to one that is news to the one who asks, or the signal ends the wait. */
  async movedPast(commit: number, signal: AbortSignal, isNews: (end: LogEnd) => boolean = () => true): Promise<void> {
    const hasMoved = () => this.current !== undefined && this.current.commit > commit && isNews(this.current)
    if (hasMoved()) return
    this.refresh()
    if (hasMoved() || signal.aborted || this.isClosed) return
    await new Promise<void>((resolve) => {
      const wake = () => {
        this.waiters.delete(wake)
        signal.removeEventListener('abort', wake)
        resolve()
      }
      this.waiters.set(wake, isNews)
      signal.addEventListener('abort', wake)
    })
  }
}

/**
 * Commits that follow one another at once share one notice: handing a write to the thread pool costs as much as framing hundreds of chunks, and each
 * notice wakes several readers, for each of which that costs more than what they read. A lone commit is told of at once.
 */
const betweenWritesMsMin = 10
/** After one that failed. */
const againMs = 1_000

/** The appender's side. At once when idle; while a write is under way, or was just made, only the newest end is kept to be written next. */
export class EndFile {
  private readonly files: LogFiles
  private readonly descriptor: number
  private readonly logger: Logger
  private readonly bytes = Buffer.alloc(endBytesMax)
  private newest: LogEnd | undefined
  private writing: Promise<void> | undefined
  private wroteAt = 0
  private delay: NodeJS.Timeout | undefined
  private hasFailed = false
  private isClosed = false

  private constructor(files: LogFiles, descriptor: number, logger: Logger) {
    this.files = files
    this.descriptor = descriptor
    this.logger = logger
  }

  static async open(files: LogFiles, directory: string, logger: Logger): Promise<EndFile> {
    const file = path.join(directory, endFileName)
    const descriptor = await files.open(file, 'r+').catch((error) => {
      if (!isMissing(error)) throw error
      return files.open(file, 'w+')
    })
    return new EndFile(files, descriptor, logger)
  }

  publish(end: LogEnd): void {
    this.newest = end
    if (this.writing || this.delay) return
    const sinceMs = performance.now() - this.wroteAt
    const waitMs = this.hasFailed ? againMs : betweenWritesMsMin
    if (sinceMs >= waitMs) this.writing = this.write()
    else {
      this.delay = setTimeout(() => {
        this.delay = undefined
        this.writing ??= this.write()
      }, waitMs - sinceMs)
    }
  }

  private async write(): Promise<void> {
    const end = this.newest
    if (!end) return
    this.newest = undefined
    this.wroteAt = performance.now()
    try {
      await writeAll(this.files, this.descriptor, this.bytes, encodeEnd(end, this.bytes), 0)
      this.hasFailed = false
    } catch (error) {
      // Nothing is lost, and no other commit may come soon to tell of these chunks.
      if (!this.hasFailed) this.logger.warn({ error }, 'the log could not tell its readers of new chunks; trying again')
      this.hasFailed = true
      this.newest ??= end
    } finally {
      this.writing = undefined
      if (this.newest && !this.isClosed) this.publish(this.newest)
    }
  }

  async close(): Promise<void> {
    this.isClosed = true
    await this.writing
    clearTimeout(this.delay)
    await this.write()
    await this.files.close(this.descriptor)
  }
}

const pollMs = 500
/** Until the log exists, and where the system has no watch left to give. */
const unwatchedPollMs = 20

/** The readers' side in another process: looks at the file when it changed and somebody waits, and every 500 ms in case a notice was lost. */
export class EndFollower extends EndSignal {
  private readonly file: string
  private descriptor: number | undefined
  private watcher: fs.FSWatcher | undefined
  private timer: NodeJS.Timeout | undefined
  private readonly bytes = Buffer.alloc(endBytesMax)

  constructor(directory: string) {
    super()
    this.file = path.join(directory, endFileName)
    this.refresh()
    this.poll()
  }

  /** Synchronous: a few hundred bytes that the appender has just written, so they are in memory. */
  override refresh(): void {
    if (this.isClosed || !this.attach()) return
    // A record caught half-written is whole a moment later.
    for (let attempt = 0; attempt < 100; attempt++) {
      const end = decodeEnd(this.bytes, fs.readSync(this.descriptor!, this.bytes, 0, this.bytes.length, 0))
      if (!end) continue
      this.set(end)
      return
    }
  }

  private attach(): boolean {
    if (this.descriptor !== undefined) return true
    try {
      this.descriptor = fs.openSync(this.file, 'r')
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    }
    try {
      this.watcher = fs.watch(this.file, { persistent: false }, () => {
        if (this.isAwaited()) this.refresh()
      })
      this.watcher.on('error', () => {
        this.watcher?.close()
        this.watcher = undefined
      })
    } catch {
      // No watch left to give: polling is slower, and works.
    }
    return true
  }

  private poll(): void {
    this.timer = setTimeout(
      () => {
        if (this.isAwaited()) this.refresh()
        this.poll()
      },
      this.watcher ? pollMs : unwatchedPollMs,
    )
    this.timer.unref()
  }

  override close(): void {
    super.close()
    clearTimeout(this.timer)
    this.watcher?.close()
    if (this.descriptor !== undefined) fs.closeSync(this.descriptor)
    this.descriptor = undefined
  }
}
