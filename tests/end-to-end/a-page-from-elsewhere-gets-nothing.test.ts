// Without authentication only this machine is served, and a browser on it runs the pages of strangers: none of them reads or sends anything, neither
// under a name of its own that was pointed at this machine (DNS rebinding) nor under its own origin.
import { connect } from 'node:net'
import { beforeAll, describe, expect, it } from 'vitest'
import { waitFor } from '../helpers/wait-for.ts'
import { TestSocket } from '../helpers/websocket.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

/** `fetch` sets Host by itself. */
function statusOf(base: string, head: string): Promise<string> {
  const { hostname, port } = new URL(base)
  return new Promise((resolve, reject) => {
    let got = ''
    const socket = connect(Number(port), hostname, () => socket.write(`${head}\r\nConnection: close\r\n\r\n`))
    socket.on('data', (bytes: Buffer) => {
      got += bytes.toString('latin1')
    })
    socket.on('error', reject)
    socket.on('close', () => resolve(got))
  })
}

describe('a page from elsewhere gets nothing', () => {
  let weir: WeirProcess
  let gateway: string
  beforeAll(async () => {
    weir = await startWeir({ env: { WEIR_HOST_NAMES: 'weir.example' } })
    gateway = weir.urls.gateway!
  }, 120_000)

  it.each(['/v1/devices', '/', '/metrics', '/readyz', '/nothing'])('under a name of its own: %s', async (path) => {
    const { port } = new URL(weir.http)
    for (const host of ['evil.example', `evil.example:${port}`, '127.0.0.1.evil.example', 'localhost.evil.example']) {
      const got = await statusOf(weir.http, `GET ${path} HTTP/1.1\r\nHost: ${host}`)
      expect(got, host).toMatch(
        /^HTTP\/1\.1 421 [\s\S]*application\/problem\+json[\s\S]*foreign-host[\s\S]*WEIR_HOST_NAMES/,
      )
    }
  })

  it('sending under a name of its own', async () => {
    const post = (host: string) =>
      statusOf(gateway, `POST /v1/telemetry/d HTTP/1.1\r\nHost: ${host}\r\nContent-Length: 0`)
    expect(await post('evil.example')).toMatch(/^HTTP\/1\.1 421 [\s\S]*foreign-host/)
    expect(await post('localhost')).toMatch(/^HTTP\/1\.1 422 /)
  })

  it.each(['/v1/ingest?device=d', '/mqtt'])(
    'a WebSocket under a name or from an origin of its own: %s',
    async (path) => {
      const { hostname, port } = new URL(gateway)
      const open = (headers: Record<string, string>) =>
        new TestSocket({ host: hostname, port: Number(port) }, path, { headers, protocol: 'mqtt' })
      const rebound = open({ Host: 'evil.example', Origin: 'http://evil.example' })
      await waitFor(() => rebound.head !== '', { withinMs: 15_000 })
      expect(rebound.head).toMatch(/^HTTP\/1\.1 421 /)
      const foreign = open({ Origin: 'http://evil.example' })
      await waitFor(() => foreign.head !== '', { withinMs: 15_000 })
      expect(foreign.head).toMatch(/^HTTP\/1\.1 403 /)
      const own = open({ Origin: weir.http })
      await waitFor(() => own.isOpen, { withinMs: 15_000 })
      own.destroy()
    },
  )

  it.each([
    ['PUT', '/v1/devices/x'],
    ['POST', '/v1/devices/x/tokens'],
    ['DELETE', '/v1/devices/x'],
    ['POST', '/v1/dead-letters/replay?reason=x'],
    ['POST', '/dead-letters/0006500000000000-00000000/put-back'],
  ])('a change from an origin of its own: %s %s', async (method, path) => {
    for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1:1']) {
      const answer = await fetch(`${weir.http}${path}`, { method, headers: { origin } })
      expect([answer.status, ((await answer.json()) as { type: string }).type], origin).toEqual([
        403,
        '/problems/foreign-origin',
      ])
    }
  })

  it('whoever has a right to a name is served: loopback’s, one that is configured, one without a dot', async () => {
    for (const host of [
      'localhost',
      'LOCALHOST:80',
      '127.0.0.1',
      '127.9.9.9:1',
      '[::1]:8080',
      'weir.example:443',
      'weir',
    ])
      expect(await statusOf(weir.http, `GET /healthz HTTP/1.1\r\nHost: ${host}`), host).toMatch(/^HTTP\/1\.1 200 /)
  })
})
