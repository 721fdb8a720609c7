// Each answer is compared with a few lines of arithmetic over what was sent.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openWorld, type SentReading, type World } from './test-world.ts'
import { offsetMs } from './time-zone.ts'
import { type BucketSeries, type RawSeries, type SeriesAnswer, seriesSchema } from './wire.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000
const minute = 60_000_000
const wave: SentReading[] = Array.from({ length: 6_000 }, (_, i) => ({
  device: 'boiler',
  observedAt: start + i * 7_000_000 + (i % 3),
  value: Math.round(Math.sin(i / 50) * 1000 + (i % 17)) / 10 + 0,
}))

beforeAll(async () => {
  world = await openWorld()
  // Out of order, and a tenth of it twice, the first time with another value.
  await world.send(wave.filter((_, i) => i % 10 === 0).map((reading) => ({ ...reading, value: -999 })))
  await world.settle()
  await world.send(wave.toReversed())
  await world.send([{ device: 'boiler', observedAt: start + 1, value: 'a text in between' }])
  await world.settle()
})
afterAll(() => world?.close())

async function series(query: string): Promise<SeriesAnswer> {
  const { status, body } = await world.get<SeriesAnswer>(`/v1/series?${query}`)
  expect([status, body]).toEqual([200, expect.anything()])
  return seriesSchema.parse(body)
}

async function buckets(query: string): Promise<{ readonly answer: SeriesAnswer; readonly only: BucketSeries }> {
  const answer = await series(query)
  expect(answer.series).toHaveLength(1)
  return { answer, only: answer.series[0] as BucketSeries }
}

function expected(readings: readonly SentReading[], startOf: (micros: number) => number): BucketSeries {
  const groups = new Map<number, SentReading[]>()
  for (const reading of readings.toSorted((a, b) => a.observedAt - b.observedAt)) {
    const at = startOf(reading.observedAt)
    groups.set(at, [...(groups.get(at) ?? []), reading])
  }
  const columns: BucketSeries = {
    ...{ device: readings[0]!.device, metric: 'temperature', observedAt: [], count: [] },
    ...{ mean: [], min: [], max: [], first: [], last: [] },
  }
  for (const [at, group] of groups) {
    const values = group.map(({ value }) => value as number)
    columns.observedAt.push(at)
    columns.count.push(values.length)
    columns.mean.push(expect.closeTo(values.reduce((sum, value) => sum + value, 0) / values.length, 9) as number)
    columns.min.push(Math.min(...values))
    columns.max.push(Math.max(...values))
    columns.first.push(values[0]!)
    columns.last.push(values.at(-1)!)
  }
  return columns
}

describe('a series', () => {
  it.each([
    ['1s', 1_000],
    ['1m', 60_000],
    ['15m', 900_000],
    ['1h', 3_600_000],
    ['1d', 86_400_000],
  ])('in buckets of %s is what arithmetic gives', async (resolution, stepMs) => {
    const { answer, only } = await buckets(`device=boiler&resolution=${resolution}`)
    expect([answer.resolution, answer.source]).toEqual([resolution, 'raw'])
    expect(only).toEqual(expected(wave, (micros) => Math.floor(micros / 1000 / stepMs) * stepMs))
  })

  it('takes only what lies from `from` on and before `to`, also where a bucket is cut', async () => {
    const from = start + 90.5 * 1_000_000
    const to = start + 20 * minute
    const { answer, only } = await buckets(`device=boiler&resolution=1m&from=${from / 1000}&to=${to / 1000}`)
    const inside = wave.filter(({ observedAt }) => observedAt >= from && observedAt < to)
    expect(only).toEqual(expected(inside, (micros) => Math.floor(micros / minute) * 60_000))
    expect([answer.from, answer.to]).toEqual([from / 1000, to / 1000])
  })

  it('is raw where the readings fit in the points', async () => {
    const to = start + 500 * 7_000_000
    const answer = await series(`device=boiler&from=${start / 1000}&to=${to / 1000}&points=500`)
    expect(answer.resolution).toBe('raw')
    const [raw] = answer.series as RawSeries[]
    expect(raw!.observedAt).toEqual(wave.slice(0, 500).map(({ observedAt }) => observedAt / 1000))
    expect(raw!.value).toEqual(wave.slice(0, 500).map(({ value }) => value))
  })

  it('is in the smallest buckets that fit where there are too many readings', async () => {
    const range = `from=${start / 1000}&to=${(start + 12 * 60 * minute) / 1000}`
    const resolutionOf = async (points: number) => (await series(`device=boiler&${range}&points=${points}`)).resolution
    expect(await resolutionOf(10_000)).toBe('raw')
    expect(await resolutionOf(5_999)).toBe('10s')
    expect(await resolutionOf(720)).toBe('1m')
    expect(await resolutionOf(719)).toBe('2m')
    expect(await resolutionOf(12)).toBe('1h')
    expect(await resolutionOf(1)).toBe('12h')
  })

  it('begins with the first reading when no `from` is given', async () => {
    const answer = await series(`device=boiler&to=${(start + 12 * 60 * minute) / 1000}&points=720`)
    expect([answer.from, answer.resolution]).toEqual([start / 1000, '1m'])
  })

  it('that nobody sent is an empty answer', async () => {
    expect((await series('device=nobody')).series).toEqual([])
  })

  it('is refused rather than cut when the answer would be too large', async () => {
    const many: SentReading[] = Array.from({ length: 50_001 }, (_, i) => ({
      device: 'fast',
      observedAt: start + i * 1_000,
      value: i,
    }))
    for (let i = 0; i < many.length; i += 10_000) await world.send(many.slice(i, i + 10_000))
    await world.settle()
    expect(await world.problem('/v1/series?device=fast&resolution=raw')).toMatchObject({
      status: 400,
      type: '/problems/too-many-readings',
    })
    expect((await series('device=fast&points=10000')).resolution).not.toBe('raw')
  })

  it('of very large values has a mean', async () => {
    await world.send([1.7e308, 1.5e308].map((value, i) => ({ device: 'huge', observedAt: start + i, value })))
    await world.settle()
    const { only } = await buckets('device=huge&resolution=1h')
    expect(only.mean[0]! / 1.6e308).toBeCloseTo(1, 9)
  })
})

