// The port that operators and health checks ask, whatever the roles.
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { Server } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createHealthServer, type HealthServer } from './health-server.ts'
import { createInstruments } from './instruments.ts'
import type { Health } from './service.ts'
import type { ProcessStatus } from './status.ts'

const clock = { nowMicros: () => 1_000_000_000_000 }
const servers: HealthServer[] = []
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop()
})

async function begin(statuses: () => readonly ProcessStatus[], port = 0): Promise<HealthServer> {
  const server = createHealthServer({ host: '127.0.0.1', port, status: { all: async () => statuses() }, clock })
  servers.push(server)
  await server.start()
  return server
}

const statusOf = (parts: Record<string, Health>, at = 1_000_000_000): ProcessStatus => ({
  process: 'serve',
  at,
  parts,
  instruments: [],
})

describe('the health port', () => {
  it('is alive whatever its parts do, and ready when each does its job', async () => {
    let health: Health = { state: 'failed', detail: 'the store is away' }
    const url = (await begin(() => [statusOf({ writer: health })])).url()
    expect((await fetch(`${url}/healthz`)).status).toBe(200)
    const before = await fetch(`${url}/readyz`)
    expect(before.status).toBe(503)
    expect(await before.json()).toEqual({
      status: 'not-ready',
      parts: { writer: { state: 'failed', detail: 'the store is away', process: 'serve' } },
    })
    health = { state: 'degraded', detail: 'slow' }
    expect((await fetch(`${url}/readyz`)).status).toBe(200)
  })

  it('does not believe a process that has said nothing for long', async () => {
    const url = (await begin(() => [statusOf({ writer: { state: 'ok' } }, 1_000_000_000 - 11_000)])).url()
    const answer = await fetch(`${url}/readyz`)
    expect(answer.status).toBe(503)
    expect(await answer.text()).toContain('has said nothing for 11 s')
  })

  it('has the instruments of all processes and the state of each part as numbers', async () => {
    const instruments = createInstruments('ingest')
    instruments.counter('weir_test_total', 'A test').inc(3)
    const snapshot = await instruments.snapshot()
    const url = (await begin(() => [{ ...statusOf({ log: { state: 'ok' } }), instruments: snapshot }])).url()
    const text = await (await fetch(`${url}/metrics`)).text()
    expect(text).toContain('weir_test_total{process="ingest"} 3')
    expect(text).toContain('weir_part_up{part="log"} 1')
  })

  it('knows nothing else, and takes nothing', async () => {
    const url = (await begin(() => [])).url()
    expect((await fetch(`${url}/v1/devices`)).status).toBe(404)
    expect((await fetch(`${url}/readyz`, { method: 'POST', body: 'x' })).status).toBe(405)
  })

  it('refuses parameters, which none of its routes takes', async () => {
    const url = (await begin(() => [statusOf({ log: { state: 'ok' } })])).url()
    for (const path of ['/healthz', '/readyz', '/metrics', '/status']) {
      const answer = await fetch(`${url}${path}?verbose=1`)
      expect(answer.status).toBe(400)
      expect(await answer.json()).toMatchObject({ detail: `${path} takes no parameters; there is ?verbose=1` })
      expect((await fetch(`${url}${path}?`)).status).toBe(200)
    }
  })

  it('says what went wrong when the state of the processes cannot be had, and goes on', async () => {
    let isBroken = true
    const server = await begin(() => {
      if (isBroken) throw new Error('the children do not answer')
      return [statusOf({ log: { state: 'ok' } })]
    })
    for (const path of ['/readyz', '/metrics', '/status']) {
      const answer = await fetch(`${server.url()}${path}`)
      expect(answer.status).toBe(500)
      expect(answer.headers.get('content-type')).toMatch(/^application\/problem\+json/)
      expect(await answer.json()).toMatchObject({ status: 500, detail: expect.stringContaining('do not answer') })
    }
    expect((await fetch(`${server.url()}/healthz`)).status).toBe(200)
    isBroken = false
    expect((await fetch(`${server.url()}/readyz`)).status).toBe(200)
  })

  it('is degraded, and listens on, when a connection could not be taken; the next one that is heard mends it', async () => {
    const server = await begin(() => [])
    let listening: Server | undefined
    const seen = (message: unknown): void => {
      listening = (message as { readonly server: Server }).server
    }
    subscribe('http.server.request.start', seen)
    try {
      await fetch(`${server.url()}/healthz`)
    } finally {
      unsubscribe('http.server.request.start', seen)
    }
    expect(server.health()).toEqual({ state: 'ok' })
    // What Node says where no descriptor is free.
    listening!.emit('error', Object.assign(new Error('accept EMFILE'), { code: 'EMFILE' }))
    expect(server.health()).toEqual({ state: 'degraded', detail: 'The health port had trouble: accept EMFILE' })
    expect((await fetch(`${server.url()}/healthz`)).status).toBe(200)
    expect(server.health()).toEqual({ state: 'ok' })
  })

  it('lets go of those that ask and take no answer, so that others are heard', async () => {
    const big = { detail: 'x'.repeat(100_000), state: 'failed' } as const
    const url = new URL((await begin(() => [statusOf({ writer: big })])).url())
    const held = Array.from({ length: 64 }, () => {
      const socket = connect(Number(url.port), url.hostname).pause()
      socket.on('error', () => {})
      socket.write('GET /status HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(200))
      return socket
    })
    try {
      const isHeard = async (): Promise<boolean> => {
        const answer = await fetch(`${url.origin}/healthz`, { signal: AbortSignal.timeout(2_000) }).catch(() => {})
        return answer?.status === 200
      }
      await waitFor(isHeard, { withinMs: 40_000, what: 'a place among the connections' })
    } finally {
      for (const socket of held) socket.destroy()
    }
  }, 60_000)

  it('says which option moves it when its port is taken', async () => {
    const first = await begin(() => [])
    const port = Number(new URL(first.url()).port)
    await expect(begin(() => [], port)).rejects.toThrow(/health port \d+ .* WEIR_HEALTH_PORT/)
  })
})
