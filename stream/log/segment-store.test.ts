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

it('waits for a group that yields while there is room, and goes on without it at the quota', async () => {
  const disk = new MemoryDisk()
  let now = 1_700_000_000_000_000
  const options = {
    files: disk.files,
    // No group has ever committed there.
    directory: '/log',
    logId: 1,
    partitions: 1,
    segmentBytes: 16_384,
    quotaBytes: 4 * 16_384,
    retentionMs: 1_000,
    logger: silentLogger,
    clock: { nowMicros: () => now },
  }
  const store = new SegmentStore({ ...options, groups: [], yieldingGroups: ['detector'] }, [])
  const segments = (): string[] => disk.fileNames().filter((name) => name.endsWith('.seg'))
  for (let commit = 1; commit <= 3; commit++) await store.roll(4096, commit, createMarks(1))
  now += 3_600_000_000
  await store.expire()
  expect(segments().length).toBe(3)
  for (let commit = 4; commit <= 9; commit++) await store.roll(4096, commit, createMarks(1))
  expect(segments().length).toBeLessThanOrEqual(4)
  await store.close()

  const held = new SegmentStore({ ...options, directory: '/held', groups: ['writer'] }, [])
  for (let commit = 1; commit <= 4; commit++) await held.roll(4096, commit, createMarks(1))
  await expect(held.roll(4096, 5, createMarks(1))).rejects.toThrow('the group writer has not stored')
  await held.close()
})
