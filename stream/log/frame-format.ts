// One chunk as bytes in a segment file: a header of 48 bytes, then the rows, then zeros up to a multiple of 8. docs/log-format.md has it byte
// for byte. Everything is little-endian and aligned, so that headers are written and read as 32-bit words.

import type { LogTopic } from '../../domain/event-log.ts'
import { checksum } from './checksum.ts'

export const formatVersion = 1
/** 'WCHK' */
export const frameMagic = 0x4b484357
export const frameHeaderBytes = 48
/** The CRC covers everything after itself. */
const frameCrcEnd = 8

/** The number on disk is the place in this list. */
export const logTopics: readonly LogTopic[] = ['readings', 'anomalies', 'dead-letters']

const lastOfCommit = 1
const twoTo32 = 0x1_0000_0000

/** Bytes that a chunk takes in a segment. */
export function frameBytes(rowsLength: number): number {
  return (frameHeaderBytes + rowsLength + 7) & ~7
}

/** A buffer seen as bytes and as words; `allocUnsafeSlow` begins at byte 0 of its own memory, so both are aligned. */
export class Block {
  readonly bytes: Buffer
  readonly words: Int32Array
  constructor(capacity: number) {
    this.bytes = Buffer.allocUnsafeSlow((capacity + 7) & ~7)
    this.words = new Int32Array(this.bytes.buffer, 0, this.bytes.length >> 2)
  }
}

/** Everything but the CRC and the flag, which `sealFrame` adds once it is known whether the frame is its commit's last. */
export function writeFrame(
  block: Block,
  at: number,
  topic: number,
  partition: number,
  rows: Uint8Array,
  count: number,
  receivedAt: number,
  offset: number,
  commit: number,
): number {
  const { bytes, words } = block
  const length = rows.length
  const end = at + ((frameHeaderBytes + length + 7) & ~7)
  const word = at >> 2
  // The padding is inside the last two words; what they hold of the rows is written over them.
  words[(end >> 2) - 1] = 0
  words[(end >> 2) - 2] = 0
  words[word] = frameMagic
  words[word + 2] = length
  words[word + 3] = count
  setU64(words, word + 4, offset)
  setU64(words, word + 6, commit)
  setU64(words, word + 8, receivedAt)
  words[word + 10] = partition | (topic << 16)
  words[word + 11] = formatVersion
  bytes.set(rows, at + frameHeaderBytes)
  return end
}

export function sealFrame(block: Block, at: number, end: number, seed: number, last: boolean): void {
  const word = at >> 2
  if (last) block.words[word + 10]! |= lastOfCommit << 24
  block.words[word + 1] = checksum(block.bytes, block.words, at + frameCrcEnd, end, seed) | 0
}

/** A frame that was read: its place in the block, and what the header says. One object is used again for every frame of a scan. */
export class FrameView {
  end = 0
  length = 0
  count = 0
  offset = 0
  commit = 0
  receivedAt = 0
  topic = 0
  partition = 0
  last = false

  /** `short`: more bytes than the block holds are needed (`end` says up to where). `bad`: not a frame, or not as it was written. */
  read(block: Block, at: number, available: number, seed: number): 'ok' | 'short' | 'bad' {
    const { words } = block
    if (at + frameHeaderBytes > available) {
      this.end = at + frameHeaderBytes
      return 'short'
    }
    const word = at >> 2
    if (words[word] !== frameMagic) return 'bad'
    this.length = words[word + 2]! >>> 0
    this.end = at + Math.ceil((frameHeaderBytes + this.length) / 8) * 8
    if (this.end > available) return 'short'
    if (checksum(block.bytes, words, at + frameCrcEnd, this.end, seed) !== words[word + 1]! >>> 0) return 'bad'
    this.count = words[word + 3]! >>> 0
    this.offset = getU64(words, word + 4)
    this.commit = getU64(words, word + 6)
    this.receivedAt = getU64(words, word + 8)
    const tag = words[word + 10]!
    this.partition = tag & 0xffff
    this.topic = (tag >>> 16) & 0xff
    this.last = ((tag >>> 24) & lastOfCommit) !== 0
    return words[word + 11] === formatVersion && this.topic < logTopics.length ? 'ok' : 'bad'
  }
}

/** u64 of a whole number below 2^53. */
export function setU64(words: Int32Array, word: number, value: number): void {
  const high = Math.floor(value / twoTo32)
  words[word] = (value - high * twoTo32) | 0
  words[word + 1] = high
}

export function getU64(words: Int32Array, word: number): number {
  return (words[word + 1]! >>> 0) * twoTo32 + (words[word]! >>> 0)
}
