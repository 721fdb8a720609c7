import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { isOnline, LastValues } from './last-values.ts'

interface Sent {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly value: number | string
}

function rowsOf(readings: readonly (Sent & { readonly receivedAt: number })[]): Buffer {
  const rows = new RowWriter(64)
  for (const { device, metric, observedAt, receivedAt, value } of readings) {
    const prefix = encodeRowPrefix('default', device, metric)
    if (typeof value === 'number') rows.number(prefix, observedAt, value, receivedAt)
    else rows.text(prefix, observedAt, Buffer.from(value), receivedAt)
  }
  return rows.rows()
}

const second = 1_000_000

describe('last values', () => {
  const reading = fc.record({
    device: fc.constantFrom('a', 'b', 'ab', 'device-with-a-longer-name'),
    metric: fc.constantFrom('x', 'bx', 'ü', 'temperature'),
    observedAt: fc.integer({ min: 1, max: 20 }),
    value: fc.oneof(fc.double({ noNaN: true }), fc.string({ maxLength: 5 })),
  })

  it('are the newest by observedAt, of equals the one received later, in whatever order and however often they come', () => {
    const cases = fc.property(
      fc.array(reading, { maxLength: 60 }),
      fc.array(fc.nat(), { maxLength: 30 }),
      (sent, again) => {
        const received = sent.map((each, i) => ({ ...each, receivedAt: second + i }))
        const newest = new Map<string, (typeof received)[number]>()
        for (const each of received) {
          const key = `${each.device} ${each.metric}`
          const known = newest.get(key)
          if (!known || each.observedAt >= known.observedAt) newest.set(key, each)
        }
        const lastValues = new LastValues()
        // Repeats first: a replay may bring the old after the new.
        const repeats = again.flatMap((i) => received[i] ?? [])
        for (const each of [...repeats, ...received.toReversed(), ...repeats]) lastValues.apply(rowsOf([each]))
        const known = [...lastValues.devices.values()].flatMap(({ series }) => series.map((id) => lastValues.last(id)))
        const byKey = new Map(known.map((last) => [`${last.device} ${last.metric}`, last]))
        expect(byKey.size).toBe(newest.size)
        for (const [key, each] of newest) expect(byKey.get(key)).toEqual({ tenant: 'default', ...each })
      },
    )
    fc.assert(cases, { numRuns: 200 })
  })

  it('from the table and from the log are folded into one', () => {
    const stored = {
      ...{ tenant: 'default', device: 'a', metric: 'x', observedAt: 5, receivedAt: 10, value: 1 },
      ...{ firstReceivedAt: 2, lastReceivedAt: 10, intervalMicros: 4 },
    }
    const newer = rowsOf([{ device: 'a', metric: 'x', observedAt: 6, receivedAt: 11, value: 'new' }])
    for (const order of ['table first', 'log first']) {
      const lastValues = new LastValues()
      if (order === 'table first') lastValues.applyStored(stored)
      lastValues.apply(newer)
      if (order === 'log first') lastValues.applyStored(stored)
      expect(lastValues.last(0)).toMatchObject({ observedAt: 6, receivedAt: 11, value: 'new' })
      expect(lastValues.device('default', 'a')).toMatchObject({ firstReceivedAt: 2, lastReceivedAt: 11 })
    }
  })

  it('of very many series are all found again', () => {
    const lastValues = new LastValues()
    const count = 20_000
    const readings = Array.from({ length: count }, (_, i) => ({
      device: `d${i % 100}`,
      metric: `m${i}`,
      observedAt: 1,
      receivedAt: 1,
      value: i,
    }))
    lastValues.apply(rowsOf(readings))
    lastValues.apply(rowsOf(readings.map((each) => ({ ...each, observedAt: 2, receivedAt: 2, value: each.value * 2 }))))
    expect([lastValues.seriesCount, lastValues.devices.size, lastValues.untracked]).toEqual([count, 100, 0])
    for (let id = 0; id < count; id++) {
      const { metric, value } = lastValues.last(id)
      expect(value).toBe(Number(metric.slice(1)) * 2)
    }
  })

  it('are bounded: series beyond the limit are counted, and the others go on', () => {
    const lastValues = new LastValues(2)
    const readings = ['a', 'b', 'c', 'a'].map((device, i) => ({
      device,
      metric: 'x',
      observedAt: i,
      receivedAt: i + 1,
      value: i,
    }))
    lastValues.apply(rowsOf(readings))
    expect([lastValues.seriesCount, lastValues.untracked, lastValues.last(0).value]).toEqual([2, 1, 3])
    expect(lastValues.deviceNames('default')).toEqual(['a', 'b'])
  })

  it('say which series changed, once', () => {
    const lastValues = new LastValues()
    lastValues.collectChanged = true
    const one = (observedAt: number, device = 'a') =>
      rowsOf([{ device, metric: 'x', observedAt, receivedAt: 1, value: 1 }])
    lastValues.apply(one(5))
    lastValues.apply(one(6))
    lastValues.apply(one(1, 'b'))
    expect(lastValues.takeChanged()).toEqual([0, 1])
    lastValues.apply(one(4))
    expect(lastValues.takeChanged()).toEqual([])
  })

  it('keep the names of devices in order as more come', () => {
    const lastValues = new LastValues()
    const names = ['m', 'c', 'z', 'a', 'd', 'b']
    for (const [i, device] of names.entries()) {
      lastValues.apply(rowsOf([{ device, metric: 'x', observedAt: 1, receivedAt: 1, value: 1 }]))
      expect(lastValues.deviceNames('default')).toEqual(names.slice(0, i + 1).sort())
    }
    expect(lastValues.deviceNames('other')).toEqual([])
  })
})

describe('a device is online', () => {
  function heardAt(...seconds: number[]) {
    const lastValues = new LastValues()
    for (const at of seconds) {
      const receivedAt = at * second
      lastValues.apply(rowsOf([{ device: 'a', metric: 'x', observedAt: receivedAt, receivedAt, value: 1 }]))
    }
    const device = lastValues.device('default', 'a')!
    return (at: number): boolean => isOnline(device, at * second)
  }
  const every = (step: number, from: number, to: number) =>
    Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step)

  it('for a minute after it was heard from once, or often', () => {
    for (const online of [heardAt(1_000), heardAt(...every(0.1, 900, 1_000))]) {
      expect([online(1_000), online(1_059), online(1_061)]).toEqual([true, true, false])
    }
  })
  it('for three times its usual interval', () => {
    const online = heardAt(...every(600, 1_000, 10_000))
    expect([online(10_000 + 1_700), online(10_000 + 1_900)]).toEqual([true, false])
  })
  it('by its usual interval although it was away for a day', () => {
    const online = heardAt(...every(1, 1_000, 2_000), ...every(1, 90_000, 90_200))
    expect([online(90_250), online(90_400)]).toEqual([true, false])
  })
  it('between bursts', () => {
    const online = heardAt(...every(600, 1_000, 10_000).flatMap((at) => [at, at + 0.5, at + 1]))
    expect([online(10_000 + 1_700), online(10_000 + 2_000)]).toEqual([true, false])
  })
})
