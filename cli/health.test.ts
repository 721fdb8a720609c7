// What `weir health` makes of whatever answers at the address that it was given.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { runCommand } from 'citty'
import { expect, it } from 'vitest'
import type { CommandWorld } from './command.ts'
import { health } from './health.ts'

type Asking = (port: number) => { readonly rawArgs: string[]; readonly environment?: CommandWorld['environment'] }

const byUrl: Asking = (port) => ({ rawArgs: ['--url', `http://127.0.0.1:${port}`] })

async function asked(status: number, body: string, asking = byUrl): Promise<{ code: unknown; said: string[] }> {
  const server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(body)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const said: string[] = []
  const { rawArgs, environment = {} } = asking((server.address() as AddressInfo).port)
  const world: Partial<CommandWorld> = {
    environment,
    stop: new AbortController().signal,
    print: (line: string) => said.push(line),
  }
  try {
    const { result } = await runCommand(health, { rawArgs, data: world })
    return { code: result, said }
  } finally {
    await new Promise((done) => server.close(done))
  }
}

it.each(['{}', 'null', '[]', '"ready"', '{"status":"ready"}', '{"status":"ready","parts":{"log":null}}'])(
  'JSON that no Weir says (%s) is said to be none',
  async (body) => {
    const { code, said } = await asked(200, body)
    expect(code).toBe(1)
    expect(said.join()).toMatch(/^What answers at http:\/\/127\.0\.0\.1:\d+ is no Weir \(200\)$/)
  },
)

it('what is ready, and what is not, is said as it is', async () => {
  const ready = { status: 'ready', parts: { log: { state: 'ok', process: 'ingest' } } }
  expect(await asked(200, JSON.stringify(ready))).toEqual({ code: 0, said: ['ready\n  log: ok'] })
  const parts = { log: { state: 'failed', detail: 'it is full', process: 'ingest' } }
  expect(await asked(503, JSON.stringify({ status: 'not-ready', parts }))).toEqual({
    code: 1,
    said: ['not-ready\n  log: failed: it is full'],
  })
})

const ready = '{"status":"ready","parts":{"log":{"state":"ok"}}}'

it('without words it asks the health port, and where there is none the HTTP port', async () => {
  const byHealthPort: Asking = (port) => ({
    rawArgs: [],
    environment: { WEIR_HEALTH_PORT: String(port), WEIR_HTTP_PORT: '0' },
  })
  expect(await asked(200, ready, byHealthPort)).toEqual({ code: 0, said: ['ready\n  log: ok'] })
  const byHttpPort: Asking = (port) => ({ rawArgs: [], environment: { WEIR_HTTP_PORT: String(port) } })
  expect(await asked(200, ready, byHttpPort)).toEqual({ code: 0, said: ['ready\n  log: ok'] })
})

it('with neither port it says what to set', async () => {
  const byNothing: Asking = () => ({ rawArgs: [], environment: { WEIR_HTTP_PORT: '0' } })
  await expect(asked(200, ready, byNothing)).rejects.toThrow('set WEIR_HEALTH_PORT or WEIR_HTTP_PORT, or give --url')
})
