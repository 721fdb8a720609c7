// When the disk has no room left, nothing is acknowledged that could not be kept, operators are told, and once there is room again everything goes
// on by itself. Runs where a small file system of its own can be mounted, so that only this test's disk is full.
import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmdirSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, startWeir } from '../helpers/weir-process.ts'

/** Room for the log's first segments and a little more. */
const diskMiB = 340
const firstAt = 1_700_000_000_000
const readingsAMessage = 200
const text = 'x'.repeat(1_000)
const quietMs = 1_500

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
    it.skipIf(!isMounted)(
      'and everything goes on when there is room again (needs the right to mount)',
      async () => {
        const weir = await startWeir({ data: join(disk, 'data'), env: { WEIR_LOG_QUOTA: '256MiB' } })
        const acknowledged = new Set<number>()
        const publisher = new RawPublisher({
          address: () => weir.mqtt,
          clientId: 'talker',
          window: 4,
          resend: true,
          message: (index) => ({
            topic: 'devices/talker/telemetry',
            payload: `[${Array.from({ length: readingsAMessage }, (_, i) => `{"ts":${firstAt + index * readingsAMessage + i},"note":"${text}"}`).join()}]`,
          }),
          onAcknowledged: (index) => acknowledged.add(index),
        })
        try {
          publisher.resume()
          await waitFor(() => acknowledged.size > 10, { what: 'some load' })
          fillDisk(join(disk, 'filler'))
          // What is open already takes a little more; then it must end.
          await waitFor(
            async () => {
              const before = acknowledged.size
              await pause(quietMs)
              return acknowledged.size === before
            },
            { withinMs: 60_000, what: 'the log to stop taking readings' },
          )
          const answer = await waitFor(
            async () => {
              const response = await fetch(`${weir.http}/readyz`)
              return response.status === 503 && (await response.text())
            },
            { what: '/readyz to answer 503' },
          )
          expect(answer).toMatch(/disk .* full/)
          const kept = acknowledged.size
          rmSync(join(disk, 'filler'))
          await waitFor(() => acknowledged.size > kept + 10, { withinMs: 30_000, what: 'acknowledgements to go on' })
          publisher.pause()
          await publisher.settled()
          expect(publisher.broken).toBeUndefined()
          const expected = acknowledged.size * readingsAMessage
          await waitFor(
            async () => {
              const rows = await queryStore(
                weir.data,
                'SELECT count() AS rows, uniqExact(observedAt) AS distinct FROM weir.readings FINAL',
              )
              expect(rows).toEqual([{ rows: expected, distinct: expected }])
              return true
            },
            { withinMs: 60_000, everyMs: 250, what: 'all acknowledged readings in the table' },
          )
          await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, {
            withinMs: 30_000,
            what: '/readyz to be well again',
          })
        } finally {
          publisher.stop()
        }
        await weir.stop()
      },
      240_000,
    )
  },
)
