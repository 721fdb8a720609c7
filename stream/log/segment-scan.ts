// Reads segments from their first commit on and says where one stops making sense. Recovery decides from that whether a bad frame is a torn
// tail or damage, and verifyLog reports it; neither needs the rows.

import * as path from 'node:path'
import { LogDamagedError } from '../../runtime/errors.ts'
import { Block, FrameView, frameMagic } from './frame-format.ts'
import { FrameReader } from './frame-reader.ts'
import { isMissing, type LogFiles, readAll } from './log-files.ts'
import {
  copyMarks,
  decodeSegmentHeader,
  type Marks,
  type SegmentHeader,
  segmentFileName,
  segmentHeaderBytes,
  segmentOfFileName,
} from './segment-header.ts'

export interface SegmentFile {
  readonly file: string
  readonly header: SegmentHeader
}

export interface SegmentScan {
  /** Just past the last whole commit. */
  readonly end: number
  readonly lastCommit: number
  /** Where the last whole commit begins; undefined when there is none. */
  readonly lastCommitAt: number | undefined
  readonly chunks: number
  /** Where the next frame should be and is not; past `end` when the last commit is not whole. */
  readonly stoppedAt: number
  readonly marks: Marks
}

export function damaged(file: string, byte: number, what: string): LogDamagedError {
  return new LogDamagedError(
    file,
    byte,
    `the log is damaged: ${file} at byte ${byte} ${what}. Restore the file from a copy, or move the log's directory away to start with an empty one: readings that are in the table stay there, those that are only in the log are lost.`,
  )
}

/** Segments in order. Throws LogDamagedError for one that is missing or whose header is not what was written. */
export async function listSegments(files: LogFiles, directory: string): Promise<SegmentFile[]> {
  const numbers = (await files.list(directory))
    .map(segmentOfFileName)
    .filter((number) => number !== undefined)
    .sort((a, b) => a - b)
  const found: SegmentFile[] = []
  for (const number of numbers) {
    const file = path.join(directory, segmentFileName(number))
    const before = found.at(-1)?.header
    if (before && number !== before.segment + 1)
      throw damaged(path.join(directory, segmentFileName(before.segment + 1)), 0, 'is missing between two others')
    const header = await readSegmentHeader(files, file)
    // The appender may recycle the oldest while a reader lists.
    if (header === 'missing' && found.length === 0) continue
    if (!header || header === 'missing' || header.segment !== number)
      throw damaged(file, 0, 'has a header that is not what was written')
    if (before && before.logId !== header.logId) throw damaged(file, 0, 'belongs to another log')
    found.push({ file, header })
  }
  return found
}

/** For who lists while the appender may be recycling files: what looks damaged is looked at again. */
export async function listSegmentsPatiently(files: LogFiles, directory: string): Promise<SegmentFile[]> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await listSegments(files, directory)
    } catch (error) {
      if (attempt === 3) throw error
    }
  }
}

export async function readSegmentHeader(files: LogFiles, file: string): Promise<SegmentHeader | 'missing' | undefined> {
  let descriptor: number
  try {
    descriptor = await files.open(file, 'r')
  } catch (error) {
    if (isMissing(error)) return 'missing'
    throw error
  }
  try {
    const bytes = Buffer.allocUnsafeSlow(segmentHeaderBytes)
    const got = await readAll(files, descriptor, bytes, segmentHeaderBytes, 0)
    return got === segmentHeaderBytes ? decodeSegmentHeader(bytes) : undefined
  } finally {
    await files.close(descriptor)
  }
}

/** Retention took it while it was being read. */
export async function isRecycled(files: LogFiles, { file, header }: SegmentFile): Promise<boolean> {
  const now = await readSegmentHeader(files, file)
  return now === 'missing' || (now !== undefined && now.segment !== header.segment)
}

/** Checks every frame below `limit`, and that commits and offsets go on without a hole. */
export async function scanSegment(
  files: LogFiles,
  descriptor: number,
  header: SegmentHeader,
  limit: number,
): Promise<SegmentScan> {
  const reader = new FrameReader(files, descriptor, header.logId, segmentHeaderBytes)
  const { view } = reader
  const marks = copyMarks(header.base)
  const whole = {
    end: segmentHeaderBytes,
    lastCommitAt: undefined as number | undefined,
    chunks: 0,
    marks: copyMarks(marks),
  }
  let commit = header.firstCommit
  let commitAt = segmentHeaderBytes
  let chunks = 0
  for (;;) {
    const outcome = reader.step(limit)
    if (outcome === 'load') {
      await reader.load(limit)
      continue
    }
    const slot = view.topic * header.partitions + view.partition
    if (
      outcome !== 'ok' ||
      view.commit !== commit ||
      view.partition >= header.partitions ||
      view.offset !== marks.offsets[slot]
    )
      return { ...whole, lastCommit: commit - 1, stoppedAt: outcome === 'ok' ? reader.framePosition : reader.position }
    marks.offsets[slot] = view.offset + 1
    marks.receivedAt[slot] = Math.max(marks.receivedAt[slot]!, view.receivedAt)
    chunks++
    if (!view.last) continue
    whole.end = reader.position
    whole.lastCommitAt = commitAt
    whole.chunks = chunks
    whole.marks.offsets.set(marks.offsets)
    whole.marks.receivedAt.set(marks.receivedAt)
    commitAt = reader.position
    commit++
  }
}

export interface Leftover {
  /** Byte of a sound frame of a commit later than `commit`: what is missing before it was once durable. */
  readonly laterAt: number | undefined
  /** Just past the last byte that is not zero; `from` when all are. */
  readonly end: number
  /** Whether it was left by a crash (or by somebody else), and is not what the file held when it was another segment. */
  readonly isTorn: boolean
}

/** Looks at what lies behind the last whole commit, in one piece (a segment at most). Older frames of a recycled file count for nothing. */
export async function searchLeftover(
  files: LogFiles,
  descriptor: number,
  header: SegmentHeader,
  from: number,
  limit: number,
  commit: number,
): Promise<Leftover> {
  const block = new Block(Math.max(0, limit - from))
  const available = await readAll(files, descriptor, block.bytes, Math.max(0, limit - from), from)
  block.bytes.fill(0, available)
  const { words } = block
  const view = new FrameView()
  let lastWord = words.length - 1
  while (lastWord >= 0 && words[lastWord] === 0) lastWord--
  let isTorn = false
  let isRecycled = false
  for (let word = 0; word <= lastWord; word += 2) {
    if (words[word] !== frameMagic || view.read(block, word * 4, available, header.logId) !== 'ok') continue
    if (view.commit > commit) return { laterAt: from + word * 4, end: from + 4 * (lastWord + 1), isTorn }
    if (view.commit === commit) isTorn = true
    else isRecycled = true
  }
  return { laterAt: undefined, end: from + 4 * (lastWord + 1), isTorn: isTorn || (lastWord >= 0 && !isRecycled) }
}
