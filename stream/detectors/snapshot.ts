// What the detector knows, and the position in the log that it stands for, in one file: replaced as a whole, so that after a crash it is the old or
// the new one. Blocks are flat copies. The checksum covers everything; a snapshot that is not what was written is not used.
import { closeSync, fstatSync, fsyncSync, openSync, readSync, renameSync, rmSync, writevSync } from 'node:fs'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import type { LogPosition } from '../../domain/event-log.ts'
import type { ChunkPlace } from '../same-log.ts'
import type { ColdStates } from './cold-states.ts'
import type { Detector } from './detector.ts'
import type { SeriesStates } from './series-states.ts'

const snapshotVersion = 1
const headBytesMax = 1024 * 1024

export interface SnapshotParts {
  readonly file: string
  readonly detector: Detector
  readonly states: SeriesStates
  readonly cold: ColdStates
}

interface Head {
  readonly version: number
  readonly detector: string
  readonly blockWords: number
  readonly position: Readonly<Record<string, number>>
  readonly series: number
  readonly coldSeries: number
  /** Where it was moved: the log that its position is of. */
  readonly log?: string
  /** The last chunk before the position; not there in those of before it was kept, nor in one that was moved. */
  readonly last?: ChunkPlace | undefined
}

/** Resolved when it returns: on disk, under its name. */
export function writeSnapshot(
  { file, detector, states, cold }: SnapshotParts,
  position: LogPosition,
  last: ChunkPlace | undefined,
): void {
  cold.sync()
  const head: Head = {
    version: snapshotVersion,
    detector: `${detector.name}/${detector.version}`,
    blockWords: detector.blockWords,
    position: Object.fromEntries(position),
    series: states.count,
    coldSeries: cold.count,
    last,
  }
  const temporary = `${file}.new`
  const writer = new SnapshotWriter(temporary)
  try {
    const text = Buffer.from(JSON.stringify(head))
    writer.number(text.length)
    writer.bytes(text)
    // First, so that what is on disk is known when blocks come into memory, which may move others to disk.
    for (const [name, place] of cold.entries()) {
      const key = Buffer.from(name, 'latin1')
      writer.number(key.length)
      writer.bytes(key)
      writer.number(place)
    }
    for (let slot = 0; slot < states.count; slot++) {
      const key = states.key(slot)
      writer.number(key.length)
      writer.bytes(key)
      writer.bytes(states.block(slot))
    }
    writer.end()
  } finally {
    writer.close()
  }
  renameSync(temporary, file)
  syncDirectory(dirname(file))
  cold.snapshotIsDurable()
}

export type Restored =
  | { readonly kind: 'restored'; readonly position: LogPosition; readonly last: ChunkPlace | undefined }
  | { readonly kind: 'none' }
  /** It was made by another detector, with other settings, or is damaged: a sentence. */
  | { readonly kind: 'unusable'; readonly reason: string }

