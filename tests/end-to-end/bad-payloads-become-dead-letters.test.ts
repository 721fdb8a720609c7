// A payload that cannot be used is acknowledged and kept with its cause; the messages behind it flow on.
import { beforeAll, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

interface Letter {
  readonly reason: string
  readonly metric: string
  readonly origin: string
  readonly detail: string
  readonly payload: string
}

const tomorrowAndMore = Date.now() + 25 * 3_600_000
const wide = 'x'.repeat(1_025)
const deep = `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`

/** A payload, the reason for each dead letter that it leaves, and the readings that it leaves all the same. */
const cases: readonly (readonly [string, string | Buffer, readonly string[], Readonly<Record<string, number>>?])[] = [
  ['empty', '', ['empty-payload']],
  ['cut off', '{"ts": 1700000000000, "t": 1', ['malformed-payload']],
  ['no JSON', 'temperature=21.5', ['malformed-payload']],
  ['two documents', '{"t": 1}{"t": 2}', ['malformed-payload']],
  ['bytes that are no UTF-8', Buffer.from('7b2274223a22ff227d', 'hex'), ['malformed-payload']],
  ['a byte order mark', '\ufeff{"t": 1}', ['malformed-payload']],
  ['a bare number', '21.5', ['not-an-object']],
  ['null', 'null', ['not-an-object']],
  ['an array of numbers', '[1, 2]', ['not-an-object', 'not-an-object']],
  ['an array with one good element', '[{"t": 1}, "x"]', ['not-an-object'], { t: 1 }],
  ['nesting without an end', deep, ['nested-too-deep']],
  ['a time that is none', '{"ts": "yesterday", "t": 1}', ['invalid-timestamp']],
  ['a time before 1970', '{"ts": "1969-12-31T23:59:59Z", "t": 1}', ['observed-before-1970']],
  ['a negative time', '{"ts": -1, "t": 1}', ['observed-before-1970']],
  ['a time far ahead', `{"ts": ${tomorrowAndMore}, "t": 1}`, ['observed-in-future']],
  ['the year 9999', '{"ts": "9999-12-31T00:00:00Z", "t": 1}', ['observed-in-future']],
  ['a number beyond what a float holds', '{"t": 1e400, "u": 2}', ['invalid-value'], { u: 2 }],
  ['an array as a value', '{"t": [1, 2], "u": 2}', ['array-value'], { u: 2 }],
  ['text that is too long', `{"t": "${wide}", "u": 2}`, ['text-too-long'], { u: 2 }],
  ['an empty name', '{"": 1, "u": 2}', ['invalid-metric-name'], { u: 2 }],
  ['a name with a control character', '{"a\\u0007b": 1, "u": 2}', ['invalid-metric-name'], { u: 2 }],
  ['a name that is too long', `{"${'n'.repeat(129)}": 1, "u": 2}`, ['invalid-metric-name'], { u: 2 }],
  [
    'columns of different lengths',
    '{"ts": [1700000000000, 1700000001000], "values": {"t": [1], "u": [2, 3]}}',
    ['columns-differ-in-length'],
    { u: 3 },
  ],
]

describe('bad payloads become dead letters', () => {
  let weir: WeirProcess
  let device: RawMqtt
  beforeAll(async () => {
    weir = await startWeir()
    device = await RawMqtt.connected(weir.mqtt, 'sender')
  })

  /** Asked of the table: the bytes are wanted too. */
  const lettersOf = (name: string): Promise<Letter[]> =>
    queryStore<Letter>(
      weir.data,
      `SELECT reason, metric, origin, detail, base64Encode(payload) AS payload FROM weir.dead_letters FINAL WHERE device = '${name}'`,
    )

  it.each(cases.map(([name], i) => [name, i] as const))('%s', async (_, i) => {
    const [, payload, reasons, readings = {}] = cases[i]!
    const name = `bad-${i}`
    await device.publish(`devices/${name}/telemetry`, payload, 1)
    // The same device, right behind it.
    await device.publish(`devices/${name}/telemetry`, '{"after": 1}', 2)
    const letters = await waitFor(
      async () => {
        const found = await lettersOf(name)
        return found.length >= 1 && found
      },
      { what: `a dead letter of ${name}` },
    )
    expect(new Set(letters.map(({ reason }) => reason))).toEqual(new Set(reasons))
    for (const letter of letters) {
      expect(Buffer.from(letter.payload, 'base64')).toEqual(Buffer.from(payload as string))
      expect(letter.origin).toBe(`devices/${name}/telemetry`)
      expect(letter.detail).not.toBe('')
    }
    const expected = { ...readings, after: 1 }
    await waitFor(
      async () => {
        const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/latest?device=${name}`)
        expect(Object.fromEntries(items.map(({ metric, value }) => [metric, value]))).toEqual(expected)
        return true
      },
      { what: `what was usable of ${name}` },
    )
  })

  it('bytes that are not of the codec that the topic names', async () => {
    await device.publish('devices/bad-codec/telemetry/cbor', '{"t": 1}', 3)
    const letters = await waitFor(
      async () => {
        const found = await lettersOf('bad-codec')
        return found.length > 0 && found
      },
      { what: 'a dead letter' },
    )
    expect(letters.map(({ payload }) => Buffer.from(payload, 'base64').toString())).toEqual(['{"t": 1}'])
  })

  it('a payload that says nothing makes neither a reading nor a dead letter', async () => {
    await device.publish('devices/silent/telemetry', '{"t": null}', 4)
    await device.publish('devices/silent/telemetry', '{"u": 1}', 5)
    await waitFor(
      async () => {
        const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/latest?device=silent`)
        expect(items.map(({ metric }) => metric)).toEqual(['u'])
        return true
      },
      { what: 'the one reading' },
    )
    expect(await lettersOf('silent')).toEqual([])
  })

  it('they are listed, with their bytes, by the API', async () => {
    interface Page {
      readonly items: readonly { id: string; reason: string; device: string }[]
    }
    const { items } = await waitFor(
      async () => {
        const page = await ask<Page>(`${weir.http}/v1/dead-letters?device=bad-2`)
        return page.items.length > 0 && page
      },
      { what: 'a listed dead letter' },
    )
    expect(items).toMatchObject([{ device: 'bad-2', reason: 'malformed-payload' }])
    const letter = await ask<{ payload: string }>(`${weir.http}/v1/dead-letters/${items[0]!.id}`)
    expect(Buffer.from(letter.payload, 'base64').toString()).toBe('temperature=21.5')
  })
})
