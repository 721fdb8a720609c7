// Ten thousand wrong tokens over each door (two thousand over the gateway's WebSockets), all at once: every one is refused, a right one gets in
// meanwhile from the same address, and nothing is kept of them. Connections that never say who they are make room for those that do.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectSocket, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { counterOf } from '../helpers/ask.ts'
import { LiveViewer } from '../helpers/live-viewer.ts'
import { connectPacket, RawMqtt } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import type { TestSocket } from '../helpers/websocket.ts'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const attempts = 10_000
const atOnce = 100
/** Over the gateway's WebSockets. */
const socketAttempts = { attempts: 2_000, atOnce: 250 }
const slow = { withinMs: 30_000 }

/** Well-formed, and nobody's. */
function wrongToken(number: number): string {
  return `weir_${number.toString(16).padStart(16, '0')}_${'x'.repeat(43)}`
}

/** Of one request on a connection of its own, without a client's cost. */
function rawStatus(base: string, what: string, token: string, more = ''): Promise<number> {
  const { hostname, port, host } = new URL(base)
  const body = what.startsWith('POST') ? '{}' : ''
  return new Promise((resolve, reject) => {
    const socket = connectSocket(Number(port), hostname, () =>
      socket.write(
        `${what} HTTP/1.1\r\nHost: ${host}\r\nAuthorization: Bearer ${token}\r\n${more}Content-Length: ${body.length}\r\n\r\n${body}`,
      ),
    )
    socket.on('error', reject)
    socket.once('data', (bytes: Buffer) => {
      socket.destroy()
      resolve(Number(bytes.toString('latin1', 9, 12)))
    })
  })
}

