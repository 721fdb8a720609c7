// The disk that the log may take is bounded. When the store is away for too long, devices are no longer acknowledged, and operators are told; when
// it is back, everything goes on by itself, and nothing that was acknowledged is missing.
import { expect, it } from 'vitest'
import { bytesAMessage, startTalker } from '../helpers/talker.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, startWeir } from '../helpers/weir-process.ts'

/** The least that the configuration allows. */
const quotaBytes = 256 * 1024 ** 2

describeOnEmbedded('a full log pushes back', 'a broker has no quota that refuses appends', () => {
  it('and goes on by itself', async () => {
    const weir = await startWeir({ env: { WEIR_LOG_QUOTA: String(quotaBytes), WEIR_HUNG_TIMEOUT: '1h' } })
    const thaw = weir.freeze('clickhouse')
    const talker = startTalker(weir)
    const { publisher, acknowledged } = talker
    try {
      await waitFor(() => acknowledged.size * bytesAMessage > quotaBytes / 4, {
        withinMs: 60_000,
        what: 'a good part of the log to be filled',
      })
      // Full when nothing more is acknowledged.
      await talker.untilRefused(120_000)
      await waitFor(
        async () => {
          const response = await fetch(`${weir.http}/readyz`)
          const { parts } = (await response.json()) as { parts: Record<string, { detail?: string }> }
          expect([response.status, parts.log]).toEqual([503, expect.anything()])
          expect(parts.log!.detail).toMatch(/quota|full/i)
          return true
        },
        { withinMs: 60_000, what: '/readyz to say that the log is full' },
      )
      const kept = acknowledged.size
      expect(kept * bytesAMessage).toBeLessThan(quotaBytes)
      thaw()
      await waitFor(() => acknowledged.size > kept + 50, {
        withinMs: 90_000,
        what: 'acknowledgements to go on when the store is back',
      })
      publisher.pause()
      await publisher.settled(60_000)
      expect(publisher.broken).toBeUndefined()
      await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, {
        withinMs: 60_000,
        what: '/readyz to be well again',
      })
      await talker.expectAllInTable()
    } finally {
      thaw()
      publisher.stop()
    }
    await weir.stop()
  })
})
