// A page whose way to the live port leads through the test: it can be blocked, cut in the middle, and opened again, as a firewall or a proxy would.

import type { AddressInfo } from 'node:net'
import { createServer, connect as dial, type Server, type Socket } from 'node:net'
import type { Page } from 'playwright-core'
import type { WeirProcess } from '../helpers/weir-process.ts'

export interface LivePort {
  readonly port: number
  /** Nobody listens any more, and what was open is cut. */
  block(): Promise<void>
  /** The same port again. */
  open(): Promise<void>
  /** Cuts what is open; new connections are taken. */
  cut(): void
  close(): Promise<void>
}

export async function passLivePort(weir: WeirProcess): Promise<LivePort> {
  const target = new URL(weir.urls.live!)
  const sockets = new Set<Socket>()
  let server: Server | undefined
  let port = 0
  const cut = (): void => {
    for (const socket of sockets) socket.destroy()
  }
  const open = async (): Promise<void> => {
    server = createServer((near) => {
      const far = dial(Number(target.port), target.hostname)
      for (const [one, other] of [
        [near, far],
        [far, near],
      ] as const) {
        sockets.add(one)
        one.pipe(other)
        one.on('error', () => other.destroy())
        one.on('close', () => {
          sockets.delete(one)
          other.destroy()
        })
      }
    })
    await new Promise<void>((done) => server!.listen(port, '127.0.0.1', done))
    port = (server.address() as AddressInfo).port
  }
  const block = async (): Promise<void> => {
    const closed = new Promise<void>((done) => (server ? server.close(() => done()) : done()))
    server = undefined
    cut()
    await closed
  }
  await open()
  return { port, open, block, cut, close: block }
}

/** Pages that are opened from here on are told the port of the test. */
export async function leadThrough(page: Page, weir: WeirProcess, { port }: LivePort): Promise<void> {
  const told = `:${new URL(weir.urls.live!).port}`
  await page.route(
    (url) => url.origin === weir.http && /^\/(devices.*|pipeline)?$/.test(url.pathname),
    async (route) => {
      const response = await route.fetch()
      const headers = response.headers()
      const policy = headers['content-security-policy']
      if (policy) headers['content-security-policy'] = policy.replace(told, `:${port}`)
      await route.fulfill({ response, headers, body: (await response.text()).replace(told, `:${port}`) })
    },
  )
}

/** Notes every reading that live connections hand to the page, by connection. Tries that are given up at once (no cursor, not the first) are left out. */
export const recordReadings = `(() => {
  const heard = (globalThis.heard = { values: [], gaps: 0, kinds: [], isCaughtUp: false })
  let connections = 0
  const note = (kind, type, text) => {
    const data = JSON.parse(text)
    if ((type ?? data.type) === 'gap') heard.gaps++
    if ((type ?? data.type) === 'caught-up') heard.isCaughtUp = true
    if ((type ?? data.type) === 'readings') for (const { value } of data.items) heard.values.push(value)
    if ((type ?? data.type) === 'revision') heard.values.push(data.value)
    if (heard.kinds.at(-1) !== kind) heard.kinds.push(kind)
  }
  const isTry = (url) => connections++ > 0 && !new URL(url, location.href).searchParams.has('since')
  const Socket = globalThis.WebSocket
  globalThis.WebSocket = class extends Socket {
    constructor(...words) {
      super(...words)
      if (!isTry(words[0])) this.addEventListener('message', ({ data }) => note('websocket', undefined, data))
    }
  }
  const Events = globalThis.EventSource
  globalThis.EventSource = class extends Events {
    constructor(...words) {
      super(...words)
      if (isTry(words[0])) return
      for (const type of ['readings', 'revision', 'gap', 'caught-up']) this.addEventListener(type, ({ data }) => note('sse', type, data))
    }
  }
})()`
