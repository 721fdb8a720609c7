// What `weir health` makes of whatever answers at the address that it was given.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { runCommand } from 'citty'
import { expect, it } from 'vitest'
import type { CommandWorld } from './command.ts'
import { health } from './health.ts'

async function asked(status: number, body: string): Promise<{ code: unknown; said: string[] }> {
  const server = createServer((_request, response) => {
    response.writeHead(status, { 'content-type': 'application/json', connection: 'close' }).end(body)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const said: string[] = []
  const world: Partial<CommandWorld> = {
    environment: {},
    stop: new AbortController().signal,
    print: (line: string) => said.push(line),
  }
  const rawArgs = ['--url', `http://127.0.0.1:${(server.address() as AddressInfo).port}`]
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
