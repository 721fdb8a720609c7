import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { StartError } from '../../runtime/errors.ts'
import { parseTimestamp, readSeries, type SeriesRow, splitCsv } from './csv-series.ts'

const directory = mkdtempSync(join(tmpdir(), 'weir-csv-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const noon = 1_767_268_800_000_000

async function read(text: string): Promise<SeriesRow[]> {
  const file = join(directory, 'series.csv')
  writeFileSync(file, text)
  const rows: SeriesRow[] = []
  for await (const row of readSeries(file, { device: 'd', metric: 'm' })) rows.push(row)
  return rows
}

describe('a series in a file', () => {
  it('may be timestamp,value, without a zone meaning UTC', async () => {
    expect(await read('timestamp,value\n2026-01-01 12:00:00,1.5\n2026-01-01 12:05:00,-2e3\n')).toEqual([
      { observedAt: noon, device: 'd', metric: 'm', value: 1.5 },
      { observedAt: noon + 300_000_000, device: 'd', metric: 'm', value: -2000 },
    ])
  })

  it('may name device and metric, in any order of columns, beside others', async () => {
    const text =
      'Value,note,metric,timestamp,device\r\n1,"a, b",t,2026-01-01T13:00:00+01:00,x\r\nidle,,"s",1767268800,\r\n'
    expect(await read(text)).toEqual([
      { observedAt: noon, device: 'x', metric: 't', value: 1 },
      { observedAt: noon, device: 'd', metric: 's', value: 'idle' },
    ])
  })

  it('may have blank lines, values that say nothing, a byte order mark, no newline at its end', async () => {
    const rows = await read('\ufefftimestamp,value\n\n1767268800000,\n1767268800000,0')
    expect(rows.map(({ value }) => value)).toEqual([0])
  })

  it.each([
    ['', 'is empty'],
    ['time,value\n', 'the header is "time,value"'],
    ['timestamp,value\nyesterday,1\n', 'line 2: "yesterday" is no instant'],
    ['timestamp,value\n1969-12-31 23:59:59,1\n', 'line 2'],
    ['timestamp,value\n2026-01-01 12:00:00\n', 'line 2 has 1 fields'],
    ['timestamp,value\n1,1\n2,NaN\n', 'line 3: the value NaN'],
    ['timestamp,value,device\n1,1,a/b\n', '"a/b" can\'t be the name of a device'],
    [`timestamp,value\n1,${'x'.repeat(1025)}\n`, 'longer than 1024 bytes'],
    [`timestamp,value\n1,${'x'.repeat(70_000)}\n`, 'line 2 is longer'],
  ])('is refused with the place named: %j', async (text, message) => {
    await expect(read(text)).rejects.toThrow(StartError)
    await expect(read(text)).rejects.toThrow(message)
  })

  it('that is not there is said so', async () => {
    const rows = readSeries(join(directory, 'none.csv'), { device: 'd', metric: 'm' })
    await expect(rows.next()).rejects.toThrow(/none.csv can't be read: ENOENT/)
  })
})

it.each([
  ['2026-01-01 12:00:00', noon],
  ['2026-01-01T12:00:00', noon],
  ['2026-01-01 12:00', noon],
  ['2026-01-01 12:00:00.25', noon + 250_000],
  ['2026-01-01', noon - 12 * 3_600_000_000],
  ['2026-01-01T12:00:00Z', noon],
  ['2026-01-01 13:00:00+01:00', noon],
  ['1767268800', noon],
  ['1767268800000', noon],
  ['1767268800.5', noon + 500_000],
  ['2026-02-30 12:00:00', Number.NaN],
  ['01/02/2026', Number.NaN],
  ['', Number.NaN],
])('reads the timestamp %j', (text, micros) => {
  expect(parseTimestamp(text)).toBe(micros)
})

it.each([
  ['a,b', ['a', 'b']],
  ['', ['']],
  ['a,', ['a', '']],
  ['"a,b",c', ['a,b', 'c']],
  ['"a ""b""",""', ['a "b"', '']],
  ['x,"y",', ['x', 'y', '']],
  ['"open', ['open']],
])('splits %j', (line, fields) => {
  expect(splitCsv(line)).toEqual(fields)
})
