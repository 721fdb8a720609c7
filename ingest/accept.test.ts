// The accepter over a log whose appends the test decides on: what is acknowledged when, what is tried again, what becomes a dead letter.

import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { type EventLog, type LogTopic, partitionOf } from '../domain/event-log.ts'
import { RowCursor } from '../domain/row-format.ts'
import { LimitError, LogFailedError, RetryableError } from '../runtime/errors.ts'
import { createInstruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { type Accepter, createAccepter } from './accept.ts'
import { payloadReadingsMax } from './payload-sink.ts'

const startedAt = 1_800_000_000_000_000

interface Append {
  readonly topic: LogTopic
  readonly partition: number
  readonly rows: Buffer
  readonly count: number
  readonly receivedAt: number
  resolve(): void
  reject(error: unknown): void
}

/** Appends wait for the test's word, or pass at once. */
class ScriptedLog implements Pick<EventLog, 'partitions' | 'append' | 'receivedAtMax' | 'onState'> {
  readonly partitions: number
  readonly appends: Append[] = []
  /** Asked for each append: undefined waits for the test. */
  answer: (append: Append, place: number) => 'durable' | Error | undefined = () => 'durable'
  receivedAtHighest = 0

  constructor(partitions = 4) {
    this.partitions = partitions
  }

  append(topic: LogTopic, partition: number, rows: Uint8Array, count: number, receivedAt: number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (topic === 'readings') expect(receivedAt).toBe(lastReceivedAt(rows))
      const place = this.appends.length
      const append = {
        topic,
        partition,
        rows: Buffer.from(rows),
        count,
        receivedAt,
        reject,
        // The rows belong to the log until now: they must still be what they were.
        resolve: () => {
          expect(Buffer.compare(Buffer.from(rows), append.rows)).toBe(0)
          resolve(place)
        },
      }
      this.appends.push(append)
      const answer = this.answer(append, place)
      if (answer === 'durable') append.resolve()
      else if (answer) reject(answer)
    })
  }

  onState(): void {}

  receivedAtMax(): number {
    return this.receivedAtHighest
  }
}

const open: Accepter[] = []

function start({ log = new ScriptedLog(), nowMicros = (): number => startedAt } = {}) {
  const said: string[] = []
  const logger: Logger = {
    error: (_, message) => said.push(`error ${message}`),
    warn: (_, message) => said.push(`warn ${message}`),
    info: (_, message) => said.push(`info ${message}`),
    debug: () => {},
    child: () => logger,
  }
  const instruments = createInstruments('test')
  const accepter = createAccepter({ log: log as unknown as EventLog, clock: { nowMicros }, logger, instruments })
  open.push(accepter)
  const route = accepter.route('default', 'd1', 'json', 'devices/d1/telemetry')
  const accept = (payload: string | Buffer, to = route): number => {
    const bytes = Buffer.concat([Buffer.from('before'), Buffer.from(payload as string), Buffer.from('after')])
    const cycle = accepter.accept(to, bytes, 6, bytes.length - 5)
    // The socket's buffer is used again at once.
    bytes.fill(0)
    return cycle
  }
  const settled = () => accepter.drain(AbortSignal.timeout(60_000))
  return { accepter, log, route, accept, said, settled, instruments }
}

afterEach(async () => {
  for (const accepter of open.splice(0)) await accepter.close()
})

function lastReceivedAt(rows: Uint8Array): number {
  const cursor = new RowCursor(rows)
  while (cursor.next());
  return cursor.receivedAt
}

function readingsOf(log: Pick<ScriptedLog, 'appends'>) {
  return log.appends
    .filter(({ topic }) => topic === 'readings')
    .flatMap(({ rows, partition }) => {
      const readings: {
        device: string
        metric: string
        observedAt: number
        receivedAt: number
        value: unknown
        partition: number
      }[] = []
      const cursor = new RowCursor(rows)
      while (cursor.next()) {
        readings.push({
          device: cursor.device(),
          metric: cursor.metric(),
          observedAt: cursor.observedAt,
          receivedAt: cursor.receivedAt,
          value: cursor.isText() ? cursor.text() : cursor.value,
          partition,
        })
      }
      return readings
    })
}

