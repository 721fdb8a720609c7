// What can not be used becomes dead letters: which, how many, with what in them.
import { afterEach, describe, expect, it } from 'vitest'
import { partitionOf } from '../domain/event-log.ts'
import { rejectReasons } from '../domain/outcome.ts'
import { payloadReadingsMax } from './payload-sink.ts'
import { closeAccepters, deadLettersOf, readingsOf, startAccepter, startedAt } from './test-accepter.ts'

afterEach(closeAccepters)

describe('what can not be used', () => {
  it('is one dead letter with its bytes, cause and origin when it is the whole payload', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    const payload = Buffer.from([0x7b, 0xff, 0x00, 0x80])
    const cycle = accept(payload)
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([0, 1])
    const id = accepter.lastDeadLetterId
    await settled()
    expect(accepter.durableCycle).toBe(cycle)
    const [letter, ...others] = deadLettersOf(log)
    expect(others).toEqual([])
    expect(letter).toMatchObject({ id, tenant: 'default', device: 'd1', reason: 'malformed-payload', metric: '' })
    expect(letter).toMatchObject({ codec: 'json', origin: 'devices/d1/telemetry', receivedAt: startedAt })
    expect(letter!.payload.equals(payload)).toBe(true)
    expect(log.appends[0]).toMatchObject({
      topic: 'dead-letters',
      partition: partitionOf('default', 'd1', 4),
      receivedAt: startedAt,
    })
    expect(accepter.totals()).toEqual({ received: 1, durable: 0, deadLettered: 1, oldestPendingAt: 0 })
  })

  it('is one dead letter a metric, and the rest is kept', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    accept('{"a":1,"b":[1],"c":1e999,"d":2,"e":{"f":"x"}}')
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([3, 2])
    await settled()
    expect(readingsOf(log).map(({ metric }) => metric)).toEqual(['a', 'd', 'e.f'])
    const letters = deadLettersOf(log)
    expect(letters.map(({ reason, metric }) => [reason, metric])).toEqual([
      ['array-value', 'b'],
      ['invalid-value', 'c'],
    ])
    expect(letters[0]!.id).toBe(accepter.lastDeadLetterId)
    expect(letters[0]!.payload.equals(letters[1]!.payload)).toBe(true)
  })

  it('of a line that is no JSON is that line alone, though its beginning would have been a reading too many', async () => {
    const { accepter, accept, settled, route } = startAccepter()
    const lines = accepter.route('default', 'd1', 'ndjson', route.origin)
    // Names that are known are read from the bytes as they come, and taken back where it turns out that they are no JSON.
    accept('{"a":0,"b":0}', lines)
    const full = '{"a":1}\n'.repeat(payloadReadingsMax - 1)
    accept(`${full}{"a":1,"b":2,}`, lines)
    expect([accepter.lastAccepted, accepter.lastDeadLettered, accepter.lastReason]).toEqual([
      payloadReadingsMax - 1,
      1,
      'malformed-payload',
    ])
    accept(`${full}{"a":1,"b":2}`, lines)
    expect([accepter.lastAccepted, accepter.lastReason]).toEqual([0, 'too-many-readings'])
    await settled()
  })

  it('of an element with a bad instant is one dead letter, counted as the readings that it held', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    accept('[{"ts":"soon","a":1,"b":{"c":2,"d":null}},{"a":5}]')
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([1, 2])
    await settled()
    expect(deadLettersOf(log).map(({ reason, metric }) => [reason, metric])).toEqual([['invalid-timestamp', '']])
    expect(accepter.totals()).toMatchObject({ received: 3, durable: 1, deadLettered: 2 })
  })

  it('beyond 16 is counted, and summed up in the last dead letter', async () => {
    const { accepter, log, accept, settled, instruments } = startAccepter()
    accept(JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`m${i}`, i < 50 ? [] : i]))))
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([50, 50])
    await settled()
    const letters = deadLettersOf(log)
    expect(letters.length).toBe(16)
    expect(letters.at(-1)!.detail).toContain('34 more')
    expect(accepter.totals()).toMatchObject({ received: 100, durable: 50, deadLettered: 50 })
    const counted = (await instruments.snapshot()).find(({ name }) => name === 'weir_ingest_dead_letters_total')
    const values = counted!.values.map(({ value, labels }) => [labels.reason, value])
    // Every other reason is there too, at 0.
    expect(values).toEqual(rejectReasons.map((reason) => [reason, reason === 'array-value' ? 50 : 0]))
  })

  it('is not copied more often than 256 KiB hold', async () => {
    const { log, accept, settled } = startAccepter()
    accept(`${JSON.stringify({ a: [], b: [], c: [], d: [] }).slice(0, -1)}}${' '.repeat(100_000)}`)
    accept(`${JSON.stringify({ a: [], b: [], c: [], d: [] }).slice(0, -1)}}${' '.repeat(1_000_000)}`)
    await settled()
    const letters = deadLettersOf(log)
    expect(letters.map(({ payload }) => payload.length > 1_000_000)).toEqual([false, false, true])
    expect(letters[1]!.detail).toContain('2 more')
    expect(letters[2]!.detail).toContain('3 more')
  })

  it('has another id each time, also for one payload in two partitions at one moment', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    for (let i = 0; i < 50; i++) accept('same', accepter.route('default', `d${i}`, 'json', 'o'))
    await settled()
    const ids = deadLettersOf(log).map(({ id }) => id)
    expect([ids.length, new Set(ids).size]).toEqual([50, 50])
    expect(new Set(log.appends.map(({ partition }) => partition)).size).toBeGreaterThan(1)
  })

  it('names a codec that is not there, and a payload without bytes', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    accept('{"a":1}', accepter.route('default', 'd1', `x${'y'.repeat(1000)}`, 'o'))
    accept('', accepter.route('default', 'd1', 'ndjson', 'o'))
    accept('')
    await settled()
    const letters = deadLettersOf(log)
    expect(letters.map(({ reason, codec }) => [reason, codec!.length])).toEqual([
      ['unsupported-codec', 64],
      ['empty-payload', 6],
      ['empty-payload', 4],
    ])
  })

  it('for its number of readings is refused as a whole', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    accept('{"a":1}')
    const columns = (length: number) =>
      JSON.stringify({ ts: Array(length).fill(1_700_000_000), values: { a: Array(length).fill(1) } })
    accept(columns(payloadReadingsMax + 1))
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([0, 1])
    accept('{"a":2}')
    accept(columns(payloadReadingsMax))
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([payloadReadingsMax, 0])
    // Few readings of long names are too many bytes.
    accept(
      JSON.stringify({ ts: Array(30_000).fill(1_700_000_000), values: { ['é'.repeat(128)]: Array(30_000).fill(1) } }),
    )
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([0, 1])
    await settled()
    expect(deadLettersOf(log).map(({ reason }) => reason)).toEqual(['too-many-readings', 'too-many-readings'])
    const readings = readingsOf(log)
    expect(readings.length).toBe(2 + payloadReadingsMax)
    expect(readings.slice(0, 2).map(({ value, receivedAt }) => [value, receivedAt - startedAt])).toEqual([
      [1, 0],
      [2, 1],
    ])
  })

  it('is as deep as it likes without harm', async () => {
    const { accepter, log, accept, settled } = startAccepter()
    accept(`${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`)
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([0, 1])
    accept(`{"x":1,"y":${'['.repeat(10_000)}${']'.repeat(10_000)}}`)
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([1, 1])
    accept('['.repeat(100_000))
    accept(`{"a":"${'\\u0000'.repeat(100)}"}`)
    await settled()
    expect(deadLettersOf(log).map(({ reason }) => reason)).toEqual([
      'nested-too-deep',
      'array-value',
      'malformed-payload',
    ])
  })
})
