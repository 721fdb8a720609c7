// Whatever a peer does at the gateway, it harms itself alone: its connection ends with a reason, memory stays within the budget, others are served.
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterEach, beforeAll, describe, expect, it } from 'vitest'
import { connectPacket, publishPacket } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { clientFrame, ingestFrame, opcodes, TestSocket } from '../helpers/websocket.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const mebi = 1024 * 1024
const head = 'POST /v1/telemetry/slow HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n'

describe('the gateway holds its limits', () => {
  const random = createRandom()
  let weir: WeirProcess
  let address: { host: string; port: number }
  const open: (TestSocket | Socket)[] = []
  beforeAll(async () => {
    weir = await startWeir({ roles: ['ingest'] })
    const { hostname, port } = new URL(weir.urls.gateway!)
    address = { host: hostname, port: Number(port) }
  })
  afterEach(() => {
    for (const each of open.splice(0)) each.destroy()
  })

  const residentBytes = (): number =>
    Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${weir.pid}/status`, 'utf8'))![1]) * 1024

  const othersAreServed = async (): Promise<void> => {
    const answer = await fetch(`${weir.urls.gateway}/v1/telemetry/good`, {
      method: 'POST',
      body: '{"a":1}',
      headers: { 'content-type': 'application/json' },
      signal: AbortSignal.timeout(30_000),
    })
    expect(answer.status).toBe(200)
    const socket = new TestSocket(address, '/v1/ingest?device=good')
    await socket.hello()
    socket.json({ id: 1, payload: { a: 1 } })
    await waitFor(() => socket.ackedUpTo === 1)
    socket.destroy()
  }

  /** Sends, and resolves with what came when the other side has closed. */
  const raw = (bytes: Buffer | string): Promise<string> =>
    new Promise((resolve) => {
      const socket = connect(address.port, address.host, () => socket.end(bytes))
      open.push(socket)
      let got = ''
      socket.on('data', (chunk: Buffer) => {
        got += chunk.toString('latin1')
      })
      socket.on('error', () => {})
      socket.on('close', () => resolve(got))
    })

  it(`when requests are malformed (seed ${random.seed})`, async () => {
    const requests = [
      '\0\x01\x02\r\n\r\n',
      'GET\r\n\r\n',
      'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n{}',
      'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n{}',
      'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}',
      'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n',
      'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}',
      `GET /v1/ingest HTTP/1.1\r\nHost: x\r\n${'A: b\r\n'.repeat(5_000)}\r\n`,
      'GET /v1/ingest?device=d HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n',
      ...Array.from({ length: 40 }, () => random.bytes(random.between(1, 4_000))),
    ]
    for (const request of requests) expect(await raw(request)).not.toMatch(/^HTTP\/1\.1 200/)
    await othersAreServed()
  })

  it('when frames are malformed, or come in pieces', async () => {
    const frames: readonly (readonly [string, Buffer])[] = [
      ['reserved bits', Buffer.concat([Buffer.from([0xf1]), clientFrame(opcodes.text, Buffer.from('{}')).subarray(1)])],
      ['an opcode that is none', clientFrame(5, Buffer.from('{}'))],
      ['a continuation of nothing', clientFrame(opcodes.continuation, Buffer.from('{}'))],
      ['text that is not UTF-8', clientFrame(opcodes.text, Buffer.from([0xff, 0xfe]))],
      ['a ping that is too long', clientFrame(opcodes.ping, Buffer.alloc(126))],
      ['a length that no memory has', Buffer.from([0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])],
      ['a length of 1 GiB', Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])],
    ]
    for (const [name, bytes] of frames) {
      const socket = new TestSocket(address, '/v1/ingest?device=bad')
      open.push(socket)
      await socket.hello()
      socket.socket.write(bytes)
      await waitFor(() => socket.isClosed, { what: `the end of a socket with ${name}` })
    }
    const socket = new TestSocket(address, '/v1/ingest?device=pieces')
    open.push(socket)
    await socket.hello()
    socket.socket.write(clientFrame(opcodes.text, Buffer.from('{"id":1,"pay'), { fin: false }))
    socket.socket.write(clientFrame(opcodes.ping, Buffer.from('x')))
    socket.socket.write(clientFrame(opcodes.continuation, Buffer.from('load":{"a":1}}')))
    await waitFor(() => socket.ackedUpTo === 1)
    await othersAreServed()
  })

  it('when sockets ignore the window: 4008, and memory within the budget', async () => {
    await othersAreServed()
    const before = residentBytes()
    let most = 0
    const codes: (number | undefined)[] = []
    const payload = `{"text":"${'x'.repeat(1_000)}","pad":[${'0,'.repeat(4_400)}0]}`
    for (let round = 0; round < 5; round++) {
      const sockets = Array.from({ length: 4 }, () => new TestSocket(address, '/v1/ingest?device=flood'))
      open.push(...sockets)
      await Promise.all(sockets.map((socket) => socket.hello()))
      for (const socket of sockets) {
        const messages = Array.from({ length: 1_000 }, (_, i) =>
          clientFrame(opcodes.binary, ingestFrame(i + 1, 0, '', payload)),
        )
        socket.socket.write(Buffer.concat(messages))
      }
      await waitFor(
        () => {
          most = Math.max(most, residentBytes())
          return sockets.every(({ isClosed }) => isClosed)
        },
        { everyMs: 10, what: 'every flooding socket to be closed' },
      )
      codes.push(...sockets.map(({ closeCode }) => closeCode))
    }
    // Those whose close frame was overtaken by the reset of what they still sent have no code.
    expect(codes).toContain(4008)
    expect(codes.filter((code) => code !== 4008 && code !== undefined)).toEqual([])
    // 40 MiB a round were sent.
    expect((most - before) / mebi).toBeLessThan(64)
    await othersAreServed()
  })

  it('when MQTT over WebSocket is sent without end and nothing read', async () => {
    const before = residentBytes()
    const sockets = Array.from({ length: 8 }, () => new TestSocket(address, '/mqtt', { protocol: 'mqtt' }))
    open.push(...sockets)
    await waitFor(() => sockets.every(({ isOpen }) => isOpen))
    const payload = `{"text":"${'x'.repeat(1_000)}"}`
    const packets = Buffer.concat(
      Array.from({ length: 20_000 }, (_, i) => publishPacket({ topic: 'devices/f/telemetry', payload, id: i + 1 })),
    )
    for (const [i, socket] of sockets.entries()) {
      socket.bytes(connectPacket(`flood-${i}`))
      for (let at = 0; at < packets.length; at += 60_000) socket.bytes(packets.subarray(at, at + 60_000))
      // Acknowledgements are left unread.
      socket.socket.pause()
    }
    let most = 0
    const settled = (): boolean => {
      most = Math.max(most, residentBytes())
      return sockets.every(({ socket, isClosed }) => isClosed || socket.writableLength === 0)
    }
    await waitFor(settled, { everyMs: 10, what: 'every flood to end or to be taken' })
    // 160 MiB were sent; 4 MiB a socket may wait, beside what any load takes.
    expect((most - before) / mebi).toBeLessThan(96)
    await othersAreServed()
  })

  it('when heads and bodies come slowly, or not to their end', async () => {
    const isClosed = new Set<number>()
    const slow = Array.from({ length: 200 }, (_, i) => {
      const socket = connect(address.port, address.host)
      open.push(socket)
      socket.on('error', () => {})
      socket.on('close', () => isClosed.add(i))
      socket.resume()
      socket.write(i % 2 === 0 ? head : `${head}Content-Length: 100000\r\n\r\n{`)
      return socket
    })
    const dripping = setInterval(() => {
      for (const [i, socket] of slow.entries()) if (!socket.destroyed) socket.write(i % 2 === 0 ? 'A: b\r\n' : ' ')
    }, 500)
    try {
      await othersAreServed()
      await waitFor(() => isClosed.size === slow.length, { what: 'the slow ones to be closed' })
    } finally {
      clearInterval(dripping)
    }
    await othersAreServed()
  })
})
