// Answers that nobody reads: a bounded number of bytes waits for them, and everyone else is served.
import { once } from 'node:events'
import { type AddressInfo, connect, type Socket } from 'node:net'
import Fastify from 'fastify'
import { afterEach, expect, it } from 'vitest'
import { silentLogger } from '../runtime/logger.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { type AnswerLimits, boundAnswers } from './answer-budget.ts'
import type { ApiApp } from './context.ts'
import { installProblems } from './problems.ts'

/** An answer of sixteen is more than the system takes for a peer that does not read. */
const mebibyte = 1024 ** 2
const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Served {
  readonly port: number
  readonly url: string
  /** Answers wait for these. */
  readonly hold: Promise<void>[]
  asked: number
}

async function serve(limits: AnswerLimits, answerBytes: number): Promise<Served> {
  const app = Fastify({ forceCloseConnections: true })
  const served: Served = { port: 0, url: '', hold: [], asked: 0 }
  installProblems(app, silentLogger)
  boundAnswers(app as unknown as ApiApp, limits)
  app.get('/v1/large', async () => {
    served.asked++
    await Promise.all(served.hold)
    return 'x'.repeat(answerBytes)
  })
  app.get('/healthz', async () => 'ok')
  await app.listen({ host: '127.0.0.1', port: 0 })
  closing.push(() => app.close())
  const { port } = app.server.address() as AddressInfo
  return Object.assign(served, { port, url: `http://127.0.0.1:${port}` })
}

async function connectTo(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  closing.push(() => socket.destroy())
  return socket
}

it('a peer that asks ten times and reads nothing is told to come again, and others are served', async () => {
  const served = await serve({ answersMax: 100, waitingBytesMax: 32 * mebibyte }, 16 * mebibyte)
  const { port, url, hold } = served
  let letGo = (): void => {}
  hold.push(new Promise((done) => (letGo = done)))
  const peer = await connectTo(port)
  peer.pause()
  peer.write('GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(10))
  await waitFor(() => served.asked === 10, { what: '10 questions' })
  letGo()
  // What waits is more than may: new questions are refused until somebody reads.
  await waitFor(async () => (await fetch(`${url}/v1/large`)).status === 503)
  expect((await fetch(`${url}/healthz`)).status).toBe(200)
  const refused = await fetch(`${url}/v1/large`)
  expect(refused.headers.get('retry-after')).toBe('1')
  expect(await refused.json()).toMatchObject({ type: '/problems/busy', status: 503 })

  const statuses: string[] = []
  let rest = ''
  peer.on('data', (bytes: Buffer) => {
    const text = rest + bytes.toString('latin1')
    const heads = text.match(/HTTP\/1\.1 \d{3}/g) ?? []
    statuses.push(...heads.map((head) => head.slice(-3)))
    rest = heads.length > 0 ? text.slice(text.lastIndexOf('HTTP/1.1 ') + 12) : text.slice(-12)
  })
  peer.resume()
  await waitFor(() => statuses.length === 10, { what: '10 answers' })
  expect(new Set(statuses)).toEqual(new Set(['200', '503']))
  // In order of the questions: what fitted came first.
  expect(statuses[0]).toBe('200')
  await waitFor(async () => (await fetch(`${url}/v1/large`)).status === 200)
})

it('more questions at once than there may be are refused, and room comes back when one is answered or its peer leaves', async () => {
  const served = await serve({ answersMax: 2, waitingBytesMax: mebibyte }, 10)
  const { port, url, hold } = served
  let letGo = (): void => {}
  hold.push(new Promise((done) => (letGo = done)))
  const leaving = await connectTo(port)
  leaving.write('GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n')
  const staying = fetch(`${url}/v1/large`)
  await waitFor(() => served.asked === 2)
  expect((await fetch(`${url}/v1/large`)).status).toBe(503)
  leaving.destroy()
  // Refused until it is noticed that one has left; then one is let in, and waits like the one that stays.
  const others: Promise<Response>[] = []
  await waitFor(() => {
    others.push(fetch(`${url}/v1/large`))
    return served.asked === 3
  })
  letGo()
  const statuses = (await Promise.all([staying, ...others])).map(({ status }) => status)
  expect(statuses[0]).toBe(200)
  expect(statuses.slice(1)).toContain(200)
})

it('a peer that asks ten times and leaves without reading leaves nothing behind', async () => {
  const served = await serve({ answersMax: 100, waitingBytesMax: 32 * mebibyte }, 16 * mebibyte)
  const { port, url, hold } = served
  let letGo = (): void => {}
  hold.push(new Promise((done) => (letGo = done)))
  for (const whenLeaves of ['before', 'after'] as const) {
    const asked = served.asked
    const peer = await connectTo(port)
    peer.pause()
    peer.write('GET /v1/large HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(10))
    await waitFor(() => served.asked === asked + 10, { what: '10 questions' })
    if (whenLeaves === 'before') peer.destroy()
    letGo()
    if (whenLeaves === 'after') {
      await waitFor(async () => (await fetch(`${url}/v1/large`)).status === 503)
      peer.destroy()
    }
    await waitFor(async () => (await fetch(`${url}/v1/large`)).status === 200)
    hold.splice(0, 1, new Promise((done) => (letGo = done)))
  }
})
