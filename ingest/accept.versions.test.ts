// Which of two readings with one identity counts: the table keeps the one with the later receivedAt, so a correction must be stamped later than what
// it corrects, whatever the clock does, whoever was killed, and however late the log says how far it has come.
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { RetryableError } from '../runtime/errors.ts'
import { closeAccepters, readingsOf, ScriptedLog, startAccepter, startedAt } from './test-accepter.ts'

afterEach(closeAccepters)

/** As Kafka while it has not answered since the start: nothing is taken, and nobody knows what it holds. */
class AwayLog extends ScriptedLog {
  private readonly held: number
  private isAway = true

  constructor(held: number) {
    super(1)
    this.held = held
    this.turn({ state: 'stalled', reason: 'away' })
    this.answer = () => (this.isAway ? new RetryableError('away') : 'durable')
  }

  comeBack(): void {
    this.isAway = false
    this.receivedAtHighest = this.held
    this.turn({ state: 'ok' })
  }
}

describe('a correction', () => {
  it('counts also when it was taken in before the log was back, by a clock that had been set back', async () => {
    const log = new AwayLog(startedAt)
    let now = startedAt - 3_600_000_000
    const { accept, accepter, settled } = startAccepter({ log, nowMicros: () => now })
    accept('{"ts":1700000000000,"values":{"a":2,"s":"text"}}')
    await expect.poll(() => log.appends.length, { timeout: 20_000 }).toBeGreaterThan(1)
    // What gathers behind it.
    now += 1_000
    accept('{"ts":1700000000000,"values":{"a":3}}')
    const tried = log.appends.length
    log.comeBack()
    accept('{"ts":1700000000000,"values":{"a":4}}')
    await settled()
    const read = readingsOf({ appends: log.appends.slice(tried) })
    expect(read.map(({ value }) => value)).toEqual([2, 'text', 3, 4])
    expect(read.map(({ observedAt }) => observedAt)).toEqual(Array(4).fill(1_700_000_000_000_000))
    let last = startedAt
    for (const { receivedAt } of read) {
      expect(receivedAt).toBeGreaterThan(last)
      last = receivedAt
    }
    expect(accepter.totals().durable).toBe(4)
  })

  it('is never as old as what it corrects, over processes, clocks and logs that come late', async () => {
    const process = fc.record({
      startsAway: fc.boolean(),
      steps: fc.array(
        fc.oneof(
          fc.record({ what: fc.constant('clock' as const), micros: fc.integer({ min: -5_000_000, max: 5_000_000 }) }),
          fc.record({ what: fc.constant('reading' as const), micros: fc.constant(0) }),
          fc.record({ what: fc.constant('back' as const), micros: fc.constant(0) }),
        ),
        { maxLength: 12 },
      ),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(process, { minLength: 1, maxLength: 4 }), async (processes) => {
        let now = startedAt
        let highest = 0
        for (const { startsAway, steps } of processes) {
          const log = new AwayLog(highest)
          if (!startsAway) log.comeBack()
          const { accept, settled } = startAccepter({ log, nowMicros: () => now })
          let tried = startsAway ? -1 : 0
          let sent = 0
          const comeBack = (): void => {
            if (tried >= 0) return
            tried = log.appends.length
            log.comeBack()
          }
          for (const { what, micros } of steps) {
            now += micros
            if (what === 'back') comeBack()
            if (what === 'reading') accept(`{"ts":1700000000000,"values":{"a":${sent++}}}`)
            // The next turn asks the clock again.
            await new Promise((resolve) => setImmediate(resolve))
          }
          comeBack()
          await settled()
          const read = readingsOf({ appends: log.appends.slice(tried) })
          expect(read.map(({ value }) => value)).toEqual(Array.from({ length: sent }, (_, i) => i))
          for (const { receivedAt } of read) {
            expect(receivedAt).toBeGreaterThan(highest)
            highest = receivedAt
          }
          await closeAccepters()
        }
      }),
      { numRuns: 60 },
    )
  })
})