/** The texts of each dead letter, in order of the columns; the instant left out. */
function deadLettersOf(log: ScriptedLog) {
  return log.appends
    .filter(({ topic }) => topic === 'dead-letters')
    .flatMap(({ rows, count }) => {
      const letters = []
      let at = 0
      const text = (): Buffer => {
        let length = 0
        for (let shift = 0; ; shift += 7) {
          const byte = rows[at++]!
          length |= (byte & 127) << shift
          if (byte < 128) break
        }
        at += length
        return rows.subarray(at - length, at)
      }
      while (at < rows.length) {
        const [tenant, device, id, reason, detail, metric, codec, origin] = Array.from({ length: 8 }, () =>
          text().toString(),
        )
        const receivedAt = Number(rows.readBigInt64LE(at))
        at += 8
        letters.push({ tenant, device, id, reason, detail, metric, codec, origin, receivedAt, payload: text() })
      }
      expect(letters.length).toBe(count)
      return letters
    })
}

describe('what is accepted', () => {
  it('is durable only when the log says so, and what comes meanwhile goes into one next commit', async () => {
    const log = new ScriptedLog()
    log.answer = () => undefined
    const { accepter, accept, settled } = start({ log })
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
    const { accepter, log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
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
    const { accept, settled } = start({ log, nowMicros: () => now })
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
    const { log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
    const route = accepter.route('default', 'd1', 'ndjson', 'devices/d1/telemetry/ndjson')
    for (let i = 0; i < 2; i++) accept('{"a":1,"b":2}\n{"a":3}\n{"a":4,"b":5}\n', route)
    await settled()
    expect(readingsOf(log).map(({ observedAt }) => observedAt - startedAt)).toEqual([0, 0, 2, 3, 3, 5, 5, 7, 8, 8])
  })

  it('goes in chunks of bounded size, each appended after the one before', async () => {
    const log = new ScriptedLog(1)
    const { accepter, accept, settled } = start({ log })
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
    const { accepter, accept, said, settled } = start({ log })
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
    const { accept, settled } = start({ log })
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
    const { accepter, accept, said } = start({ log })
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
    const { accepter, accept } = start({ log })
    accept('{"a":1}')
    const deadline = new AbortController()
    const drained = accepter.drain(deadline.signal)
    await waitFor(() => log.appends.length === 1)
    deadline.abort()
    await drained
    expect(accepter.durableCycle).toBe(0)
  })
})

describe('what can not be used', () => {
  it('is one dead letter with its bytes, cause and origin when it is the whole payload', async () => {
    const { accepter, log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
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

  it('of an element with a bad instant is one dead letter, counted as the readings that it held', async () => {
    const { accepter, log, accept, settled } = start()
    accept('[{"ts":"soon","a":1,"b":{"c":2,"d":null}},{"a":5}]')
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([1, 2])
    await settled()
    expect(deadLettersOf(log).map(({ reason, metric }) => [reason, metric])).toEqual([['invalid-timestamp', '']])
    expect(accepter.totals()).toMatchObject({ received: 3, durable: 1, deadLettered: 2 })
  })

  it('beyond 16 is counted, and summed up in the last dead letter', async () => {
    const { accepter, log, accept, settled, instruments } = start()
    accept(JSON.stringify(Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`m${i}`, i < 50 ? [] : i]))))
    expect([accepter.lastAccepted, accepter.lastDeadLettered]).toEqual([50, 50])
    await settled()
    const letters = deadLettersOf(log)
    expect(letters.length).toBe(16)
    expect(letters.at(-1)!.detail).toContain('34 more')
    expect(accepter.totals()).toMatchObject({ received: 100, durable: 50, deadLettered: 50 })
    const counted = (await instruments.snapshot()).find(({ name }) => name === 'weir_ingest_dead_letters_total')
    expect(counted!.values.map(({ value, labels }) => [labels.reason, value])).toEqual([['array-value', 50]])
  })

  it('is not copied more often than 256 KiB hold', async () => {
    const { log, accept, settled } = start()
    accept(`${JSON.stringify({ a: [], b: [], c: [], d: [] }).slice(0, -1)}}${' '.repeat(100_000)}`)
    accept(`${JSON.stringify({ a: [], b: [], c: [], d: [] }).slice(0, -1)}}${' '.repeat(1_000_000)}`)
    await settled()
    const letters = deadLettersOf(log)
    expect(letters.map(({ payload }) => payload.length > 1_000_000)).toEqual([false, false, true])
    expect(letters[1]!.detail).toContain('2 more')
    expect(letters[2]!.detail).toContain('3 more')
  })

  it('has another id each time, also for one payload in two partitions at one moment', async () => {
    const { accepter, log, accept, settled } = start()
    for (let i = 0; i < 50; i++) accept('same', accepter.route('default', `d${i}`, 'json', 'o'))
    await settled()
    const ids = deadLettersOf(log).map(({ id }) => id)
    expect([ids.length, new Set(ids).size]).toEqual([50, 50])
    expect(new Set(log.appends.map(({ partition }) => partition)).size).toBeGreaterThan(1)
  })

  it('names a codec that is not there, and a payload without bytes', async () => {
    const { accepter, log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
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
    const { accepter, log, accept, settled } = start()
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

describe('a publish that is sent again', () => {
  function resendable(options: Parameters<typeof start>[0] = {}) {
    const started = start(options)
    const publish = (
      payload: string,
      packetId: number,
      dup: boolean,
      clientId = 'c1',
      route = started.route,
    ): number => {
      const bytes = Buffer.from(payload)
      return started.accepter.acceptResendable(route, bytes, 0, bytes.length, clientId, packetId, dup)
    }
    return { ...started, publish }
  }

  it('is not written again where the device has no clock, and waits for the commit of the first', async () => {
    const log = new ScriptedLog()
    log.answer = () => undefined
    const { accepter, publish, settled } = resendable({ log })
    expect(publish('{"a":1}', 7, false)).toBe(1)
    await waitFor(() => log.appends.length === 1)
    expect(publish('{"a":2}', 8, false)).toBe(2)
    expect([publish('{"a":1}', 7, true), accepter.lastAccepted]).toEqual([1, 0])
    expect([publish('{"a":2}', 8, true), publish('{"a":2}', 8, true)]).toEqual([2, 2])
    log.answer = () => 'durable'
    log.appends[0]!.resolve()
    await settled()
    expect(publish('{"a":1}', 7, true)).toBe(1)
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1, 2])
  })

  it('is another when its bytes, its packet id or its client differ, or when the flag is not set', async () => {
    const { log, publish, settled } = resendable()
    publish('{"a":1}', 7, false)
    publish('{"a":2}', 7, true)
    publish('{"a":1}', 8, true)
    publish('{"a":1}', 7, true, 'c2')
    publish('{"a":1}', 7, false)
    await settled()
    expect(readingsOf(log).length).toBe(5)
  })

  it('is another on another topic, though a gateway that speaks for many uses its packet ids again', async () => {
    const { accepter, log, publish, settled } = resendable()
    publish('{"door":1}', 1, false)
    await settled()
    // Its first sending was lost on the way; the second one is known.
    const other = accepter.route('default', 'd2', 'json', 'devices/d2/telemetry')
    for (let i = 0; i < 2; i++) publish('{"door":1}', 1, true, 'c1', other)
    await settled()
    expect(readingsOf(log).map(({ device }) => device)).toEqual(['d1', 'd2'])
  })

  it('is never one whose packet id was used again since: that one was acknowledged', async () => {
    const { log, publish, settled } = resendable()
    for (const value of [1, 2]) publish(`{"a":${value}}`, 1, false)
    // Like the first, and its first sending was lost on the way.
    publish('{"a":1}', 1, true)
    await settled()
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1, 2, 1])
  })

  it('is the last one of its kind, not an earlier one that is durable already', async () => {
    const { log, publish, settled } = resendable()
    expect(publish('{"a":1}', 1, false)).toBe(1)
    await settled()
    log.answer = () => undefined
    expect(publish('{"a":1}', 1, false)).toBe(2)
    expect(publish('{"a":1}', 1, true)).toBe(2)
  })

  it('is written again where the device has a clock: the table makes one of the two', async () => {
    const { log, publish, settled } = resendable()
    publish('{"ts":1700000000000,"a":1}', 7, false)
    publish('{"ts":1700000000000,"a":1}', 7, true)
    await settled()
    expect(readingsOf(log).length).toBe(2)
  })

  it('is one dead letter, not two', async () => {
    const { accepter, log, publish, settled } = resendable()
    publish('garbage', 7, false)
    publish('garbage', 7, true)
    await settled()
    expect(deadLettersOf(log).length).toBe(1)
    expect(accepter.totals().received).toBe(1)
  })
})

it('holds a bounded number of names of a device that never says the same twice', async () => {
  const { accepter, accept, settled, instruments } = start()
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
      const { accepter, accept, settled } = start({ log })
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
