// What the api knows of the other processes of a deployment.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createHealthServer } from './health-server.ts'
import { createInstruments } from './instruments.ts'
import { type Peers, watchPeers } from './peers.ts'
import type { ProcessStatus } from './status.ts'

const toClose: (() => unknown)[] = []
afterEach(async () => {
  for (const close of toClose.splice(0)) await close()
})
const watch = (urls: readonly string[]): Peers => {
  const peers = watchPeers(urls, 20)
  toClose.push(() => peers.close())
  return peers
}

it('has what a peer said last, by its name, whatever its clock says', async () => {
  const instruments = createInstruments('ingest')
  instruments.counter('weir_test_total', 'A test').inc(2)
  // Its clock is an hour behind.
  const hour = 3_600_000
  const clock = { nowMicros: () => (Date.now() - hour) * 1_000 }
  const all = async (): Promise<readonly ProcessStatus[]> => [
    {
      process: 'ingest',
      at: Date.now() - hour - 300,
      parts: { log: { state: 'ok' } },
      instruments: await instruments.snapshot(),
    },
  ]
  const server = createHealthServer({ host: '127.0.0.1', port: 0, status: { all }, clock })
  await server.start()
  toClose.push(() => server.stop())
  const peers = watch([server.url()])
  const [status] = await waitFor(() => (peers.statuses().length > 0 ? peers.statuses() : undefined), {
    withinMs: 15_000,
  })
  const { host } = new URL(server.url())
  expect(status).toMatchObject({ process: `${host}/ingest`, parts: { log: { state: 'ok' } } })
  expect(Date.now() - status!.at).toBeLessThan(60_000)
  const counter = status!.instruments.find(({ name }) => name === 'weir_test_total')
  expect(counter?.values).toEqual([expect.objectContaining({ value: 2, labels: { process: `${host}/ingest` } })])
})

it('says of one that does not answer that it does not, and of one that is something else', async () => {
  const other = createServer((_request, response) => response.writeHead(404).end('no'))
  await new Promise<void>((done) => other.listen(0, '127.0.0.1', done))
  toClose.push(() => other.close())
  const { port } = other.address() as AddressInfo
  const peers = watch([`http://127.0.0.1:${port}`, 'http://127.0.0.1:1'])
  const statuses = await waitFor(() => (peers.statuses().length === 2 ? peers.statuses() : undefined), {
    withinMs: 20_000,
    what: 'both to be silent for long enough',
  })
  const details = statuses.flatMap(({ parts }) =>
    Object.values(parts).map(({ state, detail }) => `${state}: ${detail}`),
  )
  expect(details[0]).toMatch(/^failed: .* does not answer: it answered 404/)
  expect(details[1]).toMatch(/^failed: http:\/\/127\.0\.0\.1:1 does not answer/)
})
