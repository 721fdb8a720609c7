// The disk that the log may take is bounded. When the store is away for too long, devices are no longer acknowledged, and operators are told; when
// it is back, everything goes on by itself, and nothing that was acknowledged is missing.
import { expect, it } from 'vitest'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, startWeir } from '../helpers/weir-process.ts'

/** The least that the configuration allows. */
const quotaBytes = 256 * 1024 ** 2
const firstAt = 1_700_000_000_000
const readingsAMessage = 200
const text = 'x'.repeat(1_000)
const quietMs = 1_500

describeOnEmbedded('a full log pushes back', 'a broker has no quota that refuses appends', () => {
  it('and goes on by itself', async () => {
    const weir = await startWeir({ env: { WEIR_LOG_QUOTA: String(quotaBytes), WEIR_HUNG_TIMEOUT: '1h' } })
    const thaw = weir.freeze('clickhouse')
    const acknowledged = new Set<number>()
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'talker',
      window: 4,
      resend: true,
      // 200 kB a message fills the log soon.
      message: (index) => ({
        topic: 'devices/talker/telemetry',
        payload: `[${Array.from({ length: readingsAMessage }, (_, i) => `{"ts":${firstAt + index * readingsAMessage + i},"note":"${text}"}`).join()}]`,
      }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    try {
      publisher.resume()
      await waitFor(() => acknowledged.size * readingsAMessage * text.length > quotaBytes / 4, {
        withinMs: 60_000,
        what: 'a good part of the log to be filled',
      })
      // Full when nothing more is acknowledged.
      await waitFor(
        async () => {
          const before = acknowledged.size
          await pause(quietMs)
          return acknowledged.size === before
        },
        { withinMs: 120_000, what: 'the log to be full' },
      )
      const kept = acknowledged.size
      expect(kept * readingsAMessage * text.length).toBeLessThan(quotaBytes)
      const answer = await waitFor(
        async () => {
          const response = await fetch(`${weir.http}/readyz`)
          return response.status === 503 && ((await response.json()) as { parts: Record<string, { detail?: string }> })
        },
        { what: '/readyz to answer 503' },
      )
      expect(JSON.stringify(answer.parts)).toMatch(/quota|full/i)
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
      await waitFor(
        async () => {
          const [row] = await queryStore<{ rows: number; distinct: number }>(
            weir.data,
            "SELECT count() AS rows, uniqExact(observedAt) AS distinct FROM weir.readings FINAL WHERE device = 'talker'",
          )
          expect(row).toEqual({
            rows: acknowledged.size * readingsAMessage,
            distinct: acknowledged.size * readingsAMessage,
          })
          return true
        },
        { withinMs: 60_000, everyMs: 250, what: 'all acknowledged readings in the table' },
      )
    } finally {
      thaw()
      publisher.stop()
    }
    await weir.stop()
  }, 420_000)
})