describe('wrong tokens starve nobody', () => {
  let weir: WeirWithAuth
  let token: string
  const sockets: (Socket | TestSocket)[] = []
  beforeAll(async () => {
    weir = await startWeirWithAuth({ env: { WEIR_MQTT_CONNECTIONS_MAX: '300' } })
    token = await weir.addDevice('right')
  }, 120_000)
  afterAll(() => {
    for (const socket of sockets) socket.destroy()
  })

  /** Runs `attempt` so many times, some at once, and `meanwhile` again and again until it is over: how often that was done before. */
  const flood = async (
    attempt: (number: number) => Promise<void>,
    meanwhile: () => Promise<void>,
    bounds = { attempts, atOnce },
  ): Promise<number> => {
    let next = 0
    let isOver = false
    const worker = async () => {
      while (next < bounds.attempts) await attempt(next++)
    }
    const all = Promise.all(Array.from({ length: bounds.atOnce }, worker)).finally(() => {
      isOver = true
    })
    let times = 0
    while (!isOver) {
      await meanwhile()
      if (!isOver) times++
    }
    await all
    return times
  }
  const memory = (part: 'ingest' | 'serve' = 'ingest'): number => {
    const status = readFileSync(`/proc/${weir.pids()[part]}/status`, 'utf8')
    return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)![1]) * 1024
  }

  it('over HTTP', async () => {
    const statuses = new Map<number, number>()
    const before = memory()
    const times = await flood(
      async (number) => {
        const status = await rawStatus(weir.gateway, 'POST /v1/telemetry/right', wrongToken(number))
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      },
      async () => {
        const answer = await weir.post('right', '{"a": 1}', token)
        expect(answer.status).toBe(200)
      },
    )
    expect(statuses).toEqual(new Map([[401, attempts]]))
    expect(times).toBeGreaterThan(0)
    expect(memory() - before).toBeLessThan(100 * 1024 * 1024)
  }, 300_000)

  it('over MQTT', async () => {
    const codes = new Map<number, number>()
    const before = memory()
    await flood(
      async (number) => {
        const client = await RawMqtt.open(weir.mqtt)
        client.send(connectPacket('right', { username: 'right', password: wrongToken(number) }))
        const { body } = await client.next()
        client.destroy()
        codes.set(body[1]!, (codes.get(body[1]!) ?? 0) + 1)
      },
      async () => {
        const client = await weir.connect('right', token, { connectTimeout: 60_000 })
        await client.publishAsync('devices/right/telemetry', '{"a": 2}', { qos: 1 })
        await client.endAsync(true)
      },
    )
    expect(codes).toEqual(new Map([[4, attempts]]))
    expect(memory() - before).toBeLessThan(100 * 1024 * 1024)
  }, 300_000)

  it('over REST', async () => {
    const statuses = new Map<number, number>()
    await flood(
      async (number) => {
        const status = await rawStatus(weir.http, 'GET /v1/latest?device=right', `${number}${adminToken}`)
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      },
      async () => {
        expect((await weir.ask('/v1/latest?device=right')).status).toBe(200)
      },
    )
    expect(statuses).toEqual(new Map([[401, attempts]]))
  }, 300_000)

  it('over the live port', async () => {
    const statuses = new Map<number, number>()
    const before = memory('serve')
    const live = weir.urls.live!.replace('ws:', 'http:')
    const upgrade = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13'
    const headers = { authorization: `Bearer ${adminToken}` }
    const steady = await LiveViewer.open(weir.urls.live!, 'device=right&mode=every', { headers })
    sockets.push(steady.socket)
    await steady.waitForFrame('caught-up')
    let sent = 0
    const times = await flood(
      async (number) => {
        const key = `Sec-WebSocket-Key: ${Buffer.alloc(16, number).toString('base64')}`
        const status = await rawStatus(live, 'GET /v1/live', wrongToken(number), `${upgrade}\r\n${key}\r\n`)
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
      },
      async () => {
        const viewer = await LiveViewer.open(weir.urls.live!, 'device=right', { headers })
        await viewer.waitForFrame('caught-up', undefined, 60_000)
        viewer.close()
        expect((await weir.post('right', `{"live": ${sent++}}`, token)).status).toBe(200)
      },
    )
    expect(statuses).toEqual(new Map([[401, attempts]]))
    expect(times).toBeGreaterThan(0)
    expect(memory('serve') - before).toBeLessThan(150 * 1024 * 1024)
    await waitFor(() => steady.told().length === sent, slow)
    expect(steady.told().map(({ value }) => value)).toEqual(Array.from({ length: sent }, (_, i) => i))
  }, 300_000)

  /** One connection with a right token: what it sends is acknowledged, or how it ended. */
  const sendsOverSocket = (by: 'header' | 'first frame'): Promise<unknown> => {
    const headers = by === 'header' ? { authorization: `Bearer ${token}` } : {}
    const socket = weir.socket('/v1/ingest?device=right', { headers })
    return new Promise((resolve) => {
      socket.onMessage = ({ type }) => {
        if (type === 'hello') {
          if (by === 'first frame') socket.json({ type: 'auth', token })
          socket.json({ id: 1, payload: { socket: 1 } })
        } else {
          resolve(type)
          socket.destroy()
        }
      }
      socket.socket.once('close', () => resolve(socket.closeCode ?? socket.head.slice(0, 12)))
    })
  }
  /** Sends one message more over a socket that was open before, and waits for its acknowledgement. */
  const openSteady = async (): Promise<() => Promise<unknown>> => {
    const steady = weir.socket('/v1/ingest?device=right', { headers: { authorization: `Bearer ${token}` } })
    sockets.push(steady)
    await steady.hello()
    let id = 0
    return () => {
      steady.json({ id: ++id, payload: { steady: id } })
      return waitFor(() => steady.ackedUpTo === id, { withinMs: 60_000, what: 'the steady socket’s acknowledgement' })
    }
  }
  /** Counts what is said in the log about an event while `body` runs: ten lines in ten seconds, and one about those that were held back. */
  const expectFewLines = async (event: string, body: () => Promise<void>): Promise<void> => {
    const lines = (): number => weir.stderr().split(`"event":"${event}"`).length - 1
    const before = lines()
    const begunAt = performance.now()
    await body()
    await waitFor(() => lines() > 0, slow)
    const windows = Math.floor((performance.now() - begunAt) / 10_000) + 2
    expect(lines() - before).toBeLessThanOrEqual(windows * 11)
  }

  it('over /v1/ingest, in the header', async () => {
    const statuses = new Map<number, number>()
    const before = memory()
    const sendMore = await openSteady()
    const upgrade = 'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13'
    await expectFewLines('request-refused wrong-token', async () => {
      const times = await flood(
        async (number) => {
          const key = `Sec-WebSocket-Key: ${Buffer.alloc(16, number).toString('base64')}`
          const more = `${upgrade}\r\n${key}\r\n`
          const status = await rawStatus(weir.gateway, 'GET /v1/ingest?device=right', wrongToken(number), more)
          statuses.set(status, (statuses.get(status) ?? 0) + 1)
        },
        async () => {
          expect(await sendsOverSocket('header')).toBe('ack')
          await sendMore()
        },
        socketAttempts,
      )
      expect(times).toBeGreaterThan(0)
    })
    expect(statuses).toEqual(new Map([[401, socketAttempts.attempts]]))
    expect(memory() - before).toBeLessThan(100 * 1024 * 1024)
  }, 300_000)

  // Beyond 200 at once that have not said who they are one of them is told to connect again, and a right one does.
  it.each([150, 300])(
    'over /v1/ingest, in the first frame, %i at once',
    async (many) => {
      const codes = new Map<number | undefined, number>()
      const before = memory()
      const sendMore = await openSteady()
      let refused = 0
      await expectFewLines('socket-closed not-authorised', async () => {
        const times = await flood(
          async (number) => {
            const socket = weir.socket('/v1/ingest?device=right')
            socket.onMessage = () => socket.json({ type: 'auth', token: wrongToken(number) })
            await once(socket.socket, 'close')
            codes.set(socket.closeCode, (codes.get(socket.closeCode) ?? 0) + 1)
          },
          async () => {
            let end = await sendsOverSocket('first frame')
            for (; end === 1013; refused++) end = await sendsOverSocket('first frame')
            expect(end).toBe('ack')
            await sendMore()
          },
          { ...socketAttempts, atOnce: many },
        )
        expect(times).toBeGreaterThan(0)
      })
      const busy = codes.get(1013) ?? 0
      if (many < 200) expect([busy, refused]).toEqual([0, 0])
      expect([codes.get(4401)! + busy, [...codes.keys()].filter((code) => code !== 4401 && code !== 1013)]).toEqual([
        socketAttempts.attempts,
        [],
      ])
      expect(memory() - before).toBeLessThan(100 * 1024 * 1024)
    },
    300_000,
  )

  it('over MQTT over WebSocket', async () => {
    const ends = new Map<string, number>()
    const before = memory()
    const url = `${weir.gateway.replace('http:', 'ws:')}/mqtt`
    await expectFewLines('connection-closed not-authorised', async () => {
      const times = await flood(
        async (number) => {
          const socket = weir.socket('/mqtt', { protocol: 'mqtt' })
          socket.onOpen = () =>
            socket.bytes(connectPacket('right', { username: 'right', password: wrongToken(number) }))
          await once(socket.socket, 'close')
          const end = socket.binary.map((bytes) => bytes.toString('hex')).join() || `closed ${socket.closeCode}`
          ends.set(end, (ends.get(end) ?? 0) + 1)
        },
        async () => {
          const client = await weir.connect('right', token, { connectTimeout: 60_000 }, url)
          await client.publishAsync('devices/right/telemetry', '{"a": 2}', { qos: 1 })
          await client.endAsync(true)
        },
        socketAttempts,
      )
      expect(times).toBeGreaterThan(0)
    })
    expect(Object.fromEntries(ends)).toEqual({ '20020004': socketAttempts.attempts })
    expect(memory() - before).toBeLessThan(100 * 1024 * 1024)
  }, 300_000)

  it('a right token found its victim’s session untouched, and the attempts are counted', async () => {
    const counted = (name: string, cause: string): Promise<number> =>
      counterOf(weir.http, name, { cause }, { authorization: `Bearer ${adminToken}` })
    await waitFor(
      async () =>
        (await counted('weir_gateway_requests_refused_total', 'wrong-token')) >= attempts &&
        (await counted('weir_mqtt_connections_closed_total', 'not-authorised')) >= attempts,
      slow,
    )
  })

  it('silent connections in every place make room for one that speaks', async () => {
    for (let i = 0; i < 300; i++) {
      const socket = connectSocket(weir.mqtt.port, weir.mqtt.host)
      socket.on('error', () => {})
      sockets.push(socket)
    }
    await waitFor(
      async () =>
        (await counterOf(weir.http, 'weir_mqtt_connections', {}, { authorization: `Bearer ${adminToken}` })) >= 300,
      slow,
    )
    const client = await weir.connect('right', token)
    await client.publishAsync('devices/right/telemetry', '{"a": 3}', { qos: 1 })
    await client.endAsync(true)
  }, 60_000)

  it('and so do sockets of /v1/ingest that say nothing', async () => {
    for (let i = 0; i < 250; i++) sockets.push(weir.socket('/v1/ingest?device=right'))
    const socket = weir.socket('/v1/ingest?device=right')
    await socket.hello()
    socket.json({ type: 'auth', token })
    socket.json({ id: 1, payload: { a: 4 } })
    await waitFor(() => socket.ackedUpTo === 1, slow)
    socket.destroy()
  }, 60_000)
})
