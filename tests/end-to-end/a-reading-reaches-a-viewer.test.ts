// The path of one reading, from a socket to everyone who asks: the last value, the history, the devices, a live viewer, the counters.
import { beforeAll, describe, expect, it } from 'vitest'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { SseViewer } from '../helpers/sse.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

/** API.md: an acknowledged reading is answered by every route within this time, and within a second as a rule. */
const visibleMsMax = 5_000
const liveMsMax = 1_000
const triesMax = 20

describe('a reading reaches a viewer', () => {
  let weir: WeirProcess
  let device: RawMqtt
  beforeAll(async () => {
    weir = await startWeir()
    device = await RawMqtt.connected(weir.mqtt, 'boiler-1')
  })

  const answered = (
    path: string,
    fits: (items: readonly ReadingItem[]) => boolean = (items) => items.length > 0,
  ): Promise<ReadingItem[]> =>
    waitFor(
      async () => {
        const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}${path}`)
        return items.length > 0 && fits(items) && items
      },
      { what: `readings from ${path}` },
    )

  it('by the last value, the history and the list of devices', async () => {
    await device.publish('devices/boiler-1/telemetry', '{"ts": 1700000000123, "temperature": 71.3}')
    const expected = { device: 'boiler-1', metric: 'temperature', observedAt: 1_700_000_000_123, value: 71.3 }
    expect(await answered('/v1/latest?device=boiler-1')).toEqual([{ ...expected, receivedAt: expect.any(Number) }])
    expect(await answered('/v1/readings?device=boiler-1&from=2023-11-14T00:00:00Z')).toEqual([
      { ...expected, receivedAt: expect.any(Number) },
    ])
    const { items } = await ask<{ items: { device: string; metrics: string[]; online: boolean }[] }>(
      `${weir.http}/v1/devices?search=boiler`,
    )
    expect(items).toMatchObject([{ device: 'boiler-1', metrics: ['temperature'], online: true }])
  })

  it('live, while the viewer watches', async () => {
    const viewer = await SseViewer.open(`${weir.http}/v1/live?device=boiler-2&mode=every`)
    await viewer.waitForEvent('caught-up')
    for (let index = 0; index < 20; index++)
      await device.publish(
        'devices/boiler-2/telemetry',
        `{"ts": ${1_700_000_000_000 + index}, "rpm": ${index}}`,
        index + 1,
      )
    await waitFor(() => viewer.readings().length >= 20, { what: 'twenty live readings' })
    expect(viewer.readings().map(({ value }) => value)).toEqual(Array.from({ length: 20 }, (_, index) => index))
    expect(viewer.readings()[0]).toMatchObject({ device: 'boiler-2', metric: 'rpm', observedAt: 1_700_000_000_000 })
    viewer.close()
  })

  // The best of several: one that is late on a busy machine says nothing, all of them late do.
  it('in the time that is promised', async () => {
    const viewer = await SseViewer.open(`${weir.http}/v1/live?device=quick&mode=every`)
    await viewer.waitForEvent('caught-up')
    const best = { live: Number.POSITIVE_INFINITY, answered: Number.POSITIVE_INFINITY }
    for (let index = 1; index <= triesMax && (best.live > liveMsMax || best.answered > visibleMsMax); index++) {
      await device.publish('devices/quick/telemetry', `{"ts": ${1_700_000_000_000 + index}, "v": ${index}}`, index)
      const acknowledgedAt = performance.now()
      const seen = waitFor(() => viewer.readings().some(({ value }) => value === index)).then(() => {
        best.live = Math.min(best.live, performance.now() - acknowledgedAt)
      })
      for (const path of ['/v1/latest?device=quick', '/v1/readings?device=quick&from=0', '/v1/devices?search=quick'])
        await answered(path, (items) => path.includes('devices') || items.some(({ value }) => value === index))
      best.answered = Math.min(best.answered, performance.now() - acknowledgedAt)
      await seen
    }
    viewer.close()
    expect(best.live).toBeLessThan(liveMsMax)
    expect(best.answered).toBeLessThan(visibleMsMax)
  })

  it('with the moment of its arrival, when the device has no clock', async () => {
    const before = Date.now()
    await device.publish('devices/boiler-3/telemetry', '{"door": true, "state": "idle", "motor": {"rpm": 900}}')
    const items = await answered('/v1/latest?device=boiler-3')
    expect(items.map(({ metric, value, text }) => [metric, value ?? text])).toEqual([
      ['door', 1],
      ['motor.rpm', 900],
      ['state', 'idle'],
    ])
    // One instant for all of a payload; receivedAt goes on by a microsecond a reading.
    for (const { observedAt, receivedAt } of items) {
      expect(observedAt).toBe(items[0]!.observedAt)
      expect(receivedAt - observedAt).toBeGreaterThanOrEqual(0)
      expect(receivedAt - observedAt).toBeLessThan(0.01)
    }
    expect(items[0]!.observedAt).toBeGreaterThanOrEqual(before)
    expect(items[0]!.observedAt).toBeLessThanOrEqual(Date.now() + 1)
  })

  it('once, when the device sends it twice, and as the later one says', async () => {
    await device.publish('devices/boiler-4/telemetry', '{"ts": 1700000000000, "t": 1}')
    await device.publish('devices/boiler-4/telemetry', '{"ts": 1700000000000, "t": 2}', 2)
    await device.publish('devices/boiler-4/telemetry', '{"ts": 1700000001000, "t": 3}', 3)
    await waitFor(
      async () => {
        const items: ReadingItem[] = []
        for await (const item of allReadings(weir.http, { device: 'boiler-4', from: '0' })) items.push(item)
        expect(items.map(({ value }) => value)).toEqual([2, 3])
        return true
      },
      { what: 'two readings' },
    )
  })

  it('in the counters and the health that operators read', async () => {
    const metrics = await fetch(`${weir.http}/metrics`)
    expect(metrics.status).toBe(200)
    const text = await metrics.text()
    for (const process of ['ingest', 'serve']) expect(text).toContain(`process="${process}"`)
    expect(await (await fetch(`${weir.http}/healthz`)).json()).toEqual({ status: 'ok' })
    expect(await ask(`${weir.http}/readyz`)).toMatchObject({ status: 'ready' })
  })
})
