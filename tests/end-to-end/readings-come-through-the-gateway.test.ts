// A reading over HTTP, over the gateway's WebSocket and over MQTT in a WebSocket is answered when it is kept, and is there for everyone within a second
// or so; what could not be used can be mended and put back.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import mqtt from 'mqtt'
import { beforeAll, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { TestSocket } from '../helpers/websocket.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

describe('readings come through the gateway', () => {
  let weir: WeirProcess
  let address: { host: string; port: number }
  beforeAll(async () => {
    weir = await startWeir()
    const { hostname, port } = new URL(weir.urls.gateway!)
    address = { host: hostname, port: Number(port) }
  })

  const latest = async (device: string): Promise<Record<string, number | string>> => {
    const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/latest?device=${device}`)
    return Object.fromEntries(items.map(({ metric, value, text }) => [metric, value ?? text!]))
  }
  const post = (device: string, body: string): Promise<Response> =>
    fetch(`${weir.urls.gateway}/v1/telemetry/${device}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
    })

  it('says where it listens, before it is ready', () => {
    expect(weir.stdout()).toMatch(/^gateway listening on http:\/\/127\.0\.0\.1:\d+$[\s\S]*^ready$/m)
  })

  it('over HTTP', async () => {
    const answer = await post('by-http', '{"temperature": 21.5, "state": "idle", "door": true}')
    expect([answer.status, await answer.json()]).toEqual([200, { accepted: 3, deadLettered: 0 }])
    await waitFor(async () => expect(await latest('by-http')).toEqual({ temperature: 21.5, state: 'idle', door: 1 }))
  })

  it('over the WebSocket', async () => {
    const socket = new TestSocket(address, '/v1/ingest?device=by-socket')
    await socket.hello()
    socket.json({ id: 1, payload: { temperature: 22.5 } })
    await waitFor(() => socket.ackedUpTo === 1)
    await waitFor(async () => expect(await latest('by-socket')).toEqual({ temperature: 22.5 }))
    socket.destroy()
  })

  it('over MQTT in a WebSocket', async () => {
    const client = await mqtt.connectAsync(`ws://${address.host}:${address.port}/mqtt`)
    await client.publishAsync('devices/by-mqtt/telemetry', '{"temperature": 23.5}', { qos: 1 })
    await waitFor(async () => expect(await latest('by-mqtt')).toEqual({ temperature: 23.5 }))
    await client.endAsync()
  })

  it('is a part that /readyz knows', async () => {
    const { parts } = await ask<{ parts: Record<string, { state: string }> }>(`${weir.http}/readyz`)
    expect(parts.gateway).toMatchObject({ state: 'ok' })
  })

  it('keeps what it cannot use, and takes it back mended', async () => {
    const refused = await post('broken', '{"temperature": 24.5')
    const { deadLetter } = (await refused.json()) as { deadLetter: string }
    expect(refused.status).toBe(422)
    const url = `${weir.http}/v1/dead-letters/${deadLetter}`
    await waitFor(async () => (await fetch(url)).ok, { what: 'the dead letter in the table' })
    // As it was: a new dead letter, and 422 again.
    expect((await fetch(`${url}/replay`, { method: 'POST' })).status).toBe(422)
    const mended = await fetch(`${url}/replay`, { method: 'POST', body: '{"temperature": 24.5}' })
    expect([mended.status, await mended.json()]).toEqual([200, { accepted: 1, deadLettered: 0 }])
    await waitFor(async () => expect(await latest('broken')).toEqual({ temperature: 24.5 }))
    expect(
      (await fetch(`${weir.http}/v1/dead-letters/${'0'.repeat(16)}-00000000/replay`, { method: 'POST' })).status,
    ).toBe(404)
    const foreign = await fetch(`${url}/replay`, { method: 'POST', headers: { origin: 'http://evil.example' } })
    expect(foreign.status).toBe(403)
  })

  it('and the command line does the same', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'weir-mended-'))
    const weirDeadLetters = (...words: string[]) => runWeir(['dead-letters', ...words, '--url', weir.http])
    try {
      await post('cut', '{"speed": 1')
      await post('cut', '{"speed": 2')
      const listed = await waitFor(async () => {
        const { stdout } = await weirDeadLetters('list', '--device', 'cut', '--json')
        const { items } = JSON.parse(stdout) as { items: { id: string }[] }
        return items.length === 2 && items
      })
      const { id } = listed[0]!
      expect((await weirDeadLetters('list', '--device', 'cut')).stdout).toContain(id)
      const before = (await weirDeadLetters('show', id)).stdout
      expect(before).toContain('payload (11 bytes): {"speed": 2')
      expect(before).toContain('\nput back: never\n')
      const file = join(directory, 'payload.json')
      writeFileSync(file, '{"speed": 3}')
      const one = await weirDeadLetters('replay', id, '--payload', file)
      expect([one.code, one.stdout]).toEqual([0, 'accepted 1, dead-lettered 0\n'])
      await waitFor(async () => expect(await latest('cut')).toEqual({ speed: 3 }))
      expect((await weirDeadLetters('show', id)).stdout).toMatch(/^put back: \d{4}-\S+Z, accepted 1, dead-lettered 0$/m)
      const lines = (await weirDeadLetters('list', '--device', 'cut')).stdout.trimEnd().split('\n')
      expect(lines.filter((line) => line.endsWith(' (was put back)'))).toEqual([expect.stringContaining(id)])
      const all = await weirDeadLetters('replay', '--reason', 'malformed-payload', '--device', 'cut', '--json')
      expect([all.code, JSON.parse(all.stdout)]).toEqual([
        1,
        { replayed: 0, accepted: 0, deadLettered: 0, unusable: 2 },
      ])
      for (const words of [['list', id], ['show'], ['replay'], ['forget', id], ['replay', id, '--reason', 'x']])
        expect((await weirDeadLetters(...words)).code, words.join(' ')).toBe(2)
      expect((await runWeir(['dead-letters', 'list', '--url', 'http://127.0.0.1:1'])).code).toBe(1)
      expect((await weirDeadLetters('show', 'nonsense')).stderr).toMatch(/No such dead letter/)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  })

  it('stops in order with sockets open', async () => {
    const socket = new TestSocket(address, '/v1/ingest?device=d')
    await socket.hello()
    await weir.stop()
    expect(await socket.closed()).toBe(1001)
  })
})
