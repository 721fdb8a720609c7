// The few file operations that the log is made of, on plain descriptors, and the seam where tests inject faults (a failing fdatasync, a full
// disk, short writes). Callbacks wrapped by hand: a FileHandle costs several times as much a call, and two of them are made each commit.

import * as fs from 'node:fs'
import * as path from 'node:path'

export interface LogFiles {
  open(file: string, flags: 'r' | 'r+' | 'w+'): Promise<number>
  close(descriptor: number): Promise<void>
  /** Returns the bytes read, fewer at the end of the file. */
  read(descriptor: number, buffer: Uint8Array, at: number, length: number, position: number): Promise<number>
  /** The same at once, for bytes that are in memory. */
  readNow(descriptor: number, buffer: Uint8Array, at: number, length: number, position: number): number
  /** Returns the bytes written, which may be fewer than asked for. */
  write(descriptor: number, buffer: Uint8Array, at: number, length: number, position: number): Promise<number>
  /** Opens a file that exists for reading and for `writeDurably`. */
  openDurable(file: string): Promise<number>
  /** As `write`, on a descriptor of `openDurable`: what was written is on disk when it returns. An error leaves open how much of it is. */
  writeDurably(descriptor: number, buffer: Uint8Array, at: number, length: number, position: number): Promise<number>
  fdatasync(descriptor: number): Promise<void>
  fsync(descriptor: number): Promise<void>
  truncate(descriptor: number, length: number): Promise<void>
  size(descriptor: number): Promise<number>
  rename(from: string, to: string): Promise<void>
  unlink(file: string): Promise<void>
  /** Makes names (created, renamed, removed) durable. */
  syncDirectory(directory: string): Promise<void>
  makeDirectory(directory: string): Promise<void>
  list(directory: string): Promise<string[]>
}

/**
 * One call of the system instead of two, each of which goes through libuv's thread pool and waits for a turn of the event loop. Only where it is known
 * to be as good as fdatasync: on Linux an O_DSYNC write is a write and the same sync of it, error included. (On macOS only fdatasync reaches the disk.)
 */
const durableFlag = process.platform === 'linux' ? fs.constants.O_DSYNC : 0

export const systemFiles: LogFiles = {
  open: (file, flags) => new Promise((resolve, reject) => fs.open(file, flags, 0o640, settle(resolve, reject))),
  close: (descriptor) => new Promise((resolve, reject) => fs.close(descriptor, settle(resolve, reject))),
  read: (descriptor, buffer, at, length, position) =>
    new Promise((resolve, reject) => fs.read(descriptor, buffer, at, length, position, settle(resolve, reject))),
  readNow: fs.readSync,
  write: (descriptor, buffer, at, length, position) =>
    new Promise((resolve, reject) => fs.write(descriptor, buffer, at, length, position, settle(resolve, reject))),
  openDurable: (file) =>
    new Promise((resolve, reject) => fs.open(file, fs.constants.O_RDWR | durableFlag, settle(resolve, reject))),
  writeDurably: async (...place) => {
    const written = await systemFiles.write(...place)
    if (durableFlag === 0) await systemFiles.fdatasync(place[0])
    return written
  },
  fdatasync: (descriptor) => new Promise((resolve, reject) => fs.fdatasync(descriptor, settle(resolve, reject))),
  fsync: (descriptor) => new Promise((resolve, reject) => fs.fsync(descriptor, settle(resolve, reject))),
  truncate: (descriptor, length) =>
    new Promise((resolve, reject) => fs.ftruncate(descriptor, length, settle(resolve, reject))),
  size: async (descriptor) =>
    (await new Promise<fs.Stats>((resolve, reject) => fs.fstat(descriptor, settle(resolve, reject)))).size,
  rename: fs.promises.rename,
  unlink: fs.promises.unlink,
  syncDirectory: async (directory) => {
    const descriptor = await systemFiles.open(directory, 'r')
    try {
      await systemFiles.fsync(descriptor)
    } finally {
      await systemFiles.close(descriptor)
    }
  },
  makeDirectory: async (directory) => {
    const made = await fs.promises.mkdir(directory, { recursive: true, mode: 0o750 })
    if (made) await systemFiles.syncDirectory(path.dirname(made))
  },
  list: (directory) => fs.promises.readdir(directory),
}

function settle<Value>(resolve: (value: Value) => void, reject: (error: Error) => void) {
  return (error: Error | null, value?: Value) => (error ? reject(error) : resolve(value as Value))
}

/** Writes all of it: a write may come back short, and says why only when it is tried again. */
export async function writeAll(
  files: LogFiles,
  descriptor: number,
  buffer: Uint8Array,
  length: number,
  position: number,
): Promise<void> {
  let done = 0
  while (done < length) {
    const written = await files.write(descriptor, buffer, done, length - done, position + done)
    if (written <= 0) throw Object.assign(new Error('the file took no bytes'), { code: 'EIO' })
    done += written
  }
}

/** Reads until `length` bytes or the end of the file; returns the bytes read. */
export async function readAll(
  files: LogFiles,
  descriptor: number,
  buffer: Uint8Array,
  length: number,
  position: number,
): Promise<number> {
  let done = 0
  while (done < length) {
    const got = await files.read(descriptor, buffer, done, length - done, position + done)
    if (got === 0) break
    done += got
  }
  return done
}

export function errorCode(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code
}

export const isMissing = (error: unknown): boolean => errorCode(error) === 'ENOENT'
export const isDiskFull = (error: unknown): boolean => ['ENOSPC', 'EDQUOT'].includes(errorCode(error) ?? '')
