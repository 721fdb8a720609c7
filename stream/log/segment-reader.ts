// Follows one topic through the segments, never past the durable end. Knows the log only by its files, so it works in any process; what
// retention took away, and what is not as it was written, it says by an error and never skips.

import * as path from 'node:path'
import type { Chunk, LogPosition, LogTopic } from '../../domain/event-log.ts'
import { OffsetOutOfRangeError } from '../../runtime/errors.ts'
import type { EndSignal, LogEnd } from './end-file.ts'
import { logTopics } from './frame-format.ts'
import { FrameReader } from './frame-reader.ts'
import { isMissing, type LogFiles, readAll } from './log-files.ts'
import type { RecentBytes } from './recent-bytes.ts'
import { decodeSegmentHeader, type SegmentHeader, segmentFileName, segmentHeaderBytes } from './segment-header.ts'
import { damaged, listSegmentsPatiently, readSegmentHeader } from './segment-scan.ts'

export interface SegmentReaderOptions {
  readonly files: LogFiles
  readonly directory: string
  readonly end: EndSignal
  readonly recent: RecentBytes
  readonly topic: LogTopic
  /** An end: only what comes after it. */
  readonly from: LogPosition | LogEnd
}

/** The segment that is being read. */
interface Place {
  readonly header: SegmentHeader
  readonly file: string
  readonly descriptor: number
  readonly frames: FrameReader
  /** Where it validly ends, once a later segment says so. */
  end: number | undefined
}

export class SegmentReader {
  private readonly options: SegmentReaderOptions
  private readonly topicNumber: number
  private place: Place | undefined
  /** The commit that the next frame belongs to. */
  private commit = 0
  /** By partition: the offset of the next frame, and the first one that is wanted. */
  private expected: number[] = []
  private wanted: number[] = []
  /** Where the log ended when it was last seen that nothing up to there is of this topic. */
  private passed: LogEnd | undefined
  private isStale = false

  constructor(options: SegmentReaderOptions) {
    this.options = options
    this.topicNumber = logTopics.indexOf(options.topic)
  }

  /** Waits for the next chunks, at most about `bytesMax` of them. Empty when the signal ended the wait. */
  async read(bytesMax: number, signal: AbortSignal): Promise<readonly Chunk[]> {
    const { end } = this.options
    const chunks: Chunk[] = []
    let bytes = 0
    while (!signal.aborted && !end.isClosed) {
      const now = end.current
      if (!now) {
        await end.movedPast(-1, signal)
        continue
      }
      if (!this.place) await this.begin(now)
      const place = this.place!
      const limit = this.limitOf(place, now)
      const outcome = place.frames.step(limit)
      if (outcome === 'ok') {
        const chunk = this.take(place)
        if (chunk === 'stale') {
          if (chunks.length > 0) return chunks
          await this.refuse(place, place.frames.framePosition)
        }
        if (chunk === 'stale' || chunk === 'other') continue
        chunks.push(chunk)
        bytes += chunk.rows.length
        if (bytes >= bytesMax) return chunks
      } else if (outcome === 'bad') {
        if (chunks.length > 0) return chunks
        await this.refuse(place, place.frames.position)
      } else if (chunks.length > 0) {
        // What is at hand first; the disk on the next call.
        return chunks
      } else if ((outcome === 'load' || now.segment > place.header.segment) && this.passes(now)) {
        await this.skip(place)
      } else if (outcome === 'load') {
        await place.frames.load(limit)
      } else if (place.end !== undefined) {
        await this.enter(place.header.segment + 1)
      } else if (now.segment > place.header.segment) {
        place.end = (await this.headerOf(place.header.segment + 1)).previousEnd
      } else {
        // Most commits have nothing of most topics: those do not even wake us.
        // (Who waits in a segment that is no longer written would keep it on disk.)
        await end.movedPast(now.commit, signal, (next) => next.segment > place.header.segment || !this.passes(next))
        await this.skip(place)
      }
    }
    return chunks
  }

  /** Whether nothing from the next frame up to this end is of this topic; remembers so. */
  private passes(end: LogEnd): boolean {
    const { expected } = this
    const first = this.topicNumber * end.partitions
    for (let partition = 0; partition < expected.length; partition++) {
      if (end.marks.offsets[first + partition] !== expected[partition]) return false
    }
    this.passed = end
    return true
  }

  /** Goes on behind what was passed. */
  private async skip(place: Place): Promise<void> {
    const { passed } = this
    this.passed = undefined
    if (passed === undefined) return
    const { segment, byte, commit } = passed
    if (segment !== place.header.segment)
      await this.enter(segment, { byte, commit: commit + 1, offsets: this.expected })
    else if (byte > place.frames.position) {
      place.frames.skipTo(byte)
      this.commit = commit + 1
    }
  }

  async close(): Promise<void> {
    const place = this.place
    this.place = undefined
    if (place) await this.options.files.close(place.descriptor)
  }

  private limitOf(place: Place, now: LogEnd): number {
    return place.end ?? (now.segment === place.header.segment ? now.byte : place.frames.position)
  }

