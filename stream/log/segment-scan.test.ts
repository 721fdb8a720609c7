import { expect, it } from 'vitest'
import { MemoryDisk } from './memory-disk.ts'
import { encodeSegmentHeader } from './segment-header.ts'
import { listSegments } from './segment-scan.ts'
import { openTestLog, testLogDirectory } from './test-log.ts'
import { verifyLog } from './verify-log.ts'

it('the oldest segment is used again in the moment in which its header is read: nobody takes that for damage', async () => {
  const disk = new MemoryDisk()
  const log = await openTestLog(disk, { partitions: 1 })
  for (let i = 0; i < 6; i++) await log.append('readings', 0, Buffer.alloc(7_000), 1, 1)
  const segments = await listSegments(disk.files, testLogDirectory)
  expect(segments.length).toBeGreaterThan(3)
  /** As the appender does it: another name, and then another header. */
  const recycle = (place: number): void => {
    const { file, header } = segments[place]!
    let isOpen = false
    disk.fault = (operation, name) => {
      if (name !== file) return undefined
      if (operation === 'open') isOpen = true
      else if (operation === 'read' && isOpen) {
        disk.fault = undefined
        encodeSegmentHeader({ ...header, segment: 99 }).copy(disk.contents(file))
        disk.remove(file)
      }
      return undefined
    }
  }
  recycle(0)
  expect((await log.beginning('readings')).get(0)).toBe(segments[1]!.header.base.offsets[0])
  expect(disk.fault).toBeUndefined()
  recycle(1)
  expect((await verifyLog(testLogDirectory, { files: disk.files })).problems).toEqual([])
  expect(disk.fault).toBeUndefined()
  await log.close()
})
