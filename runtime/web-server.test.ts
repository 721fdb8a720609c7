// Connections that are no request and no WebSocket: bounded in number, ended in time, and in nobody's way.
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createWebServer, type WebServer } from './web-server.ts'

const host = '127.0.0.1'
const idle = 2_000
/** What the library takes at most, and what a slow machine adds. */
const endedWithinMs = 40_000

describe('a web server', () => {
  const servers: WebServer[] = []
  const sockets: Socket[] = []
  afterEach(() => {
    for (const socket of sockets.splice(0)) socket.destroy()
    for (const server of servers.splice(0)) server.close()
  })

  async function start(connectionsMax: number) {
    const refused: string[] = []
    const server = createWebServer({
      connectionsMax,
      onConnectionRefused: (peer) => refused.push(peer),
      onRequest: (exchange) =>
        exchange.answer(
          exchange.path === '/last' ? { status: 404, body: 'no', close: true } : { status: 200, body: 'well' },
        ),
      sockets: {
        '/socket': {
          messageBytesMax: 1_024,
          outputBytesMax: 1_024,
          silenceSecondsMax: 120,
          upgrade: () => ({ handler: { opened() {}, message() {}, ended() {} }, protocol: '' }),
        },
      },
    })
    servers.push(server)
    return { server, refused, port: await server.listen(host, 0) }
  }

  function open(port: number, say = ''): { readonly heard: () => string; readonly socket: Socket } {
    let heard = ''
    const socket = connect(port, host, () => say !== '' && socket.write(say))
    socket.setEncoding('latin1').on('data', (text: string) => {
      heard += text
    })
    socket.on('error', () => {})
    sockets.push(socket)
    return { heard: () => heard, socket }
  }

  const asked = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
  const upgrade =
    'GET /socket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n' +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'

  it('answers while 2,000 connections say nothing or trickle, and ends them', async () => {
    const { server, port } = await start(10_000)
    const strangers: ReturnType<typeof open>[] = []
    let most = 0
    for (let i = 0; i < idle; i++) {
      strangers.push(open(port, i % 2 === 0 ? '' : 'GET / HTTP/1.1\r\n'))
      // No more at once than wait to be accepted.
      if (i % 100 === 99) await waitFor(() => strangers.every(({ socket }) => !socket.connecting), { withinMs: 15_000 })
      most = Math.max(most, server.connectionCount)
    }
    // On a slow machine the first may be gone before the last come.
    expect(most).toBeGreaterThan(idle / 4)
    const trickling = setInterval(() => {
      for (const [i, { socket }] of strangers.entries()) if (i % 2 === 1 && socket.writable) socket.write('A: b\r\n')
    }, 2_000)
    const good = open(port, asked)
    await waitFor(() => good.heard().startsWith('HTTP/1.1 200'), { withinMs: 15_000, what: 'an answer' })
    await waitFor(() => strangers.every(({ socket }) => socket.closed), { withinMs: endedWithinMs, what: 'their end' })
    clearInterval(trickling)
    expect(server.connectionCount).toBe(0)
  })

  it('gives HEAD the head alone, so that the next answer on the connection is read as one', async () => {
    const { port } = await start(10)
    const both = open(port, `HEAD / HTTP/1.1\r\nHost: x\r\n\r\n${asked}`)
    await waitFor(() => both.socket.closed, { withinMs: 20_000 })
    const [before, first, second, ...more] = both.heard().split('HTTP/1.1 200 OK\r\n')
    expect([before, more]).toEqual(['', []])
    expect(first).toMatch(/content-length: 4\r\n/i)
    expect(first).toMatch(/\r\n\r\n$/)
    expect(second).toMatch(/\r\n\r\nwell$/)
    const last = open(port, 'HEAD /last HTTP/1.1\r\nHost: x\r\n\r\n')
    await waitFor(() => last.socket.closed, { withinMs: 20_000 })
    expect(last.heard()).toMatch(/^HTTP\/1.1 404 [^\n]*\r\n(?:[^\r]+\r\n)+\r\n$/)
  })

  it('closes those beyond its limit, and has room again when others went or became WebSockets', async () => {
    const { server, refused, port } = await start(3)
    const two = [open(port), open(port)]
    await waitFor(() => server.connectionCount === 2, { withinMs: 15_000 })
    const viewer = open(port, upgrade)
    await waitFor(() => viewer.heard().startsWith('HTTP/1.1 101'), { withinMs: 15_000 })
    expect(server.connectionCount).toBe(2)
    const third = open(port)
    await waitFor(() => server.connectionCount === 3, { withinMs: 15_000 })
    const fourth = open(port, asked)
    await waitFor(() => fourth.socket.closed, { withinMs: 15_000 })
    expect(fourth.heard()).toBe('')
    expect(refused).toEqual([host])
    expect(server.connectionCount).toBe(3)
    for (const { socket } of [...two, third]) socket.destroy()
    await waitFor(() => server.connectionCount === 0, { withinMs: 15_000 })
    const fifth = open(port, asked)
    await waitFor(() => fifth.heard().startsWith('HTTP/1.1 200'), { withinMs: 15_000 })
    viewer.socket.destroy()
  })
})
