import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeRowPrefix, RowCursor, RowWriter } from './row-format.ts'

const name = fc.string({ minLength: 1, maxLength: 200, unit: 'binary' }).filter((text) => text.isWellFormed())
const micros = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER })
const row = fc.record({
  tenant: name,
  device: name,
  metric: name,
  observedAt: micros,
  receivedAt: micros,
  value: fc.oneof(
    fc.double({ noNaN: true }),
    fc.string({ maxLength: 1024, unit: 'binary' }).filter((text) => text.isWellFormed()),
  ),
})

type Row = typeof row extends fc.Arbitrary<infer Value> ? Value : never

function write(rows: readonly Row[]): RowWriter {
  const writer = new RowWriter(16)
  for (const { tenant, device, metric, observedAt, value, receivedAt } of rows) {
    const prefix = encodeRowPrefix(tenant, device, metric)
    if (typeof value === 'number') writer.number(prefix, observedAt, value, receivedAt)
    else writer.text(prefix, observedAt, Buffer.from(value), receivedAt)
  }
  return writer
}

describe('rows', () => {
  it('are these bytes (docs/row-format.md)', () => {
    const writer = new RowWriter()
    writer.number(
      encodeRowPrefix('default', 'boiler-1', 'temperature'),
      1_700_000_000_000_000,
      21.5,
      1_700_000_000_000_001,
    )
    writer.text(encodeRowPrefix('default', 'boiler-1', 'état'), 0, Buffer.from('aus'), 2 ** 32)
    expect(writer.rows().toString('hex')).toBe(
      [
        '0764656661756c74', // "default"
        '08626f696c65722d31', // "boiler-1"
        '0b74656d7065726174757265', // "temperature"
        '00401e18240a0600',
        '0000000000803540', // 21.5
        '00', // no text
        '01401e18240a0600',
        '0764656661756c74',
        '08626f696c65722d31',
        '05c3a9746174', // "état"
        '0000000000000000',
        '000000000000f87f', // NaN
        '03617573', // "aus"
        '0000000001000000',
      ].join(''),
    )
  })

  it('come back as they were written', () => {
    fc.assert(
      fc.property(fc.array(row, { maxLength: 20 }), (rows) => {
        const writer = write(rows)
        expect(writer.count).toBe(rows.length)
        const cursor = new RowCursor(writer.rows())
        for (const each of rows) {
          expect(cursor.next()).toBe(true)
          expect([cursor.tenant(), cursor.device(), cursor.metric()]).toEqual([each.tenant, each.device, each.metric])
          expect([cursor.observedAt, cursor.receivedAt]).toEqual([each.observedAt, each.receivedAt])
          expect(cursor.isText() ? cursor.text() : cursor.value).toBe(each.value)
          const prefix = encodeRowPrefix(each.tenant, each.device, each.metric)
          expect(writer.rows().subarray(cursor.prefixStart, cursor.prefixEnd).equals(prefix)).toBe(true)
        }
        expect(cursor.next()).toBe(false)
      }),
    )
  })

  it('say whether they are of the series of the row before, whatever is alike in their names', () => {
    const name = fc.constantFrom('a', 'b', 'ab', 'aa', 'ba', 'b'.repeat(130))
    const value = fc.oneof(fc.double({ noNaN: true }), fc.constantFrom('', 'a', 'b'.repeat(200)))
    fc.assert(
      fc.property(
        fc.array(fc.record({ device: name, metric: name, value, times: fc.integer({ min: 1, max: 3 }) })),
        (runs) => {
          const rows = runs.flatMap((run) => Array.from({ length: run.times }, () => run))
          const writer = new RowWriter()
          for (const { device, metric, value: each } of rows) {
            const prefix = encodeRowPrefix('t', device, metric)
            if (typeof each === 'number') writer.number(prefix, 1, each, 2)
            else writer.text(prefix, 1, Buffer.from(each), 2)
          }
          const cursor = new RowCursor(writer.rows())
          rows.forEach(({ device, metric, value: each }, i) => {
            expect(cursor.next()).toBe(true)
            const before = rows[i - 1]
            expect(cursor.isSameSeries).toBe(before?.device === device && before?.metric === metric)
            expect([cursor.tenant(), cursor.device(), cursor.metric()]).toEqual(['t', device, metric])
            if (typeof each === 'number') expect(cursor.value).toBe(each)
            else expect(cursor.text()).toBe(each)
          })
          expect(cursor.next()).toBe(false)
        },
      ),
    )
  })

  it('of an earlier instant than 1970 keep their sign', () => {
    const writer = new RowWriter()
    writer.number(encodeRowPrefix('t', 'd', 'm'), -1, 0, -(2 ** 40) - 1)
    const cursor = new RowCursor(writer.rows())
    cursor.next()
    expect([cursor.observedAt, cursor.receivedAt]).toEqual([-1, -(2 ** 40) - 1])
  })

  it('that are cut or mangled are a RangeError or rows, never anything else', () => {
    fc.assert(
      fc.property(
        fc.array(row, { minLength: 1, maxLength: 5 }),
        fc.nat(),
        fc.nat(),
        fc.nat(255),
        (rows, cut, at, byte) => {
          const bytes = Buffer.from(write(rows).rows())
          bytes[at % bytes.length] = byte
          const cursor = new RowCursor(bytes.subarray(0, cut % (bytes.length + 1)))
          try {
            while (cursor.next()) [cursor.tenant(), cursor.device(), cursor.metric(), cursor.text()]
          } catch (error) {
            expect(error).toBeInstanceOf(RangeError)
          }
        },
      ),
    )
  })

  it('that are cut anywhere but between two are a RangeError', () => {
    const writer = new RowWriter()
    writer.number(encodeRowPrefix('t', 'd', 'm'), 1, 2, 3)
    const whole = writer.rows()
    for (let cut = 1; cut < whole.length; cut++) {
      expect(() => new RowCursor(whole.subarray(0, cut)).next()).toThrow(RangeError)
    }
    expect(new RowCursor(whole.subarray(0, 0)).next()).toBe(false)
  })
})