  /** The chunk of the frame that was just read. `other`: not this reader's; `stale`: sound, but not the frame that belongs here. */
  private take(place: Place): Chunk | 'other' | 'stale' {
    const { view } = place.frames
    const { topic } = this.options
    if (view.commit !== this.commit || this.isStale) return this.becomeStale()
    if (view.last) this.commit++
    if (view.topic !== this.topicNumber) return 'other'
    const { partition, offset } = view
    if (offset !== this.expected[partition]) return this.becomeStale()
    this.expected[partition] = offset + 1
    if (offset < this.wanted[partition]!) return 'other'
    return { topic, partition, offset, count: view.count, receivedAt: view.receivedAt, rows: place.frames.rows() }
  }

  private becomeStale(): 'stale' {
    this.isStale = true
    return 'stale'
  }

  /** Finds where to begin. */
  private async begin(now: LogEnd): Promise<void> {
    const { from, topic } = this.options
    if ('commit' in from) {
      const offsets = this.offsetsOf(from.marks.offsets, from.partitions)
      this.wanted = offsets
      await this.enter(from.segment, { byte: from.byte, commit: from.commit + 1, offsets })
      return
    }
    const segments = await listSegmentsPatiently(this.options.files, this.options.directory)
    const oldest = segments[0]
    if (!oldest) throw new OffsetOutOfRangeError('the log has no segments')
    const first = this.offsetsOf(oldest.header.base.offsets, now.partitions)
    const last = this.offsetsOf(now.marks.offsets, now.partitions)
    this.wanted = first.map((offset, partition) => from.get(partition) ?? offset)
    this.wanted.forEach((offset, partition) => {
      if (offset >= first[partition]! && offset <= last[partition]!) return
      throw new OffsetOutOfRangeError(
        `${topic}, partition ${partition}: offset ${offset} is not in the log, which holds ${first[partition]} to ${last[partition]}`,
      )
    })
    if (this.wanted.every((offset, partition) => offset === last[partition])) {
      await this.enter(now.segment, { byte: now.byte, commit: now.commit + 1, offsets: last })
      return
    }
    const start = segments.findLast(({ header }) =>
      this.offsetsOf(header.base.offsets, now.partitions).every(
        (offset, partition) => offset <= this.wanted[partition]!,
      ),
    )
    await this.enter(start!.header.segment)
  }

  private offsetsOf(all: Float64Array, partitions: number): number[] {
    return [...all.subarray(this.topicNumber * partitions, (this.topicNumber + 1) * partitions)]
  }

  private async enter(
    segment: number,
    at?: { readonly byte: number; readonly commit: number; readonly offsets: readonly number[] },
  ): Promise<void> {
    const { files, directory, end } = this.options
    await this.close()
    const file = path.join(directory, segmentFileName(segment))
    let descriptor: number
    try {
      descriptor = await files.open(file, 'r')
    } catch (error) {
      throw isMissing(error) ? this.outOfRange(segment) : error
    }
    const bytes = Buffer.allocUnsafeSlow(segmentHeaderBytes)
    const got = await readAll(files, descriptor, bytes, segmentHeaderBytes, 0)
    const header = got === segmentHeaderBytes ? decodeSegmentHeader(bytes) : undefined
    if (!header || header.segment !== segment) {
      await files.close(descriptor)
      const named = await readSegmentHeader(files, file)
      if (named === 'missing' || (named && named.segment !== segment)) throw this.outOfRange(segment)
      throw damaged(file, 0, 'has a header that is not what was written')
    }
    this.commit = at?.commit ?? header.firstCommit
    this.expected = [...(at?.offsets ?? this.offsetsOf(header.base.offsets, header.partitions))]
    // The same log: another one may have been begun in its place while this reader was on.
    if (header.logId !== end.current?.logId) {
      await files.close(descriptor)
      throw new OffsetOutOfRangeError(`the log in ${directory} is not the one that this reader began with`)
    }
    const recent = { bytes: this.options.recent, segment }
    const frames = new FrameReader(files, descriptor, header.logId, at?.byte ?? segmentHeaderBytes, recent)
    this.place = { header, file, descriptor, frames, end: undefined }
  }

  private async headerOf(segment: number): Promise<SegmentHeader> {
    const file = path.join(this.options.directory, segmentFileName(segment))
    const header = await readSegmentHeader(this.options.files, file)
    if (header === 'missing') throw this.outOfRange(segment)
    if (!header) throw damaged(file, 0, 'has a header that is not what was written')
    return header
  }

  /** Bytes below the durable end that are not what belongs there: the file was used again behind this reader's back, or it is damaged. */
  private async refuse(place: Place, byte: number): Promise<never> {
    const header = await readSegmentHeader(this.options.files, place.file)
    if (header === 'missing' || (header && header.segment !== place.header.segment))
      throw this.outOfRange(place.header.segment)
    throw damaged(place.file, byte, 'is not what was written')
  }

  private outOfRange(segment: number): OffsetOutOfRangeError {
    const at = this.expected.map((offset, partition) => `${partition}: ${offset}`).join(', ')
    return new OffsetOutOfRangeError(
      `retention has removed segment ${segment} of the log before ${this.options.topic} was read from there (next offsets by partition: ${at || 'none read yet'})`,
    )
  }
}
