// What an appender does before its first append: checks every frame, cuts what a crash left half-written, and refuses what was once durable and
// is no longer what was written. A commit is written only after the one before it is durable; that is what tells the two apart.

import * as path from 'node:path'
import { type LogDamagedError, StartError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { decodeEnd, endBytesMax, endFileName, type LogEnd } from './end-file.ts'
import { Block } from './frame-format.ts'
import { isMissing, type LogFiles, readAll, writeAll } from './log-files.ts'
import { type Marks, segmentFileName } from './segment-header.ts'
import {
  damaged,
  listSegments,
  type SegmentFile,
  type SegmentScan,
  scanSegment,
  searchLeftover,
} from './segment-scan.ts'

export interface Recovered {
  readonly logId: number
  readonly segments: readonly SegmentFile[]
  /** Just past the last durable commit, in the newest segment. */
  readonly end: number
  readonly lastCommit: number
  readonly marks: Marks
  /** The oldest segments, each with the one after it, where there are too many to be checked before the start. */
  readonly unchecked: readonly (readonly [SegmentFile, SegmentFile])[]
}

/** Checked before the first append, newest first: some two seconds. What is older is read by nobody but a replay, and is checked meanwhile. */
const checkedFirstBytes = 2 * 1024 ** 3

/** Undefined: there is no log yet. */
export async function recover(
  files: LogFiles,
  directory: string,
  partitions: number,
  logger: Logger,
  checkedBytes = checkedFirstBytes,
): Promise<Recovered | undefined> {
  const segments = await listSegments(files, directory)
  const known = await readEnd(files, directory)
  const missing = findMissing(directory, segments, known)
  if (missing) throw missing
  const newest = segments.at(-1)
  if (!newest) return undefined
  if (newest.header.partitions !== partitions) {
    throw new StartError(
      `The log in ${directory} has ${newest.header.partitions} partitions and can't be opened with ${partitions}: the number is fixed when a log is made (WEIR_PARTITIONS=${newest.header.partitions}).`,
    )
  }
  const unchecked: [SegmentFile, SegmentFile][] = []
  let bytes = 0
  for (let i = segments.length - 2; i >= 0; i--) {
    const [segment, next] = [segments[i]!, segments[i + 1]!]
    bytes += next.header.previousEnd
    if (bytes <= checkedBytes) await checkSegment(files, segment, next)
    else unchecked.push([segment, next])
  }
  const scan = await recoverNewest(files, newest, known, logger)
  return {
    logId: newest.header.logId,
    segments,
    end: scan.end,
    lastCommit: scan.lastCommit,
    marks: scan.marks,
    unchecked,
  }
}

/** The end tells of a segment that is not there any more. */
export function findMissing(
  directory: string,
  segments: readonly SegmentFile[],
  known: LogEnd | undefined,
): LogDamagedError | undefined {
  const newest = segments.at(-1)?.header
  if (!known || (newest && (newest.logId !== known.logId || newest.segment >= known.segment))) return undefined
  return damaged(path.join(directory, segmentFileName(known.segment)), 0, 'is missing')
}

/** Throws the damage that a segment before the newest has. */
export async function checkSegment(files: LogFiles, segment: SegmentFile, next: SegmentFile): Promise<void> {
  const descriptor = await files.open(segment.file, 'r')
  try {
    const problem = findProblem(
      segment,
      next,
      await scanSegment(files, descriptor, segment.header, next.header.previousEnd),
    )
    if (problem) throw problem
  } finally {
    await files.close(descriptor)
  }
}

/** Holds a segment against the one after it, which says where it validly ends and where everything stood then. */
export function findProblem(segment: SegmentFile, next: SegmentFile, scan: SegmentScan): LogDamagedError | undefined {
  if (scan.end !== next.header.previousEnd) return damaged(segment.file, scan.stoppedAt, 'is not what was written')
  const goesOn =
    scan.lastCommit < next.header.firstCommit &&
    scan.marks.offsets.every((offset, i) => offset === next.header.base.offsets[i])
  return goesOn ? undefined : damaged(next.file, 0, 'does not go on where the segment before it ends')
}

/** Reads without changing anything: how far the newest segment holds, or the damage in it. */
export async function examineNewest(
  files: LogFiles,
  descriptor: number,
  newest: SegmentFile,
  known: LogEnd | undefined,
): Promise<{ scan: SegmentScan; leftover: Awaited<ReturnType<typeof searchLeftover>> }> {
  const { header, file } = newest
  const limit = Math.min(await files.size(descriptor), header.bytes)
  const scan = await scanSegment(files, descriptor, header, limit)
  // The end was written after its commit was durable, so what lies below it was there.
  if (known && known.logId === header.logId && known.segment === header.segment && known.byte > scan.end)
    throw damaged(file, scan.stoppedAt, 'is not what was written')
  const leftover = await searchLeftover(files, descriptor, header, scan.end, limit, scan.lastCommit + 1)
  if (leftover.laterAt !== undefined)
    throw damaged(file, scan.stoppedAt, `is not what was written (a later commit follows at byte ${leftover.laterAt})`)
  return { scan, leftover }
}

async function recoverNewest(
  files: LogFiles,
  newest: SegmentFile,
  known: LogEnd | undefined,
  logger: Logger,
): Promise<SegmentScan> {
  const { header, file } = newest
  const descriptor = await files.open(file, 'r+')
  try {
    const { scan, leftover } = await examineNewest(files, descriptor, newest, known)
    const size = await files.size(descriptor)
    if (leftover.isTorn || size > header.bytes) {
      logger.warn(
        { file, keptBytes: scan.end, cutBytes: Math.max(leftover.end - scan.end, size - header.bytes) },
        'the log ended in the middle of a commit that nobody was told of; it was cut',
      )
    }
    if (size > header.bytes) await files.truncate(descriptor, header.bytes)
    await settleTail(
      files,
      descriptor,
      scan,
      Math.max(leftover.end, scan.end),
      Math.min(size, header.bytes),
      header.bytes,
    )
    return scan
  } finally {
    await files.close(descriptor)
  }
}

/**
 * Makes what the log goes on from durable for certain: the last commit may have been written and never synced (or its sync may have failed), so
 * it is written again; behind it come zeros, so that nothing left there can pass for a frame of a commit to come.
 */
async function settleTail(
  files: LogFiles,
  descriptor: number,
  scan: SegmentScan,
  leftoverEnd: number,
  size: number,
  bytes: number,
): Promise<void> {
  const from = scan.lastCommitAt ?? scan.end
  const block = new Block(leftoverEnd - from)
  block.bytes.fill(0)
  await readAll(files, descriptor, block.bytes, scan.end - from, from)
  await writeAll(files, descriptor, block.bytes, leftoverEnd - from, from)
  const missingFrom = Math.max(size, leftoverEnd)
  const zeros = Buffer.alloc(Math.min(1024 * 1024, Math.max(0, bytes - missingFrom)))
  for (let at = missingFrom; at < bytes; at += zeros.length)
    await writeAll(files, descriptor, zeros, Math.min(zeros.length, bytes - at), at)
  await files.fsync(descriptor)
}

export async function readEnd(files: LogFiles, directory: string): Promise<LogEnd | undefined> {
  let descriptor: number
  try {
    descriptor = await files.open(path.join(directory, endFileName), 'r')
  } catch (error) {
    if (isMissing(error)) return undefined
    throw error
  }
  try {
    const bytes = Buffer.alloc(endBytesMax)
    // A running appender may be overwriting it.
    for (let attempt = 0; attempt < 20; attempt++) {
      const end = decodeEnd(bytes, await readAll(files, descriptor, bytes, bytes.length, 0))
      if (end) return end
    }
    return undefined
  } finally {
    await files.close(descriptor)
  }
}
