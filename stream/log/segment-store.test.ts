import { expect, it } from 'vitest'
import { silentLogger } from '../../runtime/logger.ts'
import { MemoryDisk } from './memory-disk.ts'
import { createMarks } from './segment-header.ts'
import { SegmentStore } from './segment-store.ts'

it('takes the oldest segment once, whether it is wanted as a spare or too old, or both at one moment', async () => {
  const disk = new MemoryDisk()
  let now = 1_700_000_000_000_000
  const store = new SegmentStore(
    {
      files: disk.files,
      directory: '/log',
      logId: 1,
      partitions: 1,
      segmentBytes: 16_384,
      quotaBytes: 1e9,
      retentionMs: 1_000,
      groups: [],
      logger: silentLogger,
      clock: { nowMicros: () => now },
    },
    [],
  )
  for (let commit = 1; commit <= 4; commit++) await store.roll(4096, commit, createMarks(1))
  now += 3_600_000_000
  await Promise.all([store.prepare(), store.expire(), store.prepare(), store.expire()])
  // The newest stays, whatever its age.
  expect(disk.fileNames().sort()).toEqual(['/log/0000000000000004.seg', '/log/spare'])
  await store.close()
})
