// Whatever a peer does at the live port, it harms itself alone: its connection ends, memory stays within bounds, and a viewer beside it misses nothing.
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { LiveViewer } from '../helpers/live-viewer.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { clientFrame, opcodes, TestSocket } from '../helpers/websocket.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const mebi = 1024 * 1024
const firstAt = 1_700_000_000_000
const patient = { withinMs: 60_000 }

describe('the live port holds its limits', () => {
  const random = createRandom()
  let weir: WeirProcess
  let address: { host: string; port: number }
  let steady: RawPublisher
  let beside: LiveViewer
  const open: (TestSocket | Socket)[] = []
  beforeAll(async () => {
    weir = await startWeir()
    const { hostname, port } = new URL(weir.urls.live!)
    address = { host: hostname, port: Number(port) }
    steady = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'steady',
      window: 100,
      ratePerS: 200,
      resend: true,
      message: (index) => ({ topic: 'devices/steady/telemetry', payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: () => {},
    })
    beside = await LiveViewer.open(weir.urls.live!, 'device=steady&mode=every')
    await beside.waitForFrame('caught-up')
    steady.resume()
  }, 150_000)
  afterEach(() => {
    for (const each of open.splice(0)) each.destroy()
  })
  afterAll(() => {
    steady?.stop()
    beside?.close()
  })

  const socket = (query: string): TestSocket => {
    const made = new TestSocket(address, `/v1/live?${query}`)
    open.push(made)
    return made
  }
  const opened = (sockets: readonly TestSocket[]): Promise<boolean> =>
    waitFor(() => sockets.every(({ isOpen }) => isOpen), { ...patient, what: 'every socket to be open' })
  const residentBytes = (): number =>
    Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${weir.pids().serve}/status`, 'utf8'))![1]) * 1024

  /** Who watches beside goes on hearing, and somebody new gets in. */
  const othersAreServed = async (): Promise<void> => {
    const heard = beside.told().length
    await waitFor(() => beside.told().length > heard, patient)
    const viewer = await LiveViewer.open(weir.urls.live!, 'device=steady')
    await viewer.waitForFrame('readings', undefined, 60_000)
    viewer.close()
  }

  it(`when requests are malformed (seed ${random.seed})`, async () => {
    const requests = [
      '\0\x01\x02\r\n\r\n',
      'GET\r\n\r\n',
      `GET /v1/live HTTP/1.1\r\nHost: x\r\n${'A: b\r\n'.repeat(5_000)}\r\n`,
      `GET /v1/live?since=${'x'.repeat(100_000)} HTTP/1.1\r\nHost: x\r\n\r\n`,
      'POST /v1/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}',
      'GET /v1/live HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n',
      ...Array.from({ length: 40 }, () => random.bytes(random.between(1, 4_000))),
    ]
    for (const request of requests) {
      const answer = await new Promise<string>((resolve) => {
        const raw = connect(address.port, address.host, () => raw.end(request))
        open.push(raw)
        let got = ''
        raw.on('data', (bytes: Buffer) => {
          got += bytes.toString('latin1')
        })
        raw.on('error', () => {})
        raw.on('close', () => resolve(got))
      })
      expect(answer).not.toMatch(/^HTTP\/1\.1 [12]/)
    }
    await othersAreServed()
  })

  it('when frames are malformed, or larger than any', async () => {
    const frames: readonly (readonly [string, Buffer])[] = [
      ['reserved bits', Buffer.concat([Buffer.from([0xf1]), clientFrame(opcodes.text, Buffer.from('{}')).subarray(1)])],
      ['an opcode that is none', clientFrame(5, Buffer.from('{}'))],
      ['a continuation of nothing', clientFrame(opcodes.continuation, Buffer.from('{}'))],
      ['text that is not UTF-8', clientFrame(opcodes.text, Buffer.from([0xff, 0xfe]))],
      ['a ping that is too long', clientFrame(opcodes.ping, Buffer.alloc(126))],
      ['a length that no memory has', Buffer.from([0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0])],
      ['a length of 1 GiB', Buffer.from([0x82, 0xff, 0, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0])],
      ['100 KB of text', clientFrame(opcodes.text, Buffer.alloc(100_000, 32))],
      ['1 MB in pieces', Buffer.concat(Array.from({ length: 20 }, (_, i) => piece(i)))],
    ]
    for (const [name, bytes] of frames) {
      const bad = socket('device=nobody')
      await opened([bad])
      bad.socket.write(bytes)
      await waitFor(() => bad.isClosed, { ...patient, what: `the end of a socket with ${name}` })
    }
    for (let i = 0; i < 40; i++) {
      const bad = socket('mode=none')
      await opened([bad])
      bad.bytes(random.bytes(random.between(1, 2_000)))
      expect(await bad.closed()).toBe(4000)
    }
    await othersAreServed()
  }, 120_000)

  it('when a thousand sockets say nothing', async () => {
    const before = residentBytes()
    const idle = Array.from({ length: 1_000 }, () => socket('mode=none'))
    await opened(idle)
    await othersAreServed()
    expect((residentBytes() - before) / mebi).toBeLessThan(150)
    expect(idle.filter(({ isClosed }) => isClosed)).toEqual([])
  }, 120_000)

  it('when viewers ask for years and cursors of their own making, and read nothing', async () => {
    const text = 'x'.repeat(500)
    for (let body = 0; body < 40; body++) {
      const payloads = Array.from({ length: 500 }, (_, i) => ({ ts: firstAt + body * 500 + i, note: text }))
      const answer = await fetch(`${weir.urls.gateway}/v1/telemetry/years`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(payloads),
      })
      expect(answer.status).toBe(200)
    }
    const before = residentBytes()
    let most = before
    const made = (fields: unknown): string => `r1~${Buffer.from(JSON.stringify(fields)).toString('base64url')}`
    const far = Array.from({ length: 4 }, () => 4_000_000_000_000_000)
    const since = [String(firstAt), 'l2~', 'l2~0.0.0_1.0.0', made([[1, 1, 1, 1], [0, 0, 0, 0], far])]
    const frozen = Array.from({ length: 300 }, (_, i) => {
      const each = socket(`device=years&mode=every&since=${encodeURIComponent(since[i % since.length]!)}`)
      each.socket.on('data', () => {
        if (each.isOpen) each.socket.pause()
      })
      return each
    })
    await opened(frozen)
    for (let round = 0; round < 5; round++) {
      await othersAreServed()
      most = Math.max(most, residentBytes())
      expect((await fetch(`${weir.http}/v1/readings?device=years&limit=10&from=${firstAt}`)).status).toBe(200)
    }
    // 11 MB are in the table, and 300 asked for all of it: 3.3 GB.
    expect((most - before) / mebi).toBeLessThan(600)
  }, 300_000)

  it('and the viewer beside it all has missed nothing', async () => {
    steady.pause()
    await steady.settled()
    await waitFor(() => beside.told().length >= steady.sent, patient)
    expect(beside.told().map(({ value }) => value)).toEqual(Array.from({ length: steady.sent }, (_, i) => i))
    expect(beside.frames.map(({ type }) => type)).not.toContain('gap')
    expect([steady.broken, beside.socket.isClosed]).toEqual([undefined, false])
  }, 120_000)
})

/** Of a message of a megabyte. */
function piece(index: number): Buffer {
  return clientFrame(index === 0 ? opcodes.text : opcodes.continuation, Buffer.alloc(50_000, 32), { fin: index === 19 })
}
