// Checks every frame of a log without changing anything, whether its appender runs or not: what `weir verify` says about the log itself.

import { LogDamagedError } from '../../runtime/errors.ts'
import { type LogFiles, systemFiles } from './log-files.ts'
import { examineNewest, findMissing, findProblem, readEnd } from './recovery.ts'
import { isRecycled, listSegmentsPatiently, type SegmentFile, scanSegment } from './segment-scan.ts'

export interface LogProblem {
  readonly file: string
  readonly byte: number
  /** A sentence: what is wrong, what to do. */
  readonly detail: string
}

export interface LogReport {
  readonly segments: number
  readonly chunks: number
  /** Of frames that are as they were written. */
  readonly bytes: number
  readonly problems: readonly LogProblem[]
}

/** Goes on behind damage in one segment with the next. `progress` is called after each. */
export async function verifyLog(
  directory: string,
  { files = systemFiles, progress }: { files?: LogFiles; progress?: (done: number, of: number) => void } = {},
): Promise<LogReport> {
  const problems: LogProblem[] = []
  const totals = { segments: 0, chunks: 0, bytes: 0 }
  const note = async (check: () => Promise<void>, segment?: SegmentFile): Promise<void> => {
    try {
      await check()
    } catch (error) {
      if (segment && (await isRecycled(files, segment))) return
      if (!(error instanceof LogDamagedError)) throw error
      problems.push({ file: error.file, byte: error.byte, detail: error.message })
    }
  }
  let segments: SegmentFile[] = []
  await note(async () => {
    segments = await listSegmentsPatiently(files, directory)
    const missing = findMissing(directory, segments, await readEnd(files, directory))
    if (missing) throw missing
  })
  for (const [index, segment] of segments.entries()) {
    await note(async () => {
      const next = segments[index + 1]
      const scanned = await scanOne(files, directory, segment, next)
      totals.chunks += scanned.chunks
      totals.bytes += scanned.bytes
      if (scanned.problem) throw scanned.problem
    }, segment)
    totals.segments++
    progress?.(index + 1, segments.length)
  }
  return { ...totals, problems }
}

async function scanOne(
  files: LogFiles,
  directory: string,
  segment: SegmentFile,
  next: SegmentFile | undefined,
): Promise<{ chunks: number; bytes: number; problem?: LogDamagedError | undefined }> {
  const descriptor = await files.open(segment.file, 'r')
  try {
    const { header } = segment
    // Below the end that the appender has told of, a running log is as still as a stopped one.
    const known = await readEnd(files, directory)
    const told = known?.logId === header.logId && known.segment === header.segment ? known.byte : undefined
    const limit = next?.header.previousEnd ?? told ?? (await files.size(descriptor))
    const scan = await scanSegment(files, descriptor, header, limit)
    const found = { chunks: scan.chunks, bytes: scan.end }
    if (next) return { ...found, problem: findProblem(segment, next, scan) }
    if (told === undefined || scan.end < told) await examineNewest(files, descriptor, segment, known)
    return found
  } finally {
    await files.close(descriptor)
  }
}
