// A disk for tests, in memory: knows what was synced and what was not, so that a crash can lose any of the rest, page by page, and faults can be
// put in anywhere. Stands in for the file system behind `LogFiles`.

import * as path from 'node:path'
import type { LogFiles } from './log-files.ts'

const pageBytes = 512

class DiskFile {
  name = ''
  /** What reads see, and what is certain to be there after a crash. */
  cached: Buffer = Buffer.alloc(0)
  durable: Buffer = Buffer.alloc(0)
  readonly dirty = new Set<number>()
}

export type DiskOperation = keyof LogFiles
/** Called before each operation; throws to make it fail. A number bounds the bytes that a write takes. */
export type DiskFault = (operation: DiskOperation, file: string) => number | undefined

export class MemoryDisk {
  fault: DiskFault | undefined
  private names = new Map<string, DiskFile>()
  private durableNames = new Map<string, DiskFile>()
  private namesAfterEach: Map<string, DiskFile>[] = []
  private readonly open = new Map<number, DiskFile>()
  private descriptor = 100

  readonly files: { -readonly [Operation in keyof LogFiles]: LogFiles[Operation] } = {
    open: async (name, flags) => {
      this.fault?.('open', name)
      let file = this.names.get(name)
      if (!file) {
        if (flags !== 'w+') throw failure('ENOENT', name)
        file = new DiskFile()
        file.name = name
        this.name((names) => names.set(name, file!))
      } else if (flags === 'w+') {
        file.cached = Buffer.alloc(0)
        file.dirty.add(0)
      }
      this.open.set(++this.descriptor, file)
      return this.descriptor
    },
    close: async (descriptor) => {
      if (!this.open.delete(descriptor)) throw failure('EBADF', `${descriptor}`)
    },
    read: async (...place) => this.files.readNow(...place),
    readNow: (descriptor, buffer, at, length, position) => {
      const file = this.of(descriptor)
      this.fault?.('read', file.name)
      return file.cached.copy(buffer, at, position, position + length)
    },
    write: async (descriptor, buffer, at, length, position) => {
      const file = this.of(descriptor)
      const written = Math.min(length, this.fault?.('write', file.name) ?? length)
      if (file.cached.length < position + written) file.cached = extended(file.cached, position + written)
      file.cached.set(buffer.subarray(at, at + written), position)
      for (let page = Math.floor(position / pageBytes); page * pageBytes < position + written; page++)
        file.dirty.add(page)
      return written
    },
    openDurable: (name) => this.files.open(name, 'r+'),
    writeDurably: async (...place) => {
      const written = await this.files.write(...place)
      // A disk answers in a later turn of the event loop.
      await new Promise(setImmediate)
      await this.files.fdatasync(place[0])
      return written
    },
    fdatasync: async (descriptor) => this.sync('fdatasync', descriptor),
    fsync: async (descriptor) => this.sync('fsync', descriptor),
    truncate: async (descriptor, length) => {
      const file = this.of(descriptor)
      file.cached = extended(file.cached.subarray(0, length), length)
      for (let page = 0; page * pageBytes < length; page++) file.dirty.add(page)
    },
    size: async (descriptor) => this.of(descriptor).cached.length,
    rename: async (from, to) => {
      this.fault?.('rename', from)
      const file = this.names.get(from)
      if (!file) throw failure('ENOENT', from)
      this.name((names) => {
        names.delete(from)
        names.set(to, file)
      })
      file.name = to
    },
    unlink: async (name) => {
      if (!this.names.has(name)) throw failure('ENOENT', name)
      this.name((names) => names.delete(name))
    },
    syncDirectory: async (directory) => {
      this.fault?.('syncDirectory', directory)
      this.durableNames = new Map(this.names)
      this.namesAfterEach = []
    },
    makeDirectory: async () => {},
    list: async (directory) =>
      [...this.names.keys()].filter((name) => path.dirname(name) === directory).map((name) => path.basename(name)),
  }

  /** The power goes: of what was not synced each page may be old or new, and of the changes of names the later ones may be gone. */
  crash(random: () => number): MemoryDisk {
    const after = new MemoryDisk()
    const histories = [this.durableNames, ...this.namesAfterEach]
    const names = histories[Math.floor(random() * histories.length)]!
    const copies = new Map<DiskFile, DiskFile>()
    for (const [name, file] of names) {
      let copy = copies.get(file)
      if (!copy) {
        copy = new DiskFile()
        copy.name = name
        const isLonger = random() < 0.5
        copy.cached = extended(
          file.durable,
          isLonger ? Math.max(file.cached.length, file.durable.length) : file.durable.length,
        )
        for (const page of file.dirty) {
          if (random() < 0.5) file.cached.copy(copy.cached, page * pageBytes, page * pageBytes, (page + 1) * pageBytes)
        }
        copy.durable = Buffer.from(copy.cached)
        copies.set(file, copy)
      }
      after.names.set(name, copy)
    }
    after.durableNames = new Map(after.names)
    return after
  }

  /** The process is killed: everything that was written is still there. */
  copy(): MemoryDisk {
    const after = new MemoryDisk()
    for (const [name, file] of this.names) {
      const copy = new DiskFile()
      copy.name = name
      copy.cached = Buffer.from(file.cached)
      copy.durable = Buffer.from(file.cached)
      after.names.set(name, copy)
    }
    after.durableNames = new Map(after.names)
    return after
  }

  fileNames(): string[] {
    return [...this.names.keys()]
  }

  contents(name: string): Buffer {
    return this.names.get(name)!.cached
  }

  replace(name: string, bytes: Buffer): void {
    const file = new DiskFile()
    file.name = name
    file.cached = Buffer.from(bytes)
    file.durable = Buffer.from(bytes)
    this.names.set(name, file)
  }

  remove(name: string): void {
    this.names.delete(name)
  }

  private sync(operation: DiskOperation, descriptor: number): void {
    const file = this.of(descriptor)
    try {
      this.fault?.(operation, file.name)
    } catch (error) {
      // As Linux does it: what could not be written is forgotten, and the next sync says nothing of it.
      file.dirty.clear()
      throw error
    }
    if (file.durable.length !== file.cached.length) file.durable = Buffer.from(file.cached)
    else
      for (const page of file.dirty)
        file.cached.copy(file.durable, page * pageBytes, page * pageBytes, (page + 1) * pageBytes)
    file.dirty.clear()
  }

  private of(descriptor: number): DiskFile {
    const found = this.open.get(descriptor)
    if (!found) throw failure('EBADF', `${descriptor}`)
    return found
  }

  private name(change: (names: Map<string, DiskFile>) => void): void {
    change(this.names)
    this.namesAfterEach.push(new Map(this.names))
  }
}

export function failure(code: string, what: string): Error {
  return Object.assign(new Error(`${code}: ${what}`), { code })
}

function extended(bytes: Buffer, length: number): Buffer {
  const longer = Buffer.alloc(length)
  bytes.copy(longer)
  return longer
}
