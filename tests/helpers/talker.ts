// A device that says much: 200 kB a message, so that a small log or disk is soon full, and how a test sees that it is.
import { expect } from 'vitest'
import { RawPublisher } from './mqtt-raw.ts'
import type { WeirProcess } from './spawn-weir.ts'
import { queryStore } from './store.ts'
import { pause, waitFor } from './wait-for.ts'

const firstAt = 1_700_000_000_000
const readingsAMessage = 200
const text = 'x'.repeat(1_000)
const quietMs = 1_500

export const bytesAMessage = readingsAMessage * text.length

export interface Talker {
  readonly publisher: RawPublisher
  /** Numbers of messages. */
  readonly acknowledged: ReadonlySet<number>
  /** Until nothing more is acknowledged. */
  untilRefused(withinMs: number): Promise<void>
  /** Every acknowledged reading is in the table, once. */
  expectAllInTable(): Promise<void>
}

export function startTalker(weir: WeirProcess): Talker {
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
  publisher.resume()
  return {
    publisher,
    acknowledged,
    async untilRefused(withinMs) {
      await waitFor(
        async () => {
          const before = acknowledged.size
          await pause(quietMs)
          return acknowledged.size === before
        },
        { withinMs, what: 'the log to take no more' },
      )
    },
    async expectAllInTable() {
      const sql =
        "SELECT count() AS rows, uniqExact(observedAt) AS distinct FROM weir.readings FINAL WHERE device = 'talker'"
      await waitFor(
        async () => {
          const readings = acknowledged.size * readingsAMessage
          expect(await queryStore(weir.data, sql)).toEqual([{ rows: readings, distinct: readings }])
          return true
        },
        { withinMs: 120_000, everyMs: 250, what: 'all acknowledged readings in the table' },
      )
    },
  }
}
