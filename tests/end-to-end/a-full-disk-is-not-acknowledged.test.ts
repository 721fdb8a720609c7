// When the disk has no room left, nothing is acknowledged that could not be kept, operators are told, and once there is room again everything goes
// on by itself. Runs where a small file system of its own can be mounted, so that only this test's disk is full.
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { startTalker } from '../helpers/talker.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, startWeir } from '../helpers/weir-process.ts'

/** Room for the log's first segments and a little more. */
const diskMiB = 340

const disk = mkdtempSync(join(tmpdir(), 'weir-test-disk-'))
const isMounted = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${diskMiB}m`, 'tmpfs', disk]).status === 0

afterAll(async () => {
  if (isMounted) await waitFor(() => spawnSync('umount', [disk]).status === 0, { what: `${disk} to be let go` })
  rmdirSync(disk)
})

function fillDisk(file: string): void {
  const descriptor = openSync(file, 'w')
  const bytes = Buffer.alloc(64 * 1024)
  try {
    for (;;) writeSync(descriptor, bytes)
  } catch (error) {
    expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC')
  } finally {
    closeSync(descriptor)
  }
}

describeOnEmbedded(
  'a full disk is not acknowledged',
  'the disk is a broker’s, which acknowledges nothing that it can’t keep; one that stops is in waits-for-kafka',
  () => {
    it.skipIf(!isMounted)('and everything goes on when there is room again (needs the right to mount)', async () => {
      const weir = await startWeir({ data: join(disk, 'data'), env: { WEIR_LOG_QUOTA: '256MiB' } })
      const talker = startTalker(weir)
      const { publisher, acknowledged } = talker
      try {
        await waitFor(() => acknowledged.size > 10, { what: 'some load' })
        fillDisk(join(disk, 'filler'))
        // What is open already takes a little more; then it must end.
        await talker.untilRefused(60_000)
        await waitFor(
          async () => {
            const response = await fetch(`${weir.http}/readyz`)
            expect([response.status, await response.text()]).toEqual([503, expect.stringMatching(/disk .* full/)])
            return true
          },
          { withinMs: 60_000, what: '/readyz to say that the disk is full' },
        )
        const kept = acknowledged.size
        rmSync(join(disk, 'filler'))
        await waitFor(() => acknowledged.size > kept + 10, { what: 'acknowledgements to go on' })
        publisher.pause()
        await publisher.settled()
        expect(publisher.broken).toBeUndefined()
        await talker.expectAllInTable()
        await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, {
          what: '/readyz to be well again',
        })
      } finally {
        publisher.stop()
      }
      await weir.stop()
    })
  },
)
