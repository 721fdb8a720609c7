// Behind the nginx of docs/access.md, as it stands there but for its port and the files of its certificate: readings through it, a stream that is not
// gathered, WebSockets, and a person who signs in.
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request } from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addressedTo, runModule, runShell, snippetWith } from '../helpers/snippets.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { adminToken, startWeirWithAuth, type WeirWithAuth } from '../helpers/weir-with-auth.ts'

const missing = ['bash', 'openssl', 'nginx'].filter((name) => spawnSync('which', [name]).status !== 0)
if (missing.length > 0) {
  const reason = `not here: ${missing.join(', ')}`
  if (process.env.WEIR_TEST_REQUIRE) throw new Error(reason)
  process.stdout.write(`the proxy of docs/access.md is not run: ${reason}\n`)
}

describe.skipIf(missing.length > 0)('behind a proxy that has the TLS', () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-proxy-'))
  const file = (name: string): string => join(directory, name)
  let weir: WeirWithAuth
  let port: number
  let nginx: ReturnType<typeof spawn>
  let said = ''
  beforeAll(async () => {
    const made = await runShell(snippetWith('docs/access.md', 'sh', 'openssl req -x509'), { directory })
    expect(made.code, made.stderr).toBe(0)
    weir = await startWeirWithAuth()
    port = await freePort()
    const server = addressedTo(weir, snippetWith('docs/access.md', 'nginx', 'proxy_pass'))
      .replace('listen 443 ssl', `listen 127.0.0.1:${port} ssl`)
      .replace('/etc/weir/cert.pem', file('weir.pem'))
      .replace('/etc/weir/key.pem', file('weir.key'))
    const own = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${file(name)};`)
    const main = `daemon off; master_process off; pid ${file('nginx.pid')}; error_log stderr;`
    writeFileSync(file('nginx.conf'), `${main}\nevents {}\nhttp { access_log off; ${own.join(' ')}\n${server}}\n`)
    mkdirSync(file('logs'), { recursive: true })
    nginx = spawn('nginx', ['-c', file('nginx.conf'), '-p', directory], { stdio: ['ignore', 'ignore', 'pipe'] })
    nginx.stderr!.setEncoding('utf8').on('data', (text: string) => {
      said += text
    })
    await waitFor(async () => (await answered('GET', '/healthz')).status === 200, {
      what: () => `nginx; it said ${said}`,
    })
  })
  afterAll(() => {
    nginx?.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })

  interface Answered {
    readonly status: number
    readonly headers: Readonly<Record<string, string | string[] | undefined>>
    readonly text: string
  }
  /** Until the answer ends, or holds what is waited for. */
  const answered = (
    method: string,
    path: string,
    { headers = {}, body, until }: { headers?: Record<string, string>; body?: string; until?: RegExp } = {},
  ): Promise<Answered> =>
    new Promise((done, fail) => {
      const asked = request(
        {
          host: '127.0.0.1',
          port,
          method,
          path,
          rejectUnauthorized: false,
          agent: false,
          headers: { host: `weir.example:${port}`, ...headers },
        },
        (answer) => {
          let text = ''
          const end = () => done({ status: answer.statusCode!, headers: answer.headers, text })
          answer.setEncoding('utf8').on('data', (part: string) => {
            text += part
            if (!until?.test(text)) return
            end()
            asked.destroy()
          })
          answer.on('end', end)
        },
      )
      asked.on('error', fail)
      asked.end(body)
    })
  const admin = { authorization: `Bearer ${adminToken}` }

  it('devices send, programs ask, and a stream comes at once', async () => {
    const token = await weir.addDevice('behind')
    const sent = await answered('POST', '/v1/telemetry/behind', {
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
      body: '{"temperature": 1}',
    })
    expect([sent.status, sent.text]).toEqual([200, '{"accepted":1,"deadLettered":0}'])
    expect((await answered('GET', '/v1/devices')).status).toBe(401)
    expect((await answered('GET', '/v1/devices', { headers: admin })).status).toBe(200)
    const path = '/v1/live?device=behind&since=now-1h'
    const live = await answered('GET', path, { headers: admin, until: /^event: caught-up$/m })
    expect(live.text).toMatch(/"metric":"temperature"/)
  })

  it('WebSockets are opened through it', async () => {
    const token = await weir.addDevice('over-wss')
    const { stdout, stderr } = await runModule(
      `import mqtt from 'mqtt'
       const device = await mqtt.connectAsync('wss://127.0.0.1:${port}/mqtt', { username: 'over-wss', password: '${token}', rejectUnauthorized: false })
       await device.publishAsync('devices/over-wss/telemetry', '{"temperature": 2}', { qos: 1 })
       await device.endAsync()
       const socket = new WebSocket('wss://127.0.0.1:${port}/v1/ingest?device=over-wss')
       socket.onmessage = ({ data }) => {
         console.log(data)
         if (JSON.parse(data).type !== 'hello') return
         socket.send('{"type": "auth", "token": "${token}"}')
         socket.send('{"id": 1, "payload": {"temperature": 3}}')
       }`,
      { directory, name: 'wss', env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' }, until: /"upTo":1/ },
    )
    expect(stdout, stderr).toContain('{"type":"ack","upTo":1}')
  })

  it('a person signs in from its own page, and from no other', async () => {
    const signIn = (origin: string): Promise<Answered> =>
      answered('POST', '/login', {
        headers: { origin, 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams({ token: adminToken, next: '/' }).toString(),
      })
    const { status, headers } = await signIn(`https://weir.example:${port}`)
    expect(status).toBe(303)
    expect(String(headers['set-cookie'])).toMatch(/; ?Secure/i)
    expect((await signIn('https://evil.example')).status).toBe(403)
  })
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((listening) => server.once('listening', listening))
  const { port } = server.address() as { port: number }
  await new Promise((closed) => server.close(closed))
  return port
}
