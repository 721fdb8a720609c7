// Where an operator limits what a device may send, the one that sends more is made to wait, on every door in the way of its own, and loses nothing;
// others go on. Every time is counted by its door.
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { counterOf } from '../helpers/ask.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const rate = 20
const slow = { withinMs: 30_000 }
const readings = (from: number, count: number): string =>
  JSON.stringify(Array.from({ length: count }, (_, i) => ({ ts: 1_700_000_000_000 + from + i, a: from + i })))

describe('a device that is too fast waits', () => {
  let weir: WeirWithAuth
  let token: string
  const clients: MqttClient[] = []
  beforeAll(async () => {
    weir = await startWeirWithAuth({ env: { WEIR_RATE_LIMIT_READINGS_PER_S: String(rate) } })
    token = await weir.addDevice('gateway', '--speaks-for', '*')
  }, 120_000)
  afterAll(() => {
    for (const client of clients) client.end(true)
  })

  const stored = async (device: string): Promise<number> => {
    const answer = await weir.ask(`/v1/readings?device=${device}&from=2023-01-01T00:00:00Z&limit=10000`)
    return ((await answer.json()) as { items: unknown[] }).items.length
  }
  const counted = (name: string, labels: Record<string, string>): Promise<number> =>
    counterOf(weir.http, name, labels, { authorization: `Bearer ${adminToken}` })

  it('over HTTP it is told 429, and for how long', async () => {
    const first = await weir.post('http', readings(0, 100), token)
    expect(first.status).toBe(200)
    const second = await weir.post('http', readings(100, 100), token)
    expect([second.status, await second.json()]).toMatchObject([429, { type: '/problems/rate-limit', status: 429 }])
    const seconds = Number(second.headers.get('retry-after'))
    expect(seconds).toBeGreaterThan(0)
    expect(seconds).toBeLessThanOrEqual(100 / rate)
    expect((await weir.post('other', readings(0, 10), token)).status).toBe(200)
    await waitFor(async () => (await weir.post('http', readings(200, 1), token)).status === 200, slow)
    await waitFor(async () => (await stored('http')) === 101, slow)
    expect(await counted('weir_gateway_requests_refused_total', { cause: 'rate-limit' })).toBeGreaterThan(0)
  }, 60_000)

  it('over MQTT its socket is not read, and everything arrives in the end', async () => {
    const client = await weir.connect('gateway', token)
    clients.push(client)
    const began = performance.now()
    await Promise.all(
      Array.from({ length: 10 }, (_, i) =>
        client.publishAsync('devices/mqtt/telemetry', readings(i * 10, 10), { qos: 1 }),
      ),
    )
    // 100 readings at 20 a second, less one second's worth at the beginning, less the last payload, which is taken whole.
    expect(performance.now() - began).toBeGreaterThan(2_000)
    await waitFor(async () => (await stored('mqtt')) === 100, slow)
    expect(client.connected).toBe(true)
    expect(await counted('weir_rate_limited_total', { door: 'mqtt' })).toBeGreaterThan(0)
  }, 60_000)

  it('does not get past it by leaving telemetry as its will, and coming back', async () => {
    const will = {
      topic: 'devices/will/telemetry',
      payload: Buffer.from(readings(0, 100)),
      qos: 1 as const,
      retain: false,
    }
    const lost = await weir.connect('gateway', token, { will })
    lost.stream.destroy()
    await waitFor(async () => (await stored('will')) === 100, slow)
    await expect(weir.connect('gateway', token, { will })).rejects.toThrow(/Server unavailable/)
    // Without it everything goes on.
    clients.push(await weir.connect('gateway', token))
  }, 60_000)

  it('does not get past it by coming again', async () => {
    const topic = 'devices/again/telemetry'
    const first = await weir.connect('gateway', token)
    await first.publishAsync(topic, readings(0, 120), { qos: 1 })
    first.end(true)
    const began = performance.now()
    const second = await weir.connect('gateway', token)
    clients.push(second)
    const acknowledged = second.publishAsync(topic, readings(120, 1), { qos: 1 })
    const open = (): ReturnType<typeof weir.socket> =>
      weir.socket('/v1/ingest?device=again', { headers: { authorization: `Bearer ${token}` } })
    const socket = open()
    await socket.hello()
    socket.json({ id: 1, payload: JSON.parse(readings(200, 1)) })
    expect([await socket.closed(), socket.closeReason]).toEqual([1013, 'busy'])
    await acknowledged
    // 120 readings at 20 a second, less what may come at once, and with room for what lies between.
    expect(performance.now() - began).toBeGreaterThan(2_000)
    await waitFor(async () => (await stored('again')) === 121, slow)
    const later = open()
    await later.hello()
    later.json({ id: 1, payload: JSON.parse(readings(200, 1)) })
    await waitFor(() => later.ackedUpTo === 1, slow)
    later.destroy()
  }, 60_000)

  it('over /v1/ingest acknowledgements are held back', async () => {
    const socket = weir.socket('/v1/ingest?device=socket', { headers: { authorization: `Bearer ${token}` } })
    await socket.hello()
    const began = performance.now()
    socket.json({ id: 1, payload: JSON.parse(readings(0, 80)) })
    await waitFor(() => socket.ackedUpTo === 1, slow)
    expect(performance.now() - began).toBeGreaterThan(2_000)
    await waitFor(async () => (await stored('socket')) === 80, slow)
    expect(await counted('weir_rate_limited_total', { door: 'websocket' })).toBeGreaterThan(0)
    socket.destroy()
  }, 60_000)
})
