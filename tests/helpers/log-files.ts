// Damage done to the files of a stopped log. docs/log-format.md has them byte for byte; what is needed here is where the last frame ends.
import { appendFileSync, closeSync, openSync, readdirSync, readFileSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const segmentHeaderBytes = 4096
const frameHeaderBytes = 48
const frameMagic = 'WCHK'

/** Full paths, oldest first. */
export function segmentFiles(data: string): string[] {
  const directory = join(data, 'log')
  return readdirSync(directory)
    .filter((name) => name.endsWith('.seg'))
    .sort()
    .map((name) => join(directory, name))
}

/** Where the last frame of a segment begins and ends. */
export function lastFrame(file: string): { start: number; end: number } {
  const bytes = readFileSync(file)
  const start = bytes.lastIndexOf(frameMagic, undefined, 'latin1')
  if (start < segmentHeaderBytes) return { start: segmentHeaderBytes, end: segmentHeaderBytes }
  const length = bytes.readUInt32LE(start + 8)
  return { start, end: start + Math.ceil((frameHeaderBytes + length) / 8) * 8 }
}

/** What a crash may leave behind the last durable frame. */
export function writeGarbageAtEnd(file: string, garbage: Uint8Array): void {
  const { end } = lastFrame(file)
  const descriptor = openSync(file, 'r+')
  writeSync(descriptor, garbage, 0, garbage.length, end)
  closeSync(descriptor)
}

export function appendGarbage(file: string, garbage: Uint8Array): void {
  appendFileSync(file, garbage)
}

export function flipBit(file: string, at: number, bit = 0): void {
  const descriptor = openSync(file, 'r+')
  const byte = Buffer.alloc(1)
  readSync(descriptor, byte, 0, 1, at)
  byte[0]! ^= 1 << bit
  writeSync(descriptor, byte, 0, 1, at)
  closeSync(descriptor)
}
