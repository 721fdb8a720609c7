// The first 4 KiB of a segment file: which log and segment it is, where the one before it validly ends, and where each topic and partition
// stood when it began. Written and synced once, before the file gets its name; never changed while it has that name.

import { crc32 } from 'node:zlib'
import { formatVersion, getU64, logTopics, setU64 } from './frame-format.ts'

export const segmentHeaderBytes = 4096
/** 'WSEG' */
const segmentMagic = 0x47455357
const fixedBytes = 64
/** 3 topics, 64 partitions, 16 bytes each: just below 4 KiB. */
export const partitionsMax = 64

/** Where each topic and partition stands: index = topic × partitions + partition. */
export interface Marks {
  /** The next chunk's offset. */
  readonly offsets: Float64Array
  /** The highest receivedAt so far, or 0. */
  readonly receivedAt: Float64Array
}

export interface SegmentHeader {
  /** Random, the same in every file of one log; also the start value of every CRC, so that payload bytes can't pass for a frame. */
  readonly logId: number
  readonly segment: number
  readonly firstCommit: number
  /** Bytes of the segment before this one that hold commits; whatever follows there counts for nothing. 0 in the first segment. */
  readonly previousEnd: number
  /** Epoch microseconds. */
  readonly createdAt: number
  readonly partitions: number
  /** Length of this file; what was added to it later counts for nothing. */
  readonly bytes: number
  readonly base: Marks
}

export function createMarks(partitions: number): Marks {
  const size = logTopics.length * partitions
  return { offsets: new Float64Array(size), receivedAt: new Float64Array(size) }
}

export function copyMarks(marks: Marks): Marks {
  return { offsets: marks.offsets.slice(), receivedAt: marks.receivedAt.slice() }
}

export function encodeSegmentHeader(header: SegmentHeader): Buffer {
  const bytes = Buffer.alloc(segmentHeaderBytes)
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  words[0] = segmentMagic
  words[2] = formatVersion
  words[3] = header.logId | 0
  setU64(words, 4, header.segment)
  setU64(words, 6, header.firstCommit)
  setU64(words, 8, header.previousEnd)
  setU64(words, 10, header.createdAt)
  words[12] = header.partitions
  words[13] = logTopics.length
  setU64(words, 14, header.bytes)
  writeMarks(words, fixedBytes >> 2, header.base)
  words[1] = crc32(bytes.subarray(8), header.logId) | 0
  return bytes
}

/** Undefined: not a segment header, or not as it was written. */
export function decodeSegmentHeader(bytes: Buffer): SegmentHeader | undefined {
  if (bytes.length < segmentHeaderBytes) return undefined
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, segmentHeaderBytes >> 2)
  if (words[0] !== segmentMagic || words[2] !== formatVersion) return undefined
  const logId = words[3]! >>> 0
  if (crc32(bytes.subarray(8, segmentHeaderBytes), logId) !== words[1]! >>> 0) return undefined
  const partitions = words[12]!
  if (partitions < 1 || partitions > partitionsMax || words[13] !== logTopics.length) return undefined
  return {
    logId,
    segment: getU64(words, 4),
    firstCommit: getU64(words, 6),
    previousEnd: getU64(words, 8),
    createdAt: getU64(words, 10),
    partitions,
    bytes: getU64(words, 14),
    base: readMarks(words, fixedBytes >> 2, partitions),
  }
}

/** 16 bytes for each topic and partition: offset, receivedAt. */
export function writeMarks(words: Int32Array, at: number, marks: Marks): void {
  for (let i = 0; i < marks.offsets.length; i++) {
    setU64(words, at + 4 * i, marks.offsets[i]!)
    setU64(words, at + 4 * i + 2, marks.receivedAt[i]!)
  }
}

export function readMarks(words: Int32Array, at: number, partitions: number): Marks {
  const marks = createMarks(partitions)
  for (let i = 0; i < marks.offsets.length; i++) {
    marks.offsets[i] = getU64(words, at + 4 * i)
    marks.receivedAt[i] = getU64(words, at + 4 * i + 2)
  }
  return marks
}

const segmentNamePattern = /^(\d{16})\.seg$/

export function segmentFileName(segment: number): string {
  return `${String(segment).padStart(16, '0')}.seg`
}

/** Undefined: not the name of a segment. */
export function segmentOfFileName(name: string): number | undefined {
  const match = segmentNamePattern.exec(name)
  return match ? Number(match[1]) : undefined
}
