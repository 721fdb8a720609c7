// Kafka's batches of records (format 2, KIP-98), byte for byte: written once into one buffer, and read with their checksum checked. kafkajs copies each
// byte about nine times on its way out, makes several objects a record on its way in, and looks at no checksum.
//
//   batch:  base offset 8 · length 4 · leader epoch 4 · magic 1 · crc 4 · attributes 2 · last offset delta 4 · times 16 · producer 8 + 2 ·
//           sequence 4 · count 4 · records (compressed as one)
//   record: length · attributes 1 · time delta · offset delta · key · value · headers     (lengths and deltas as zig-zag varints)

import * as zlib from 'node:zlib'
import { LogDamagedError } from '../../runtime/errors.ts'
import { crc32c } from './kafka-crc32c.ts'

export interface RecordToWrite {
  readonly value: Uint8Array
  /** Short ASCII text. */
  readonly headers: Readonly<Record<string, string>>
}

export interface BatchToWrite {
  readonly records: readonly RecordToWrite[]
  readonly producerId: bigint
  readonly producerEpoch: number
  readonly firstSequence: number
  readonly compression: KafkaCompression
  /** Milliseconds. */
  readonly at: number
}

export interface ReadRecord {
  readonly offset: number
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, Buffer | undefined>>
}

/** By Kafka's numbers. */
const codecNames = ['none', 'gzip', 'snappy', 'lz4', 'zstd'] as const
export type KafkaCompression = 'none' | 'gzip' | 'zstd'

type Codec = (bytes: Uint8Array) => Buffer
/** From Node 22.15 on. */
const { zstdCompressSync, zstdDecompressSync } = zlib as unknown as Partial<
  Record<'zstdCompressSync' | 'zstdDecompressSync', Codec>
>
export const hasZstd = zstdCompressSync !== undefined

/** The fastest level: on telemetry the slower ones take four times as long for a twentieth less. */
const compressors: Readonly<Record<Exclude<KafkaCompression, 'none'>, Codec | undefined>> = {
  gzip: (bytes) => zlib.gzipSync(bytes, { level: 1 }),
  zstd: zstdCompressSync,
}
const bytesMax = 256 * 1024 * 1024
const decompressors: Readonly<Record<string, Codec | undefined>> = {
  gzip: (bytes) => zlib.gunzipSync(bytes, { maxOutputLength: bytesMax }),
  zstd: zstdDecompressSync,
}

const headBytes = 61
/** Between the length's field and the records. */
const headBytesInLength = headBytes - 12
const attributesAt = 21
const varintBytesMax = 5
const codecMask = 7
const controlMask = 32

export function encodeBatch(batch: BatchToWrite): Buffer {
  const { records, compression, at } = batch
  const sizes = records.map(sizeOfRecord)
  let bytes = headBytes
  for (let i = 0; i < records.length; i++) bytes += varintBytesMax + sizes[i]! + sizeOfVarint(i)
  let out = Buffer.allocUnsafe(bytes)
  let end = headBytes
  for (let i = 0; i < records.length; i++) end = writeRecord(out, end, records[i]!, sizes[i]! + sizeOfVarint(i), i)
  if (compression !== 'none') {
    const packed = compressors[compression]!(out.subarray(headBytes, end))
    end = headBytes + packed.length
    // What does not become smaller (one short chunk) may need more room than there was.
    if (end > out.length) out = Buffer.concat([out.subarray(0, headBytes), packed])
    else out.set(packed, headBytes)
  }
  out.writeBigInt64BE(0n, 0)
  out.writeInt32BE(end - 12, 8)
  out.writeInt32BE(0, 12)
  out.writeInt8(2, 16)
  out.writeInt16BE(codecNames.indexOf(compression), attributesAt)
  out.writeInt32BE(records.length - 1, 23)
  out.writeBigInt64BE(BigInt(at), 27)
  out.writeBigInt64BE(BigInt(at), 35)
  out.writeBigInt64BE(batch.producerId, 43)
  out.writeInt16BE(batch.producerEpoch, 51)
  out.writeInt32BE(batch.firstSequence, 53)
  out.writeInt32BE(records.length, 57)
  out.writeUInt32BE(crc32c(out, attributesAt, end), 17)
  return out.subarray(0, end)
}

/** Without its length's field and its offset's delta. */
function sizeOfRecord({ value, headers }: RecordToWrite): number {
  // Attributes, time delta 0, no key (-1), number of headers.
  let size = 3 + sizeOfVarint(value.length) + value.length
  let count = 0
  for (const name in headers) {
    const { length } = headers[name]!
    size += sizeOfVarint(name.length) + name.length + sizeOfVarint(length) + length
    count++
  }
  return size + sizeOfVarint(count)
}