describe('a row writer', () => {
  const prefix = encodeRowPrefix('default', 'd', 'temperature')

  it('takes back what came after a mark', () => {
    const writer = new RowWriter(16)
    writer.number(prefix, 1, 1, 1)
    const { length, count, receivedAt } = writer
    writer.number(prefix, 2, 2, 2)
    writer.text(prefix, 3, Buffer.from('x'), 3)
    writer.truncate(length, count, receivedAt)
    expect(writer.receivedAt).toBe(1)
    writer.number(prefix, 4, 4, 4)
    const cursor = new RowCursor(writer.rows())
    const seen: number[] = []
    while (cursor.next()) seen.push(cursor.value)
    expect(seen).toEqual([1, 4])
  })

  it('takes rows that were encoded elsewhere', () => {
    const other = new RowWriter()
    other.number(prefix, 1, 1, 7)
    const writer = new RowWriter(1)
    writer.encoded(other.rows(), other.count, other.receivedAt)
    writer.encoded(other.rows(), other.count, other.receivedAt)
    expect([writer.count, writer.receivedAt]).toEqual([2, 7])
    expect(writer.rows().equals(Buffer.concat([other.rows(), other.rows()]))).toBe(true)
  })

  it('lets go of what one burst took, and keeps what is used', () => {
    const writer = new RowWriter(1024)
    for (let i = 0; i < 100_000; i++) writer.number(prefix, i, i, i)
    const burstBytes = writer.bytes.length
    writer.reset()
    expect(writer.bytes.length).toBe(burstBytes)
    for (let round = 0; round < 20; round++) {
      writer.number(prefix, round, round, round)
      writer.reset()
    }
    expect(writer.bytes.length).toBeLessThanOrEqual(256 * 1024)
    writer.number(prefix, 5, 6, 7)
    const cursor = new RowCursor(writer.rows())
    cursor.next()
    expect([cursor.observedAt, cursor.value, cursor.receivedAt]).toEqual([5, 6, 7])
  })
})
