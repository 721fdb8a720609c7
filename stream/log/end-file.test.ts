import { expect, it } from 'vitest'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { decodeEnd, EndFile, endBytesMax, type LogEnd } from './end-file.ts'
import { failure, MemoryDisk } from './memory-disk.ts'
import { createMarks } from './segment-header.ts'

const endAt = (commit: number): LogEnd => ({
  logId: 1,
  partitions: 1,
  commit,
  segment: 1,
  byte: 4096,
  marks: createMarks(1),
})

it('a close waits for the notice under way and for the one that follows it: the newest is told', async () => {
  const disk = new MemoryDisk()
  const warnings: string[] = []
  const logger: Logger = {
    error: () => {},
    warn: (_, message) => warnings.push(message),
    info: () => {},
    debug: () => {},
    child: () => logger,
  }
  const { write } = disk.files
  // A disk slow enough that what was published meanwhile goes out at once.
  disk.files.write = async (...place) => {
    await new Promise((resolve) => setTimeout(resolve, 20))
    return write(...place)
  }
  const file = await EndFile.open(disk.files, '/log', logger)
  file.publish(endAt(1))
  file.publish(endAt(2))
  await file.close()
  const bytes = Buffer.alloc(endBytesMax)
  const length = disk.contents('/log/end').copy(bytes)
  expect(decodeEnd(bytes, length)?.commit).toBe(2)
  expect(warnings).toEqual([])
})

it('a notice that could not be written is written by itself, also when no other commit comes', async () => {
  const disk = new MemoryDisk()
  const file = await EndFile.open(disk.files, '/log', silentLogger)
  let failures = 0
  disk.fault = (operation) => {
    if (operation !== 'write' || failures >= 2) return undefined
    failures++
    throw failure('EIO', 'end')
  }
  file.publish(endAt(1))
  const told = () => {
    const bytes = Buffer.alloc(endBytesMax)
    return decodeEnd(bytes, disk.contents('/log/end').copy(bytes))?.commit
  }
  await expect.poll(told, { timeout: 20_000 }).toBe(1)
  await file.close()
})
