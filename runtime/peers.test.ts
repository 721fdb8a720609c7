// What the api knows of the other processes of a deployment.
import { createServer, type ServerResponse } from 'node:http'
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

const part = { writer: { state: 'ok' } }
const counter = { name: 'weir_x_total', help: 'x', type: 'counter', values: [{ value: 1, labels: {} }] }
const statusWith = (more: object): string =>
  JSON.stringify([{ process: 'serve', ageMs: 0, parts: part, instruments: [counter], ...more }])

it.each([
  ['no list', '{}'],
  ['no parts', statusWith({ parts: null })],
  ['a part without a state', statusWith({ parts: { writer: null } })],
  ['a state that is none', statusWith({ parts: { writer: { state: 'fine' } } })],
  ['an instrument without help', statusWith({ instruments: [{ ...counter, help: undefined }] })],
  ['numbers of its own in a name', statusWith({ instruments: [{ ...counter, name: 'a 1\nweir_b' }] })],
  ['a label that ends early', statusWith({ parts: { 'a"} 1\nweir_part_up{part="b': { state: 'ok' } } })],
  ['no age', statusWith({ ageMs: undefined })],
  ['totals that are none', statusWith({ ingest: { receivedReadings: 'many' } })],
  ['no JSON', '<html>'],
])('believes nothing of a peer that answers %s', async (_what, body) => {
  const { peers, asked } = await watchLiar((response) => response.end(body))
  await waitFor(() => asked() >= 3, { withinMs: 15_000 })
  expect(peers.statuses()).toEqual([])
})

it('reads no more of an answer than it may have, and follows it nowhere', async () => {
  let sent = 0
  const endless = await watchLiar((response) => {
    const more = (): void => {
      while (!response.destroyed) {
        sent += 65_536
        if (!response.write(Buffer.alloc(65_536, 32))) break
      }
    }
    response.on('drain', more)
    more()
  })
  await waitFor(() => endless.asked() >= 2, { withinMs: 15_000 })
  expect(sent / endless.asked()).toBeLessThan(64 * 1024 * 1024)
  const honest = await watchLiar((response) => response.end(statusWith({})))
  await waitFor(() => honest.peers.statuses().length === 1, { withinMs: 15_000 })
  const before = honest.asked()
  honest.peers.close()
  const elsewhere = await watchLiar((response) => response.writeHead(302, { location: `${honest.url}/status` }).end())
  await waitFor(() => elsewhere.asked() >= 3, { withinMs: 15_000 })
  expect(elsewhere.peers.statuses()).toEqual([])
  expect(honest.asked()).toBeLessThanOrEqual(before + 1)
})

/** A peer that answers what it is told to. */
async function watchLiar(
  answer: (response: ServerResponse) => void,
): Promise<{ peers: Peers; url: string; asked: () => number }> {
  let asked = 0
  const server = createServer((_request, response) => {
    asked++
    answer(response)
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  toClose.push(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return { peers: watch([url]), url, asked: () => asked }
}
