// What a lost token can still do is over within five seconds of its revocation, on every door and on connections that are open; others notice nothing,
// and the device comes back with a new token. It does not matter who revoked it, or whether Weir ran when it happened.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { MqttClient } from 'mqtt'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../helpers/wait-for.ts'
import type { TestSocket } from '../helpers/websocket.ts'
import { startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const goneWithinMs = 5_000
const slow = { withinMs: 20_000 }

describe('a revoked device is gone within five seconds', () => {
  let weir: WeirWithAuth
  const clients: MqttClient[] = []
  beforeAll(async () => {
    weir = await startWeirWithAuth()
  }, 120_000)
  afterAll(() => {
    for (const client of clients) client.end(true)
  })

  interface Open {
    readonly client: MqttClient
    readonly socket: TestSocket
    isGone(): boolean
  }

  const openBoth = async (device: string, token: string): Promise<Open> => {
    const client = await weir.connect(device, token, {
      will: { topic: `devices/${device}/telemetry`, payload: Buffer.from('{"will": 1}'), qos: 0, retain: false },
    })
    clients.push(client)
    let closed = false
    client.on('close', () => {
      closed = true
    })
    const socket = weir.socket(`/v1/ingest?device=${device}`, { headers: { authorization: `Bearer ${token}` } })
    await socket.hello()
    socket.json({ id: 1, payload: { a: 1 } })
    await client.publishAsync(`devices/${device}/telemetry`, '{"a": 2}', { qos: 1 })
    await waitFor(() => socket.ackedUpTo === 1, slow)
    return { client, socket, isGone: () => closed && socket.isClosed }
  }

  it('by the command line', async () => {
    const lost = await openBoth('lost', await weir.addDevice('lost'))
    const kept = await openBoth('kept', await weir.addDevice('kept'))
    const { code, stdout } = await weir.device('revoke', 'lost')
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^1 token is good for nothing/)])
    await waitFor(() => lost.isGone(), { withinMs: goneWithinMs, what: 'the connections of the revoked token to end' })
    expect([lost.socket.closeCode, lost.socket.closeReason]).toEqual([4403, 'revoked'])
    expect(kept.isGone()).toBe(false)
    await kept.client.publishAsync('devices/kept/telemetry', '{"a": 3}', { qos: 1 })
    kept.socket.json({ id: 2, payload: { a: 4 } })
    await waitFor(() => kept.socket.ackedUpTo === 2, slow)
    // Its last will would be telemetry that a revoked token sent.
    const { items } = (await (await weir.ask('/v1/latest?device=lost')).json()) as { items: { metric: string }[] }
    expect(items.map(({ metric }) => metric)).not.toContain('will')
    const again = JSON.parse((await weir.device('token', 'lost', '--json')).stdout) as { token: string }
    await openBoth('lost', again.token)
  }, 120_000)

  it('over REST: one token of two, and then the device', async () => {
    const make = async () => (await weir.ask('/v1/devices/pump/tokens', { method: 'POST' })).json()
    const first = (await make()) as { id: string; token: string }
    const second = (await make()) as { id: string; token: string }
    const lost = await openBoth('pump', first.token)
    const other = weir.socket('/v1/ingest', { headers: { authorization: `Bearer ${second.token}` } })
    await other.hello()
    await weir.ask(`/v1/devices/pump/tokens/${first.id}`, { method: 'DELETE' })
    await waitFor(() => lost.isGone(), { withinMs: goneWithinMs, what: 'the connections of the revoked token to end' })
    expect((await weir.post('pump', '{"a": 1}', first.token)).status).toBe(401)
    expect(other.isClosed).toBe(false)
    expect((await weir.ask('/v1/devices/pump', { method: 'DELETE' })).status).toBe(204)
    await waitFor(() => other.isClosed, { withinMs: goneWithinMs, what: 'the other token to be gone too' })
    await expect(weir.connect('pump', second.token)).rejects.toThrow(/[Nn]ot authorized|[Bb]ad/)
  }, 60_000)

  it('a gateway that may no longer speak for a device loses its connection, and speaks for the others', async () => {
    const json = { 'content-type': 'application/json' }
    const speaksFor = (names: string[]) =>
      weir.ask('/v1/devices/hall', { method: 'PUT', headers: json, body: JSON.stringify({ speaksFor: names }) })
    const token = await weir.addDevice('hall', '--speaks-for', 'hall-*')
    const open = async () => {
      const socket = weir.socket('/v1/ingest', { headers: { authorization: `Bearer ${token}` } })
      await socket.hello()
      return socket
    }
    const socket = await open()
    expect((await speaksFor(['hall-1'])).status).toBe(200)
    await waitFor(() => socket.isClosed, { withinMs: goneWithinMs, what: 'the socket to close' })
    const narrower = await open()
    narrower.json({ id: 1, device: 'hall-1', payload: { a: 1 } })
    narrower.json({ id: 2, device: 'hall-2', payload: { a: 1 } })
    await waitFor(() => narrower.messages.some(({ type }) => type === 'reject'), slow)
    expect(narrower.messages.at(-1)).toMatchObject({ type: 'reject', id: 2 })
  }, 60_000)

  it('a file of devices that was damaged locks nobody in or out, and is said; mended, it counts', async () => {
    const file = join(weir.data, 'devices.ndjson')
    const token = await weir.addDevice('steady')
    const { client } = await openBoth('steady', token)
    const detail = async () => {
      const { parts } = (await (await fetch(`${weir.http}/readyz`)).json()) as {
        parts: Record<string, { detail?: string }>
      }
      return parts.mqtt?.detail ?? ''
    }
    writeFileSync(file, 'nonsense')
    await waitFor(async () => /devices\.ndjson can't be used: line 1/.test(await detail()), slow)
    expect((await weir.post('steady', '{"a": 1}', token)).status).toBe(200)
    expect(client.connected).toBe(true)
    expect(
      (await weir.ask('/v1/devices/x', { method: 'PUT', body: '{}', headers: { 'content-type': 'application/json' } }))
        .status,
    ).toBe(503)
    writeFileSync(file, '{"format":"weir-devices","version":1}\n')
    await waitFor(() => !client.connected, slow)
    await waitFor(async () => (await detail()) === '', slow)
  }, 60_000)

  it('while Weir is stopped', async () => {
    const token = await weir.addDevice('away')
    const kept = await weir.addDevice('stays')
    expect((await weir.post('away', '{"a": 1}', token)).status).toBe(200)
    await weir.stop()
    expect((await weir.device('revoke', 'away')).code).toBe(0)
    const added = await weir.addDevice('new')
    const again = await startWeirWithAuth({ data: weir.data })
    expect((await again.post('away', '{"a": 1}', token)).status).toBe(401)
    expect((await again.post('stays', '{"a": 1}', kept)).status).toBe(200)
    expect((await again.post('new', '{"a": 1}', added)).status).toBe(200)
  }, 120_000)
})
