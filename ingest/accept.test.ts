// What is acknowledged when, what is tried again, what is counted: the accepter over a log whose appends the test decides on.
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { partitionOf } from '../domain/event-log.ts'
import { RowCursor } from '../domain/row-format.ts'
import { LimitError, LogFailedError, RetryableError } from '../runtime/errors.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { closeAccepters, readingsOf, ScriptedLog, startAccepter, startedAt } from './test-accepter.ts'

afterEach(closeAccepters)

describe('what is accepted', () => {
  it('is durable only when the log says so, and what comes meanwhile goes into one next commit', async () => {
    const log = new ScriptedLog()
    log.answer = () => undefined
    const { accepter, accept, settled } = startAccepter({ log })
    const durable: number[] = []
    accepter.onDurable((cycle) => durable.push(cycle, accepter.durableCycle))

    expect([accept('{"a":1}'), accept('{"a":2}')]).toEqual([1, 1])
    expect(log.appends).toEqual([])
    await waitFor(() => log.appends.length === 1)
    expect([accept('{"a":3}'), accept('{"a":4}'), accept('{"a":5}')]).toEqual([2, 2, 2])
    expect([accepter.durableCycle, accepter.totals().durable, accepter.totals().received]).toEqual([0, 0, 5])
    expect(accepter.pendingBytes).toBe(log.appends[0]!.rows.length + 3 * (log.appends[0]!.rows.length / 2))

    log.appends[0]!.resolve()
    await waitFor(() => log.appends.length === 2)
    expect(log.appends.map(({ count }) => count)).toEqual([2, 3])
    expect([accepter.durableCycle, accepter.totals().durable]).toEqual([1, 2])
    log.appends[1]!.resolve()
    await settled()
    expect(durable).toEqual([1, 1, 2, 2])
    expect(accepter.totals()).toEqual({ received: 5, durable: 5, deadLettered: 0, oldestPendingAt: 0 })
    expect(accepter.pendingBytes).toBe(0)
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1, 2, 3, 4, 5])
  })

  it('that came meanwhile is given to the log before anybody hears that the commit before it is durable', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    log.answer = () => undefined
    const heard: { durable: number; appends: number }[] = []
    accepter.onDurable((durable) => heard.push({ durable, appends: log.appends.length }))
    const first = accept('{"temperature":1}')
    await expect.poll(() => log.appends.length).toBe(1)
    const second = accept('{"temperature":2}')
    log.appends[0]!.resolve()
    await waitFor(() => heard.length === 1)
    log.appends[1]!.resolve()
    await settled()
    expect(heard).toEqual([
      { durable: first, appends: 2 },
      { durable: second, appends: 2 },
    ])
  })

  it('is one append a partition and commit, in the partition of its device', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    for (let round = 0; round < 2; round++) {
      for (let i = 0; i < 40; i++) accept(`{"a":${i}}`, accepter.route('default', `d${i}`, 'json', 'o'))
    }
    await settled()
    expect(log.appends.map(({ partition }) => partition).sort()).toEqual([0, 1, 2, 3])
    const readings = readingsOf(log)
    expect(readings.length).toBe(80)
    for (const { device, partition } of readings) expect(partition).toBe(partitionOf('default', device, 4))
    for (const { rows, count, receivedAt } of log.appends) {
      const cursor = new RowCursor(rows)
      for (let i = 0; i < count; i++) cursor.next()
      expect(cursor.receivedAt).toBe(receivedAt)
      expect(cursor.next()).toBe(false)
    }
  })

  it('is acknowledged when it says nothing', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    expect(accept('{"a":null}')).toBe(1)
    expect([accepter.lastAccepted, accepter.lastDeadLettered, accepter.lastDeadLetterId]).toEqual([0, 0, ''])
    await settled()
    expect(accepter.durableCycle).toBe(1)
    expect(log.appends).toEqual([])
  })

  it('gets a receivedAt above all before it: of the log, of its partition, whatever the clock does', async () => {
    const log = new ScriptedLog(1)
    log.receivedAtHighest = startedAt + 1_000_000
    let now = startedAt
    const { accept, settled } = startAccepter({ log, nowMicros: () => now })
    accept('{"a":1}')
    await settled()
    now = startedAt + 5_000_000
    accept('{"a":2,"b":3}')
    accept('{"a":4}')
    await settled()
    now = startedAt - 3_600_000_000
    accept('{"a":5}')
    await settled()
    expect(readingsOf(log).map(({ receivedAt }) => receivedAt - startedAt)).toEqual([
      1_000_001, 5_000_000, 5_000_001, 5_000_002, 5_000_003,
    ])
  })

  it('has one instant for the metrics of an element without a clock, and another for each element', async () => {
    const { log, accept, settled } = startAccepter()
    accept('[{"a":1,"b":{"c":true},"d":"x"},{"a":2,"b":3},{"ts":1700000000000,"a":3}]')
    accept('{"a":4,"d":5}')
    accept('{"a":6,"d":7}')
    await settled()
    expect(readingsOf(log).map(({ observedAt }) => observedAt)).toEqual([
      ...[startedAt, startedAt, startedAt],
      ...[startedAt + 3, startedAt + 3],
      1_700_000_000_000_000,
      ...[startedAt + 6, startedAt + 6],
      ...[startedAt + 8, startedAt + 8],
    ])
  })

  it('has another instant for each NDJSON line without a clock, whether its series are known or not', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    const route = accepter.route('default', 'd1', 'ndjson', 'devices/d1/telemetry/ndjson')
    for (let i = 0; i < 2; i++) accept('{"a":1,"b":2}\n{"a":3}\n{"a":4,"b":5}\n', route)
    await settled()
    expect(readingsOf(log).map(({ observedAt }) => observedAt - startedAt)).toEqual([0, 0, 2, 3, 3, 5, 5, 7, 8, 8])
  })

  it('goes in chunks of bounded size, each appended after the one before', async () => {
    const log = new ScriptedLog(1)
    const { accepter, accept, settled } = startAccepter({ log })
    const payload = JSON.stringify({
      ts: Array.from({ length: 20_000 }, (_, i) => 1_700_000_000_000 + i),
      values: { a: Array(20_000).fill(1) },
    })
    for (let i = 0; i < 8; i++) expect(accept(payload)).toBe(1)
    await settled()
    expect(accepter.durableCycle).toBe(1)
    expect(log.appends.length).toBeGreaterThan(1)
    for (const { rows } of log.appends) expect(rows.length).toBeLessThan(4 * 1024 * 1024)
    const receivedAts = readingsOf(log).map(({ receivedAt }) => receivedAt)
    expect(receivedAts).toEqual(Array.from({ length: 160_000 }, (_, i) => startedAt + i))
    expect(log.appends.map(({ receivedAt }) => receivedAt)).toEqual(
      log.appends.map(({ receivedAt }) => receivedAt).sort((a, b) => a - b),
    )
  })
})

