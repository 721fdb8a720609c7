// The browser's own store of one chart: live readings and history as one line, each reading once.

import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { packageDirectory } from './assets.ts'
import { isGap, sparkFrame, sparkFrom, sparkPoints, trendText } from './format.ts'

interface Store {
  times: number[]
  values: number[]
  counts: number[]
  lows: number[]
  highs: number[]
  add(at: number, value: number): 'appended' | 'late' | 'repeat'
  load(series: object | undefined, answer: { resolution: string; source: string }, keepNewer: boolean): void
  columns(
    declared?: { from: number; to: number }[],
  ): [number[], (number | null)[], (number | null)[], (number | null)[]]
  dropBefore(at: number): void
  isSwitch(): boolean
}
const at = (name: string): string => pathToFileURL(join(packageDirectory, 'dashboards/assets', name)).href
const { SeriesStore } = (await import(at('series.js'))) as { SeriesStore: new () => Store }
const { sparkRead } = (await import(at('format.js'))) as typeof import('./assets/format.js')

test('whatever the order and the repeats, raw readings end in order, each instant once, the last word kept', () => {
  const reading = fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer())
  fc.assert(
    fc.property(fc.array(reading), (readings) => {
      const store = new SeriesStore()
      for (const [instant, value] of readings) store.add(instant, value)
      const expected = [...new Map(readings)].sort(([a], [b]) => a - b)
      expect(store.times).toEqual(expected.map(([instant]) => instant))
      expect(store.values).toEqual(expected.map(([, value]) => value))
    }),
  )
})

test('history takes the place of what was there; newer live readings stay', () => {
  const store = new SeriesStore()
  for (const instant of [1_000, 2_000, 3_000]) store.add(instant, instant)
  store.load({ observedAt: [500, 1_000, 2_000], value: [5, 10, 20] }, { resolution: 'raw', source: 'raw' }, true)
  expect(store.times).toEqual([500, 1_000, 2_000, 3_000])
  expect(store.values).toEqual([5, 10, 20, 3_000])
  // Another stretch of time, that does not go on to now: only what belongs to it.
  store.load({ observedAt: [500], value: [5] }, { resolution: 'raw', source: 'raw' }, false)
  expect(store.times).toEqual([500])
})

test('a live reading goes into its bucket, once', () => {
  const store = new SeriesStore()
  const buckets = { observedAt: [0, 60_000], count: [2, 2], mean: [10, 20], min: [9, 19], max: [11, 21] }
  store.load(buckets, { resolution: '1m', source: 'raw' }, true)
  expect(store.add(61_000, 26)).toBe('appended')
  expect(store.add(61_000, 26)).toBe('repeat')
  expect(store.counts).toEqual([2, 3])
  expect(store.values[1]).toBeCloseTo(22)
  expect(store.highs[1]).toBe(26)
  expect(store.add(30_000, 4)).toBe('late')
  expect(store.lows[0]).toBe(4)
  expect(store.add(185_000, 1)).toBe('appended')
  expect(store.times).toEqual([0, 60_000, 180_000])
})

test('what is only ever off or on is a switch, in buckets too, and what takes a value between is none', () => {
  const store = new SeriesStore()
  expect(store.isSwitch()).toBe(false)
  for (const [instant, value] of [
    [1_000, 0],
    [2_000, 1],
    [3_000, 0],
  ] as const)
    store.add(instant, value)
  expect(store.isSwitch()).toBe(true)
  store.add(4_000, 0.5)
  expect(store.isSwitch()).toBe(false)
  const half = { observedAt: [0], count: [2], mean: [0.5], min: [0], max: [1] }
  store.load(half, { resolution: '1m', source: 'raw' }, false)
  expect(store.isSwitch()).toBe(true)
  store.load({ ...half, max: [1.5] }, { resolution: '1m', source: 'raw' }, false)
  expect(store.isSwitch()).toBe(false)
})

test('a sparkline of a switch has steps, and is read back without their corners', () => {
  const frame = sparkFrame([0, 1, 1, 0], 0, 60_000)
  const drawn = sparkPoints([0, 15_000, 30_000, 60_000], [0, 1, 1, 0], frame)
  expect(drawn).toBe('0,25 30,25 30,3 60,3 60,3 120,3 120,25')
  expect(sparkRead(drawn, frame)).toEqual({ times: [0, 15_000, 30_000, 60_000], values: [0, 1, 1, 0] })
})

test('a gap is drawn as a gap, and a change of pace is none', () => {
  const store = new SeriesStore()
  const steady = Array.from({ length: 10 }, (_, i) => i * 1_000)
  for (const instant of [...steady, ...steady.map((each) => each + 60_000)]) store.add(instant, 1)
  expect(store.columns()[3].filter((value) => value === null)).toHaveLength(1)

  const hourly = Array.from({ length: 10 }, (_, i) => i * 3_600_000)
  const faster = [...hourly, ...steady.map((each) => each + 9 * 3_600_000 + 1_000)]
  expect(faster.map((_, i) => isGap(faster, i, 0)).filter(Boolean)).toHaveLength(0)
})

test('a sliding window lets go of what it left, in all columns', () => {
  const store = new SeriesStore()
  for (let i = 0; i < 500; i++) store.add(i, i)
  store.dropBefore(300)
  expect(store.times[0]).toBe(300)
  expect(store.values).toHaveLength(200)
})

test('a sparkline can be read back from its drawing', () => {
  const frame = sparkFrame([1, 5, 3], 1_000, 61_000)
  const { times, values } = sparkRead(sparkPoints([1_000, 31_000, 61_000], [1, 5, 3], frame), frame)
  expect(times).toEqual([1_000, 31_000, 61_000])
  values.forEach((value, i) => {
    expect(value).toBeCloseTo([1, 5, 3][i]!, 2)
  })
})

test('a declared gap breaks the line between the points around it, and nowhere else', () => {
  const store = new SeriesStore()
  for (const instant of [1_000, 2_000, 3_000, 4_000]) store.add(instant, instant)
  const [, , , whole] = store.columns()
  expect(whole).toEqual([1_000, 2_000, 3_000, 4_000])
  const [times, , , values] = store.columns([{ from: 2_100, to: 2_900 }])
  expect(values).toEqual([1_000, 2_000, null, 3_000, 4_000])
  expect(times[2]).toBe(2_500)
})

test('a sparkline says no more than it knows', () => {
  const day = 86_400_000
  expect(trendText(1, 0, 7 * day)).toBe('new')
  // Three hours of a week: three hours.
  const times = [7 * day - 3 * 3_600_000, 7 * day - 3_600_000]
  expect(trendText(2, sparkFrom(times, 0, 7 * day), 7 * day)).toBe('3 h')
  expect(sparkFrom([day / 2, 6 * day], 0, 7 * day)).toBe(0)
})