function writeRecord(
  out: Buffer,
  start: number,
  { value, headers }: RecordToWrite,
  size: number,
  delta: number,
): number {
  let at = writeVarint(out, start, size)
  out[at++] = 0
  out[at++] = 0
  at = writeVarint(out, at, delta)
  at = writeVarint(out, at, -1)
  at = writeVarint(out, at, value.length)
  out.set(value, at)
  at += value.length
  const names = Object.keys(headers)
  at = writeVarint(out, at, names.length)
  for (const name of names)
    for (const text of [name, headers[name]!]) {
      at = writeVarint(out, at, text.length)
      at += out.latin1Write(text, at)
    }
  return at
}

/**
 * The records of a partition in an answer, from `first` on. The last batch may be cut off: it is asked for again. Throws a LogDamagedError for bytes
 * that are not what was written, and for a codec that we lack: both wait for a person.
 */
export function decodeBatches(bytes: Buffer, first: number, place: string): ReadRecord[] {
  const found: ReadRecord[] = []
  let at = 0
  while (at + headBytes <= bytes.length) {
    const length = bytes.readInt32BE(at + 8)
    const end = at + 12 + length
    if (end > bytes.length) break
    const base = Number(bytes.readBigInt64BE(at))
    const damaged = (what: string): LogDamagedError =>
      new LogDamagedError(place, at, `The batch at offset ${base} of ${place} ${what}: it is not what was written`)
    if (length < headBytesInLength || bytes[at + 16] !== 2) throw damaged('is of no format that Weir writes')
    const last = base + bytes.readInt32BE(at + 23)
    const attributes = bytes.readInt16BE(at + attributesAt)
    if (crc32c(bytes, at + attributesAt, end) !== bytes.readUInt32BE(at + 17)) throw damaged('fails its checksum')
    if (last >= first && (attributes & controlMask) === 0) {
      const count = bytes.readInt32BE(at + 57)
      try {
        const records = unpacked(bytes.subarray(at + headBytes, end), codecNames[attributes & codecMask], base, place)
        readRecords(records, base, count, first, found)
      } catch (error) {
        throw error instanceof LogDamagedError ? error : damaged(`can't be read (${(error as Error).message})`)
      }
    }
    at = end
  }
  return found
}

function unpacked(bytes: Buffer, codec: string | undefined, base: number, place: string): Buffer {
  if (codec === 'none') return bytes
  const unpack = decompressors[codec ?? '']
  if (!unpack)
    throw new LogDamagedError(
      place,
      base,
      `The batch at offset ${base} of ${place} is compressed as ${codec ?? 'nothing known'}, which this Node can't read: set compression.type=producer on the topic`,
    )
  return unpack(bytes)
}

function readRecords(bytes: Buffer, base: number, count: number, first: number, found: ReadRecord[]): void {
  const cursor = new Varints(bytes)
  for (let i = 0; i < count; i++) {
    const size = cursor.next()
    const end = cursor.at + size
    if (size < 0 || end > bytes.length) throw new Error(`record ${i} reaches past the end`)
    cursor.at++
    cursor.skip()
    const offset = base + cursor.next()
    if (offset >= first) {
      cursor.bytes()
      const value = cursor.bytes()
      const headers: Record<string, Buffer | undefined> = {}
      for (let left = cursor.next(); left > 0; left--) {
        const name = cursor.bytes()!.latin1Slice()
        headers[name] = cursor.bytes() ?? undefined
      }
      found.push({ offset, value, headers })
    }
    cursor.at = end
  }
}

class Varints {
  at = 0
  private readonly from: Buffer

  constructor(from: Buffer) {
    this.from = from
  }

  /** 32 bits. */
  next(): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.from[this.at++]
      if (byte === undefined) break
      value |= (byte & 127) << shift
      if (byte < 128) return (value >>> 1) ^ -(value & 1)
    }
    throw new Error('a number has no end')
  }

  /** Of up to 64 bits. */
  skip(): void {
    while ((this.from[this.at++] ?? 0) >= 128);
  }

  bytes(): Buffer | null {
    const length = this.next()
    if (length < 0) return null
    const { at } = this
    this.at += length
    if (this.at > this.from.length) throw new Error('bytes reach past the end')
    return this.from.subarray(at, this.at)
  }
}

function sizeOfVarint(value: number): number {
  const zigZag = ((value << 1) ^ (value >> 31)) >>> 0
  return zigZag < 128 ? 1 : zigZag < 16_384 ? 2 : zigZag < 2_097_152 ? 3 : zigZag < 268_435_456 ? 4 : 5
}

function writeVarint(out: Buffer, start: number, value: number): number {
  let at = start
  let zigZag = ((value << 1) ^ (value >> 31)) >>> 0
  while (zigZag >= 128) {
    out[at++] = (zigZag & 127) | 128
    zigZag >>>= 7
  }
  out[at++] = zigZag
  return at
}
