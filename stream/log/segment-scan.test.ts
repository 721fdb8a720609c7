import { expect, it } from 'vitest'
import { silentLogger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from './embedded-log.ts'
import { MemoryDisk } from './memory-disk.ts'
import { encodeSegmentHeader } from './segment-header.ts'
import { listSegments } from './segment-scan.ts'
import { verifyLog } from './verify-log.ts'

const directory = '/log'

it('the oldest segment is used again in the moment in which its header is read: nobody takes that for damage', async () => {
  const disk = new MemoryDisk()
  const log = await openEmbeddedLog({
    directory,
    mode: 'append',
    partitions: 1,
    segmentBytes: 16_384,
    quotaBytes: 1e9,
    retentionMs: 1e12,
    groups: [],
    logger: silentLogger,
    clock: { nowMicros: () => 1_700_000_000_000_000 },
    files: disk.files,
  })
  for (let i = 0; i < 6; i++) await log.append('readings', 0, Buffer.alloc(7_000), 1, 1)
  const segments = await listSegments(disk.files, directory)
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
  expect((await verifyLog(directory, { files: disk.files })).problems).toEqual([])
  expect(disk.fault).toBeUndefined()
  await log.close()
})