describe('a log that refuses', () => {
  it.each([
    ['its quota is reached', new LimitError('log-quota', 'the log is full')],
    ['it is away', new RetryableError('the log is away')],
  ])('is tried again with the very same rows when %s; what it took is not repeated', async (_, refusal) => {
    const log = new ScriptedLog(2)
    const { accepter, accept, said, settled } = startAccepter({ log })
    let isRefusing = true
    log.answer = ({ partition }) => (isRefusing && partition === 1 ? refusal : 'durable')
    const names = ['d1', 'd2', 'd3', 'd4', 'd5', 'd6']
    for (const name of names) accept('{"a":1}', accepter.route('default', name, 'json', 'o'))
    await waitFor(() => log.appends.length >= 4)
    expect(accept('{"a":2}')).toBe(2)
    expect([accepter.durableCycle, accepter.totals().durable]).toEqual([0, 0])
    expect(accepter.health()).toEqual({ state: 'degraded', detail: refusal.message })
    const [taken, refused, ...again] = log.appends
    expect([taken!.partition, refused!.partition]).toEqual([0, 1])
    for (const append of again) {
      expect(append.partition).toBe(1)
      expect(append.rows.equals(refused!.rows)).toBe(true)
    }
    isRefusing = false
    await settled()
    expect([accepter.durableCycle, accepter.totals().durable, accepter.health().state]).toEqual([2, 7, 'ok'])
    expect(said.map((line) => line.split(' ')[0])).toEqual(['warn', 'info'])
  })

  it('does not let a later chunk of a partition overtake the one that it refused', async () => {
    const log = new ScriptedLog(1)
    const { accept, settled } = startAccepter({ log })
    log.answer = (_, place) => (place === 1 ? new RetryableError('once') : 'durable')
    // Long enough for each payload to fill a chunk.
    const name = 'temperature-of-the-bearing'
    const payload = JSON.stringify({ ts: Array(40_000).fill(1_700_000_000), values: { [name]: Array(40_000).fill(1) } })
    for (let i = 0; i < 3; i++) accept(payload)
    await settled()
    expect(log.appends.map(({ receivedAt }) => receivedAt - startedAt)).toEqual([39_999, 79_999, 79_999, 119_999])
  })

  it('for good is said once, and nothing is acknowledged ever after', async () => {
    const log = new ScriptedLog(1)
    const { accepter, accept, said } = startAccepter({ log })
    log.answer = () => new LogFailedError('fsync failed')
    accept('{"a":1}')
    await waitFor(() => accepter.health().state === 'failed')
    log.answer = () => 'durable'
    expect(accept('{"a":2}')).toBe(2)
    await accepter.drain(AbortSignal.timeout(150))
    expect([accepter.durableCycle, log.appends.length, accepter.totals().durable]).toEqual([0, 1, 0])
    expect(accepter.totals().oldestPendingAt).toBe(startedAt)
    expect(said.length).toBe(1)
  })

  it('does not hold up a drain past its deadline', async () => {
    const log = new ScriptedLog(1)
    log.answer = () => undefined
    const { accepter, accept } = startAccepter({ log })
    accept('{"a":1}')
    const deadline = new AbortController()
    const drained = accepter.drain(deadline.signal)
    await waitFor(() => log.appends.length === 1)
    deadline.abort()
    await drained
    expect(accepter.durableCycle).toBe(0)
  })
})

