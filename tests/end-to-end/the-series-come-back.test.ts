// Real series in over MQTT, and out again as charts ask for them: each bucket is what a few lines of arithmetic make of the file.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { ask } from '../helpers/ask.ts'
import { packetType, publishPacket, RawMqtt } from '../helpers/mqtt-raw.ts'
import { projectDirectory } from '../helpers/spawn-weir.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

interface Row {
  readonly at: number
  readonly value: number
}
interface Bucket {
  observedAt: number
  count: number
  sum: number
  min: number
  max: number
  first: number
  last: number
}
interface SeriesAnswer {
  readonly resolution: string
  readonly source: string
  readonly series: readonly {
    readonly device: string
    readonly metric: string
    readonly observedAt: number[]
    readonly value?: number[]
    readonly count?: number[]
    readonly mean?: number[]
    readonly min?: number[]
    readonly max?: number[]
    readonly first?: number[]
    readonly last?: number[]
  }[]
}

const demoDirectory = join(projectDirectory, 'demo')
const files = findCsv(demoDirectory)
const publishesAtOnce = 100

function findCsv(directory: string): string[] {
  return readdirSync(directory, { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.csv'))
    .map((entry) => join(entry.parentPath, entry.name))
    .sort()
}

/** `timestamp,value`, UTC without saying so; of two rows with one instant the later one counts. */
function readRows(file: string): Row[] {
  const rows = new Map<number, number>()
  for (const line of readFileSync(file, 'utf8').trim().split('\n').slice(1)) {
    const [timestamp, value] = line.trim().split(',')
    rows.set(Date.parse(`${timestamp!.replace(' ', 'T')}Z`), Number(value))
  }
  return [...rows].map(([at, value]) => ({ at, value })).sort((a, b) => a.at - b.at)
}

function toBuckets(rows: readonly Row[], startOf: (at: number) => number): Bucket[] {
  const buckets = new Map<number, Bucket>()
  for (const { at, value } of rows) {
    const observedAt = startOf(at)
    const bucket = buckets.get(observedAt)
    if (!bucket)
      buckets.set(observedAt, { observedAt, count: 1, sum: value, min: value, max: value, first: value, last: value })
    else {
      bucket.count++
      bucket.sum += value
      bucket.min = Math.min(bucket.min, value)
      bucket.max = Math.max(bucket.max, value)
      bucket.last = value
    }
  }
  return [...buckets.values()]
}

function everyMs(step: number): (at: number) => number {
  return (at) => Math.floor(at / step) * step
}

/** The first instant of the local date, by what the runtime knows of zones. */
function dayIn(timeZone: string): (at: number) => number {
  const format = new Intl.DateTimeFormat('en-CA', { timeZone })
  const starts = new Map<string, number>()
  return (at) => {
    const date = format.format(at)
    const known = starts.get(date)
    if (known !== undefined) return known
    // No zone is further than a day from UTC: look at each quarter of an hour from there on.
    let start = Date.parse(`${date}T00:00:00Z`) - 24 * 3_600_000
    while (format.format(start) !== date) start += 15 * 60_000
    starts.set(date, start)
    return start
  }
}

describe('the series come back', () => {
  let weir: WeirProcess
  const series = files.map((file, i) => ({ file, device: `series-${i}`, rows: readRows(file) }))
  beforeAll(async () => {
    weir = await startWeir()
    for (const { device, rows } of series) await publish(device, rows)
  })

  /** As a device with a backlog would: many in flight, each acknowledged in turn. */
  const publish = async (device: string, rows: readonly Row[]): Promise<void> => {
    const client = await RawMqtt.connected(weir.mqtt, device)
    for (let start = 0; start < rows.length; start += publishesAtOnce) {
      const some = rows.slice(start, start + publishesAtOnce)
      for (const [i, { at, value }] of some.entries())
        client.send(
          publishPacket({ topic: `devices/${device}/telemetry`, payload: `{"ts":${at},"value":${value}}`, id: i + 1 }),
        )
      for (const i of some.keys()) {
        const answer = await client.next()
        expect([answer.type, answer.body.readUInt16BE(0)]).toEqual([packetType.puback, i + 1])
      }
    }
    client.destroy()
  }

  const askSeries = async (
    device: string,
    rows: readonly Row[],
    parameters: Record<string, string>,
  ): Promise<SeriesAnswer> => {
    const from = new Date(rows[0]!.at).toISOString()
    const to = String(rows.at(-1)!.at + 1)
    const query = new URLSearchParams({ device, metric: 'value', from, to, ...parameters })
    return await ask(`${weir.http}/v1/series?${query}`)
  }

  const expectBuckets = (answer: SeriesAnswer, expected: readonly Bucket[]): void => {
    const [found, ...others] = answer.series
    expect(others).toEqual([])
    expect(found!.observedAt).toEqual(expected.map(({ observedAt }) => observedAt))
    for (const name of ['count', 'min', 'max', 'first', 'last'] as const)
      expect(found![name], name).toEqual(expected.map((bucket) => bucket[name]))
    for (const [i, { sum, count }] of expected.entries()) {
      // Sums of floats depend on their order in the last digits.
      const mean = sum / count
      expect(Math.abs(found!.mean![i]! - mean)).toBeLessThanOrEqual(1e-9 * Math.max(1, Math.abs(mean)))
    }
  }

  it('there are real series to try it with', () => {
    expect(series.length).toBeGreaterThanOrEqual(3)
    for (const { rows } of series) expect(rows.length).toBeGreaterThan(1_000)
  })

  it('reading by reading', async () => {
    for (const { device, rows } of series) {
      await waitFor(
        async () => {
          const answer = await askSeries(device, rows, { resolution: 'raw' })
          expect(answer.resolution).toBe('raw')
          expect(answer.series[0]?.observedAt).toEqual(rows.map(({ at }) => at))
          expect(answer.series[0]?.value).toEqual(rows.map(({ value }) => value))
          return true
        },
        { what: `all readings of ${device}` },
      )
    }
  })

  it.each([
    ['1h', 3_600_000],
    ['1d', 86_400_000],
  ])('in buckets of %s', async (resolution, stepMs) => {
    for (const { device, rows } of series) {
      const answer = await askSeries(device, rows, { resolution })
      expect(answer.resolution).toBe(resolution)
      expectBuckets(answer, toBuckets(rows, everyMs(stepMs)))
    }
  })

  it.each(['Europe/Berlin', 'America/New_York', 'Asia/Kolkata'])('in days of %s', async (timeZone) => {
    for (const { device, rows } of series)
      expectBuckets(await askSeries(device, rows, { resolution: '1d', timeZone }), toBuckets(rows, dayIn(timeZone)))
  })

  it('the same when a file is replayed by `weir simulate`', async () => {
    const { file, rows } = series[0]!
    const result = await runWeir([
      'simulate',
      '--replay',
      file,
      '--speed',
      'max',
      '--url',
      `mqtt://${weir.mqtt.host}:${weir.mqtt.port}`,
      '--device',
      'replayed',
    ])
    expect(result, result.stderr).toMatchObject({ code: 0 })
    await waitFor(
      async () => {
        const { series: found } = await askSeries('replayed', rows, { resolution: '1d' })
        expect(found.length).toBe(1)
        expectBuckets({ resolution: '1d', source: 'raw', series: found }, toBuckets(rows, everyMs(86_400_000)))
        return true
      },
      { what: 'the replayed series' },
    )
  })
})
