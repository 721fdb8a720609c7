import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { afterEach, describe, expect, test } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { readIntoShared } from './shared-read.ts'

const closers: (() => void)[] = []
afterEach(() => {
  for (const close of closers.splice(0)) close()
})

/** A server's side of a connection, and its client. */
async function pair(): Promise<{ server: Socket; client: Socket }> {
  const listener = createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const client = connect((listener.address() as { port: number }).port, '127.0.0.1')
  const [server] = (await once(listener, 'connection')) as [Socket]
  closers.push(() => {
    client.destroy()
    server.destroy()
    listener.close()
  })
  return { server, client }
}

/** Collects what a socket reads, as a copy: the bytes are lent. */
function collect(socket: Socket): { text(): string; wasShared: boolean; memory: Set<ArrayBufferLike> } {
  let text = ''
  const memory = new Set<ArrayBufferLike>()
  const wasShared = readIntoShared(socket, (bytes, end) => {
    memory.add(bytes.buffer)
    text += bytes.latin1Slice(0, end)
  })
  return { text: () => text, wasShared, memory }
}

describe('reads of plain sockets', () => {
  test('of a server go into one piece of memory, each to its own taker (this version of Node lets them)', async () => {
    const pairs = await Promise.all([pair(), pair(), pair()])
    const taken = pairs.map(({ server }) => collect(server))
    expect(taken.map(({ wasShared }) => wasShared)).toEqual([true, true, true])
    for (let i = 0; i < 50; i++) pairs.forEach(({ client }, number) => void client.write(`${number}`.repeat(100)))
    await waitFor(() => taken.every(({ text }) => text().length === 5000))
    taken.forEach(({ text }, number) => void expect(text()).toBe(`${number}`.repeat(5000)))
    expect(new Set(taken.flatMap(({ memory }) => [...memory])).size).toBe(1)
  })

  test('stop with a pause and go on with nothing missing; the end is told', async () => {
    const { server, client } = await pair()
    const taken = collect(server)
    let isEnded = false
    server.on('end', () => {
      isEnded = true
    })
    client.write('before ')
    await waitFor(() => taken.text() === 'before ')
    server.pause()
    const total = 4 * 1024 * 1024
    client.end('x'.repeat(total))
    // Held by the kernel, not by us: the client can't get rid of it all.
    await waitFor(() => client.writableLength > 0)
    expect(taken.text()).toBe('before ')
    server.resume()
    await waitFor(() => taken.text().length === 'before '.length + total)
    await waitFor(() => isEnded)
  })

  test('a stream that is no plain socket is left alone', () => {
    const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() })
    expect(readIntoShared(stream, () => {})).toBe(false)
    expect(stream.isPaused()).toBe(false)
    expect(stream.readableFlowing).toBe(null)
  })
})