describe('a thinned series', () => {
  it.each(['minmax', 'lttb'])(
    'by %s has at most about the points asked for, all of them real readings',
    async (shape) => {
      const answer = await series(`device=boiler&shape=${shape}&points=200&to=${(start + 12 * 60 * minute) / 1000}`)
      expect(answer).toMatchObject({ resolution: 'raw', shape })
      const [raw] = answer.series as RawSeries[]
      expect(raw!.observedAt.length).toBeGreaterThan(150)
      expect(raw!.observedAt.length).toBeLessThanOrEqual(202)
      const sent = new Map(wave.map(({ observedAt, value }) => [observedAt / 1000, value]))
      expect(raw!.value).toEqual(raw!.observedAt.map((at) => sent.get(at)))
      expect(raw!.observedAt).toEqual(raw!.observedAt.toSorted((a, b) => a - b))
      const values = wave.map(({ value }) => value as number)
      if (shape === 'minmax')
        expect([Math.min(...raw!.value), Math.max(...raw!.value)]).toEqual([Math.min(...values), Math.max(...values)])
    },
  )

  it('is whole where it fits', async () => {
    const answer = await series(
      `device=boiler&shape=lttb&points=100&from=${start / 1000}&to=${(start + 70_000_000) / 1000}`,
    )
    expect(answer).not.toHaveProperty('shape')
    expect((answer.series as RawSeries[])[0]!.value).toHaveLength(10)
  })
})

describe('calendar buckets', () => {
  const zones = [
    'Europe/Berlin',
    'America/Sao_Paulo',
    'Asia/Kathmandu',
    'America/Havana',
    'Pacific/Apia',
    'America/Argentina/Buenos_Aires',
  ]
  const hour = 3_600_000
  // Each hour over days on which one of the clocks is changed, and the day that Apia left out.
  const spans = [
    Date.UTC(2011, 11, 28),
    Date.UTC(2018, 10, 2),
    Date.UTC(2024, 2, 8),
    Date.UTC(2024, 2, 29),
    Date.UTC(2024, 9, 25),
    Date.UTC(2024, 11, 28),
  ]
  const hours = spans.flatMap((from) => Array.from({ length: 24 * 6 }, (_, i) => from + i * hour))

  beforeAll(async () => {
    await world.send(hours.map((at, i) => ({ device: 'meter', observedAt: at * 1000, value: i })))
    await world.settle()
  })

  const dateAt = (zone: string, at: number): Date => new Date(at + offsetMs(zone, at))
  /** The first instant, by looking at each quarter of an hour, at which the calendar shows what it shows at `at`. */
  function beginning(zone: string, at: number, name: (date: Date) => string): number {
    const wanted = name(dateAt(zone, at))
    let begin = Math.floor(at / 900_000) * 900_000
    while (name(dateAt(zone, begin - 24 * hour)) === wanted) begin -= 24 * hour
    while (name(dateAt(zone, begin - 900_000)) === wanted) begin -= 900_000
    return begin
  }
  const dayName = (date: Date): string => date.toISOString().slice(0, 10)
  const names: Record<string, (date: Date) => string> = {
    '1d': dayName,
    '1w': (date) => dayName(new Date(date.getTime() - ((date.getUTCDay() + 6) % 7) * 24 * hour)),
    '1mo': (date) => dayName(date).slice(0, 7),
  }

  it.each(zones.flatMap((zone) => Object.keys(names).map((step) => [zone, step] as const)))(
    'of %s, %s, begin where the calendar says',
    async (zone, step) => {
      const { only } = await buckets(`device=meter&resolution=${step}&timeZone=${encodeURIComponent(zone)}`)
      const readings = hours.map((at, i) => ({ device: 'meter', observedAt: at * 1000, value: i }))
      expect(only).toEqual(expected(readings, (micros) => beginning(zone, micros / 1000, names[step]!)))
    },
  )

  it('may begin before 1970', async () => {
    await world.send([{ device: 'old', observedAt: 0, value: 1 }])
    await world.settle()
    expect((await buckets('device=old&resolution=1w')).only.observedAt).toEqual([Date.UTC(1969, 11, 29)])
    expect((await buckets('device=old&resolution=1d&timeZone=America/New_York')).only.observedAt).toEqual([
      Date.UTC(1969, 11, 31, 5),
    ])
  })
})
