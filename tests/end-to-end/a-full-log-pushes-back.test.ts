// The disk that the log may take is bounded. When the store is away for too long, devices are no longer acknowledged, and operators are told; when
// it is back, everything goes on by itself, and nothing that was acknowledged is missing.
import { expect, it } from 'vitest'
import { queryStore } from '../helpers/store.ts'
import { bytesAMessage, startTalker } from '../helpers/talker.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000

interface Answer {
  readonly status: number
  readonly headers: Headers
  /** Of an answer that is one. */
  readonly problem: { readonly status?: number; readonly type?: string; readonly detail?: string }
}

/** One reading of a device of its own, over HTTP. */
async function post(weir: WeirProcess, ts: number): Promise<Answer> {
  const response = await fetch(new URL('/v1/telemetry/poster', weir.urls.gateway), {
    method: 'POST',
    body: JSON.stringify({ ts: firstAt + ts, posted: 1 }),
    headers: { 'content-type': 'application/json' },
    signal: AbortSignal.timeout(60_000),
  })
  const { status, headers } = response
  return { status, headers, problem: (await response.json()) as Answer['problem'] }
}

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
      // Over HTTP there is a word for it: each reading that is refused is to be sent again.
      for (const ts of [1, 2, 3]) {
        const { status, headers, problem } = await post(weir, ts)
        expect([status, problem.status, problem.type]).toEqual([503, 503, '/problems/log-refuses'])
        expect(headers.get('content-type')).toContain('application/problem+json')
        expect(Number(headers.get('retry-after'))).toBeGreaterThan(0)
        expect(problem.detail).toMatch(/quota.*Nothing of this request was kept/)
      }
      const kept = acknowledged.size
      expect(kept * bytesAMessage).toBeLessThan(quotaBytes)
      thaw()
      await waitFor(() => acknowledged.size > kept + 50, {
        withinMs: 90_000,
        what: 'acknowledgements to go on when the store is back',
      })
      await waitFor(async () => (await post(weir, 4)).status === 200, {
        withinMs: 60_000,
        what: 'the gateway to answer 200 again',
      })
      publisher.pause()
      await publisher.settled(60_000)
      expect(publisher.broken).toBeUndefined()
      await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, {
        withinMs: 60_000,
        what: '/readyz to be well again',
      })
      await talker.expectAllInTable()
      const sql = "SELECT toUnixTimestamp64Milli(observedAt) AS ts FROM weir.readings FINAL WHERE device = 'poster'"
      await waitFor(
        async () => {
          const rows = await queryStore<{ ts: number }>(weir.data, sql)
          expect(rows.map(({ ts }) => ts)).toEqual([firstAt + 4])
          return true
        },
        { what: 'what was answered with 200, and nothing that was refused, in the table' },
      )
    } finally {
      thaw()
      publisher.stop()
    }
    await weir.stop()
  })
})