/** Fills `states` and `cold`, which are empty. */
export function readSnapshot({ file, detector, states, cold }: SnapshotParts): Restored {
  cold.restore([])
  let reader: SnapshotReader
  try {
    reader = new SnapshotReader(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { kind: 'none' }
    throw error
  }
  try {
    const head = readHead(reader)
    const own = `${detector.name}/${detector.version}`
    if (head.version !== snapshotVersion || head.detector !== own || head.blockWords !== detector.blockWords) {
      return { kind: 'unusable', reason: `it is of ${head.detector} with blocks of ${head.blockWords} words` }
    }
    const entries: [string, number][] = []
    for (let i = 0; i < head.coldSeries; i++) {
      const name = reader.bytes(reader.number(0xffff)).latin1Slice()
      entries.push([name, reader.number(0xffff_ffff)])
    }
    cold.restore(entries)
    for (let i = 0; i < head.series; i++) {
      states.nextTurn()
      const slot = states.restore(reader.bytes(reader.number(0xffff)))
      reader.into(states.block(slot))
    }
    return { kind: 'restored', position: positionOf(head.position), last: head.last }
  } catch (error) {
    if (!(error instanceof SnapshotError)) throw error
    return { kind: 'unusable', reason: error.message }
  } finally {
    reader.close()
  }
}

/** The position that a snapshot stands for, and the log that it is of where it was moved; undefined: there is none that is whole. */
export function readSnapshotPlace(
  file: string,
): { readonly position: LogPosition; readonly log: string | undefined } | undefined {
  let reader: SnapshotReader | undefined
  try {
    reader = new SnapshotReader(file)
    const { position, log } = readHead(reader)
    return { position: positionOf(position), log }
  } catch (error) {
    if (error instanceof SnapshotError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  } finally {
    reader?.close()
  }
}

/** The same snapshot as one of another log, in which `position` is the same place. Atomic. */
export function moveSnapshot(file: string, position: LogPosition, log: string): void {
  const reader = new SnapshotReader(file)
  const temporary = `${file}.new`
  try {
    const head: Head = { ...readHead(reader), position: Object.fromEntries(position), log, last: undefined }
    const writer = new SnapshotWriter(temporary)
    try {
      const text = Buffer.from(JSON.stringify(head))
      writer.number(text.length)
      writer.bytes(text)
      for (let rest = reader.some(); rest.length > 0; rest = reader.some()) writer.bytes(rest)
      writer.end()
    } finally {
      writer.close()
    }
  } finally {
    reader.close()
  }
  renameSync(temporary, file)
  syncDirectory(dirname(file))
}

/** Throws a SnapshotError for what is not as it was written. */
function readHead(reader: SnapshotReader): Head {
  // Before anything is believed.
  reader.verify()
  return JSON.parse(reader.bytes(reader.number(headBytesMax)).toString()) as Head
}

function positionOf(position: Head['position']): LogPosition {
  return new Map(Object.entries(position).map(([partition, offset]) => [Number(partition), offset] as const))
}

class SnapshotError extends Error {}

const piecesMax = 256

class SnapshotWriter {
  private readonly descriptor: number
  private pieces: Uint8Array[] = []
  private sum = 0

  constructor(file: string) {
    rmSync(file, { force: true })
    this.descriptor = openSync(file, 'wx', 0o600)
  }

  number(value: number): void {
    const bytes = Buffer.allocUnsafe(4)
    bytes.writeUInt32LE(value)
    this.bytes(bytes)
  }

  bytes(bytes: Uint8Array): void {
    this.sum = crc32(bytes, this.sum)
    this.pieces.push(bytes)
    if (this.pieces.length >= piecesMax) this.flush()
  }

  end(): void {
    const bytes = Buffer.allocUnsafe(4)
    bytes.writeUInt32LE(this.sum)
    this.pieces.push(bytes)
    this.flush()
    fsyncSync(this.descriptor)
  }

  close(): void {
    closeSync(this.descriptor)
  }

  private flush(): void {
    const length = this.pieces.reduce((sum, piece) => sum + piece.length, 0)
    let done = writevSync(this.descriptor, this.pieces)
    if (done < length) {
      const rest = Buffer.concat(this.pieces)
      while (done < length) done += writevSync(this.descriptor, [rest.subarray(done)])
    }
    this.pieces = []
  }
}

class SnapshotReader {
  private readonly descriptor: number
  private readonly length: number
  private readonly buffer = Buffer.allocUnsafe(1024 * 1024)
  private start = 0
  private end = 0
  private at = 0

  constructor(file: string) {
    this.descriptor = openSync(file, 'r')
    this.length = fstatSync(this.descriptor).size - 4
  }

  verify(): void {
    if (this.length < 4) throw new SnapshotError('it is cut short')
    let sum = 0
    for (let at = 0; at < this.length; ) {
      const got = readSync(this.descriptor, this.buffer, 0, Math.min(this.buffer.length, this.length - at), at)
      if (got === 0) throw new SnapshotError('it is cut short')
      sum = crc32(this.buffer.subarray(0, got), sum)
      at += got
    }
    const kept = Buffer.allocUnsafe(4)
    readSync(this.descriptor, kept, 0, 4, this.length)
    if (kept.readUInt32LE() !== sum) throw new SnapshotError('its checksum is not right')
  }

  number(max: number): number {
    const value = this.bytes(4).readUInt32LE()
    if (value > max) throw new SnapshotError(`${value} is not a length`)
    return value
  }

  bytes(count: number): Buffer {
    const bytes = Buffer.allocUnsafe(count)
    this.into(bytes)
    return bytes
  }

  /** What comes next, as much as is at hand; empty at the end. */
  some(): Buffer {
    if (this.start === this.end && this.at < this.length) this.load()
    const bytes = Buffer.from(this.buffer.subarray(this.start, this.end))
    this.start = this.end
    return bytes
  }

  into(target: Uint8Array): void {
    let done = 0
    while (done < target.length) {
      if (this.start === this.end) this.load()
      const some = Math.min(this.end - this.start, target.length - done)
      target.set(this.buffer.subarray(this.start, this.start + some), done)
      this.start += some
      done += some
    }
  }

  close(): void {
    closeSync(this.descriptor)
  }

  private load(): void {
    const wanted = Math.min(this.buffer.length, this.length - this.at)
    const got = wanted <= 0 ? 0 : readSync(this.descriptor, this.buffer, 0, wanted, this.at)
    if (got === 0) throw new SnapshotError('it is cut short')
    this.at += got
    this.start = 0
    this.end = got
  }
}

function syncDirectory(directory: string): void {
  const descriptor = openSync(directory, 'r')
  try {
    fsyncSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}