it('holds a bounded number of names of a device that never says the same twice', async () => {
  const { accepter, accept, settled, instruments } = startAccepter()
  for (let i = 0; i < 20_000; i++) accept(`{"metric-${i}":1}`)
  await settled()
  const cached = (await instruments.snapshot()).find(({ name }) => name === 'weir_ingest_series_cache_bytes')
  expect(cached!.values[0]!.value).toBeGreaterThan(0)
  expect(cached!.values[0]!.value).toBeLessThan(512 * 1024)
  expect(accepter.totals().durable).toBe(20_000)
})

it('counts every reading once, whatever comes and whatever the log does', async () => {
  const payload = fc.oneof(
    fc.constantFrom(
      ...['{"a":1}', '{"ts":1700000000000,"values":{"a":1,"b":2}}', '{"a":[1],"b":1}', '[{"a":1},5]', 'x', '', '{}'],
    ),
    fc.json({ maxDepth: 4 }),
  )
  const given = fc.array(fc.tuple(payload, fc.nat(9), fc.boolean()), { maxLength: 60 })
  await fc.assert(
    fc.asyncProperty(given, fc.nat(2), async (payloads, failures) => {
      const log = new ScriptedLog(3)
      log.answer = (_, place) => (place < failures ? new RetryableError('away') : 'durable')
      const { accepter, accept, settled } = startAccepter({ log })
      let [accepted, deadLettered, cycle] = [0, 0, 0]
      for (const [text, device, isTurnEnd] of payloads) {
        const number = accept(text, accepter.route('default', `d${device}`, 'json', 'o'))
        expect(number).toBeGreaterThanOrEqual(cycle)
        cycle = number
        accepted += accepter.lastAccepted
        deadLettered += accepter.lastDeadLettered
        if (isTurnEnd) await new Promise((resolve) => setImmediate(resolve))
      }
      await settled()
      expect(accepter.durableCycle).toBe(cycle)
      const received = accepted + deadLettered
      expect(accepter.totals()).toEqual({ received, durable: accepted, deadLettered, oldestPendingAt: 0 })
      const kept = readingsOf({ appends: log.appends.slice(failures) })
      expect(kept.length).toBe(accepted)
      expect(new Set(kept.map(({ partition, receivedAt }) => `${partition} ${receivedAt}`)).size).toBe(accepted)
      await accepter.close()
    }),
    { numRuns: 60 },
  )
})
