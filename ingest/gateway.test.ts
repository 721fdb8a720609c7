// The gateway on a real port with a real log: HTTP and /v1/ingest. MQTT over WebSocket has a file of its own.
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { type IngestSettings, type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { clientFrame, ingestFrame, opcodes, TestSocket } from '../tests/helpers/websocket.ts'
import { ingestLimits } from './limits.ts'

const running: RunningIngest[] = []
const sockets: TestSocket[] = []

afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const ingest of running.splice(0)) await ingest.close()
})

async function start(settings?: IngestSettings): Promise<RunningIngest> {
  const ingest = await runIngest(settings)
  running.push(ingest)
  return ingest
}

function open(ingest: RunningIngest, path = '/v1/ingest?device=d1', headers?: Record<string, string>): TestSocket {
  const socket = new TestSocket(ingest.gateway, path, headers ? { headers } : {})
  sockets.push(socket)
  return socket
}

interface Answered {
  readonly status: number
  readonly headers: Headers
  readonly body: { accepted?: number; deadLettered?: number; type?: string; detail?: string; deadLetter?: string }
}

async function post(
  ingest: RunningIngest,
  body: string | Uint8Array<ArrayBuffer> | ReadableStream,
  { device = 'd1', headers = { 'content-type': 'application/json' } as Record<string, string>, method = 'POST' } = {},
): Promise<Answered> {
  const { host, port } = ingest.gateway
  const response = await fetch(`http://${host}:${port}/v1/telemetry/${device}`, {
    method,
    ...(method !== 'GET' && { body, duplex: 'half' }),
    headers,
    signal: AbortSignal.timeout(60_000),
  } as RequestInit)
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text) }
}

/** Bytes as they are; resolves with everything that came until the other side closed. */
function raw(ingest: RunningIngest, bytes: string | Buffer): Promise<string> {
  const { host, port } = ingest.gateway
  return new Promise((resolve) => {
    const socket = connect(port, host, () => socket.write(bytes))
    let got = ''
    socket.on('data', (chunk: Buffer) => {
      got += chunk.toString('latin1')
    })
    socket.on('error', () => {})
    socket.on('close', () => resolve(got))
  })
}

describe('POST /v1/telemetry/{device}', () => {
  it('answers with what was accepted, once it is durable', async () => {
    const ingest = await start()
    ingest.stall()
    let isAnswered = false
    const answer = post(ingest, '{"ts": 1700000000000, "values": {"a": 1, "b": 2, "c": [1]}}').then((given) => {
      isAnswered = true
      return given
    })
    await waitFor(() => ingest.service.totals().receivedReadings === 3)
    expect(isAnswered).toBe(false)
    ingest.goOn()
    expect(await answer).toMatchObject({ status: 200, body: { accepted: 2, deadLettered: 1 } })
    expect(await ingest.readings()).toEqual([
      { device: 'd1', metric: 'a', observedAt: 1_700_000_000_000_000, value: 1 },
      { device: 'd1', metric: 'b', observedAt: 1_700_000_000_000_000, value: 2 },
    ])
  })

  it('takes NDJSON, a body without a content type, a body in chunks, and an encoded name', async () => {
    const ingest = await start()
    const ndjson = { 'content-type': 'application/x-ndjson; charset=utf-8' }
    expect((await post(ingest, '{"a":1}\n{"a":2}\nnonsense', { headers: ndjson })).body).toEqual({
      accepted: 2,
      deadLettered: 1,
    })
    expect((await post(ingest, Buffer.from('{"a":1}'), { headers: {}, device: 'x%40y' })).status).toBe(200)
    const chunks = new ReadableStream({
      start(controller) {
        controller.enqueue(Buffer.from('{"a"'))
        setTimeout(() => {
          controller.enqueue(Buffer.from(':1}'))
          controller.close()
        }, 30)
      },
    })
    expect((await post(ingest, chunks)).body).toEqual({ accepted: 1, deadLettered: 0 })
    expect((await ingest.readings()).map(({ device }) => device)).toContain('x@y')
  })

  it('answers 422 with the id of the dead letter when nothing could be used', async () => {
    const ingest = await start()
    for (const body of ['{"a"', '', '[1]', '{"a": [1]}']) {
      const { status, headers, body: problem } = await post(ingest, body)
      expect(status).toBe(422)
      expect(headers.get('content-type')).toMatch(/^application\/problem\+json/)
      expect(problem.type).toBe('/problems/nothing-usable')
      expect(problem.deadLetter).toMatch(/^[0-9a-f]{16}-[0-9a-f]{8}$/)
    }
    expect(await ingest.deadLetterCount()).toBe(4)
    expect((await post(ingest, '{"a": null}')).body).toEqual({ accepted: 0, deadLettered: 0 })
  })

  it.each([
    ['another route', 404, 'POST /v2/telemetry/d HTTP/1.1'],
    ['another method', 405, 'PUT /v1/telemetry/d HTTP/1.1'],
    ['a name that no device has', 400, 'POST /v1/telemetry/a%20b HTTP/1.1'],
    ['a name that is too long', 400, `POST /v1/telemetry/${'a'.repeat(129)} HTTP/1.1`],
    ['no name', 400, 'POST /v1/telemetry/ HTTP/1.1'],
    ['a name that is not UTF-8', 400, 'POST /v1/telemetry/%ff%fe HTTP/1.1'],
    ['a name with a null', 400, 'POST /v1/telemetry/a%00 HTTP/1.1'],
    ['a name that climbs', 404, 'POST /v1/telemetry/../etc HTTP/1.1'],
    ['a parameter', 400, 'POST /v1/telemetry/d?a=1 HTTP/1.1'],
    ['another content type', 415, 'POST /v1/telemetry/d HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded'],
    ['a content type without a codec', 415, 'POST /v1/telemetry/d HTTP/1.1\r\nContent-Type: application/vnd.x'],
    ['a compressed body', 415, 'POST /v1/telemetry/d HTTP/1.1\r\nContent-Encoding: gzip'],
    ['a page of another site', 403, 'POST /v1/telemetry/d HTTP/1.1\r\nOrigin: http://evil.example'],
    ['a page without an origin', 403, 'POST /v1/telemetry/d HTTP/1.1\r\nOrigin: null'],
    ['a socket that is not opened', 426, 'GET /v1/ingest HTTP/1.1'],
  ])('refuses %s with %i', async (_name, status, head) => {
    const ingest = await start()
    const got = await raw(ingest, `${head}\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\n{"a":1}`)
    expect(got).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    const problem = JSON.parse(got.slice(got.indexOf('\r\n\r\n')))
    expect(problem).toMatchObject({ status, type: expect.stringMatching(/^\/problems\/[a-z-]+$/) })
    expect(problem.detail.length).toBeGreaterThan(10)
    expect(ingest.service.totals()).toMatchObject({ receivedReadings: 0, refused: 1 })
  })

  it('names the content types that there are', async () => {
    const ingest = await start()
    const { status, body } = await post(ingest, 'x', { headers: { 'content-type': 'text/html' } })
    expect(status).toBe(415)
    expect(body.detail).toMatch(/application\/json.*application\/x-ndjson/)
  })

  it('refuses a large body by its length before it is read, and one in chunks once it is large', async () => {
    const ingest = await start()
    const head = 'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\n'
    expect(await raw(ingest, `${head}Content-Length: 1048577\r\n\r\n`)).toMatch(/^HTTP\/1.1 413 /)
    const chunk = `${(65_536).toString(16)}\r\n${'x'.repeat(65_536)}\r\n`
    const chunked = await raw(ingest, `${head}Transfer-Encoding: chunked\r\n\r\n${chunk.repeat(17)}`)
    expect(chunked).toMatch(/^HTTP\/1.1 413 /)
    const largest = JSON.stringify({ a: 1 }).padEnd(ingestLimits.bodyBytesMax)
    expect((await post(ingest, largest)).status).toBe(200)
    expect(ingest.service.totals()).toMatchObject({ receivedReadings: 1, refused: 2 })
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 0)
  })

  it('keeps nothing of a request that is given up', async () => {
    const ingest = await start()
    const { host, port } = ingest.gateway
    const socket = connect(port, host)
    socket.write('POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"a":1}')
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 7)
    socket.destroy()
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 0)
    // And one that is given up while it waits for the log: kept, since it was whole, and answered to nobody.
    ingest.stall()
    const other = connect(port, host)
    other.write('POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n{"a":2}')
    await waitFor(() => ingest.service.totals().receivedReadings === 1)
    other.destroy()
    ingest.goOn()
    await waitFor(() => ingest.service.totals().durableReadings === 1)
    expect((await post(ingest, '{"a":3}')).status).toBe(200)
  })

  it('gives a body that does not come to its end 408', async () => {
    const ingest = await start()
    const got = await raw(ingest, 'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"a":1}')
    expect(got).toMatch(/^HTTP\/1.1 408 /)
    expect(ingest.service.totals().receivedReadings).toBe(0)
  })

  it('refuses with 503 and Retry-After while what is not durable uses the memory, and takes again after', async () => {
    const ingest = await start({ memoryBytes: 64 * 1024 })
    ingest.stall()
    const many = JSON.stringify({
      ts: Array.from({ length: 2_000 }, (_, i) => i + 1),
      values: { a: Array(2_000).fill(1) },
    })
    const first = post(ingest, many)
    await waitFor(() => ingest.service.totals().receivedReadings > 0)
    const refused = await post(ingest, '{"a":1}')
    expect(refused).toMatchObject({ status: 503, body: { type: '/problems/intake-busy' } })
    expect(refused.headers.get('retry-after')).toBe('1')
    ingest.goOn()
    expect((await first).status).toBe(200)
    expect((await post(ingest, '{"a":1}')).status).toBe(200)
  })
})

describe('WebSocket /v1/ingest', () => {
  it('takes what came in one segment before a close, more than is gathered at once, of two sockets in order of arrival', async () => {
    const ingest = await start()
    const sent = 40
    const all = ['d1', 'd2'].map((device) => open(ingest, `/v1/ingest?device=${device}`))
    for (const socket of all) await socket.hello()
    for (const socket of all) {
      const frames = Array.from({ length: sent }, (_, id) => {
        const payload = `{"ts": ${1_700_000_000_000 + id}, "values": {"a": ${id}}}`.padEnd(20_000)
        return clientFrame(opcodes.binary, ingestFrame(id, 0, '', payload))
      })
      socket.socket.write(Buffer.concat([...frames, clientFrame(opcodes.close, Buffer.from([0x03, 0xe8]))]))
    }
    for (const socket of all) await socket.closed()
    await waitFor(() => ingest.service.totals().durableReadings === 2 * sent)
    const kept = await ingest.readings()
    for (const device of ['d1', 'd2']) {
      const values = kept.filter((each) => each.device === device).map(({ value }) => value)
      expect(values).toEqual(Array.from({ length: sent }, (_, id) => id))
    }
  })

  it('says hello and acknowledges up to what is durable, in one send', async () => {
    const ingest = await start()
    const socket = open(ingest)
    expect(await socket.hello()).toEqual({ type: 'hello', window: 64, maxBytes: 65_536 })
    ingest.stall()
    for (let id = 1; id <= 64; id++) socket.json({ id, payload: { ts: 1_700_000_000_000 + id, a: id } })
    await waitFor(() => ingest.service.totals().receivedReadings === 64)
    expect(socket.messages).toHaveLength(1)
    ingest.goOn()
    await waitFor(() => socket.ackedUpTo === 64)
    expect(socket.messages.length).toBeLessThanOrEqual(3)
    expect((await ingest.readings()).map(({ value }) => value)).toEqual(Array.from({ length: 64 }, (_, i) => i + 1))
  })

  it('takes text in its codecs, binary frames, and many devices on one socket', async () => {
    const ingest = await start()
    const socket = open(ingest, '/v1/ingest')
    await socket.hello()
    socket.text(
      ' { "x" : [{"a":"}"}], "codec":"ndjson", "device" : "d\\u0031", "payload":"{\\"a\\":1}\\n{\\"a\\":2}", "id": 5 } ',
    )
    socket.json({ id: 7, device: 'd2', codec: 'json', payload: [{ b: 3 }, { b: 4 }] })
    socket.bytes(ingestFrame(9, 0, 'd3', '{"c":5}'))
    socket.bytes(ingestFrame(10, 1, 'd3', '{"c":6}\n{"c":7}'))
    socket.bytes(ingestFrame(0xffff_ffff, 0, 'd3', '{"c":8}'))
    await waitFor(() => socket.ackedUpTo === 0xffff_ffff)
    const kept = (await ingest.readings()).map(({ device, value }) => `${device}=${value}`).sort()
    expect(kept).toEqual(['d1=1', 'd1=2', 'd2=3', 'd2=4', 'd3=5', 'd3=6', 'd3=7', 'd3=8'])
  })

  it('takes the device of the socket where a frame names none', async () => {
    const ingest = await start()
    const socket = open(ingest, '/v1/ingest?device=boiler%401')
    await socket.hello()
    socket.bytes(ingestFrame(1, 0, '', '{"a":1}'))
    socket.json({ id: 2, device: 'boiler@1', payload: { a: 2 } })
    socket.json({ id: 3, device: 'another', payload: { a: 3 } })
    await waitFor(() => socket.messages.some(({ type }) => type === 'reject'))
    expect(socket.messages.find(({ type }) => type === 'reject')).toEqual({
      type: 'reject',
      id: 3,
      reason: 'not-this-device',
    })
    expect((await ingest.readings()).map(({ device, value }) => [device, value])).toEqual([
      ['boiler@1', 1],
      ['boiler@1', 2],
    ])
  })

  it('rejects what cannot be used with reason and dead letter, in order with what can', async () => {
    const ingest = await start()
    const socket = open(ingest)
    await socket.hello()
    ingest.stall()
    socket.json({ id: 1, payload: { a: 1 } })
    socket.json({ id: 2, payload: 'words' })
    socket.json({ id: 3, codec: 'avro', payload: {} })
    socket.text('{"id":4,"payload":{"a":}}')
    socket.json({ id: 5, device: 'no such name', payload: { a: 1 } })
    socket.json({ id: 6, payload: { a: 2, b: [1] } })
    socket.bytes(ingestFrame(7, 6, '', 'a b=1'))
    await waitFor(() => ingest.service.totals().receivedReadings >= 6)
    ingest.goOn()
    await waitFor(() => socket.messages.some(({ id }) => id === 7))
    const rejects = socket.messages.filter(({ type }) => type === 'reject')
    expect(rejects.map(({ id, reason }) => [id, reason])).toEqual([
      [2, 'not-an-object'],
      [3, 'unsupported-codec'],
      [4, 'malformed-payload'],
      [5, 'invalid-device-name'],
      [7, 'unsupported-codec'],
    ])
    const isLetter = expect.stringMatching(/^[0-9a-f]{16}-[0-9a-f]{8}$/)
    expect(rejects.map(({ deadLetter }) => deadLetter)).toEqual([isLetter, isLetter, isLetter, undefined, isLetter])
    expect(socket.ackedUpTo).toBe(6)
    // Settled: the whole window is free again.
    for (let id = 100; id < 164; id++) socket.json({ id, payload: { a: id } })
    await waitFor(() => socket.ackedUpTo === 163)
  })

  it('closes a socket that has more unsettled than its window: 4008', async () => {
    const ingest = await start()
    const socket = open(ingest)
    await socket.hello()
    ingest.stall()
    for (let id = 1; id <= 65; id++) socket.json({ id, payload: { a: 1 } })
    expect(await socket.closed()).toBe(4008)
    expect(socket.closeReason).toBe('window')
    expect(ingest.service.totals().receivedReadings).toBe(64)
    expect(socket.ackedUpTo).toBe(-1)
    await waitFor(() => ingest.service.totals().connections === 0)
  })

  it.each<[string, number, (socket: TestSocket) => void]>([
    ['ids that stand still', 4009, (socket) => [1, 1].map((id) => socket.json({ id, payload: {} }))],
    ['ids that go back', 4009, (socket) => [5, 4].map((id) => socket.bytes(ingestFrame(id, 0, '', '{}')))],
    ['a message above maxBytes', 1009, (socket) => socket.text(`{"id":1,"payload":"${'x'.repeat(65_536)}"}`)],
    ['a binary message above maxBytes', 1009, (socket) => socket.bytes(Buffer.alloc(65_537))],
    ['no JSON', 4000, (socket) => socket.text('nonsense')],
    ['no object', 4000, (socket) => socket.text('[]')],
    ['nothing', 4000, (socket) => socket.text('')],
    ['half an object', 4000, (socket) => socket.text('{"id":1,"payload":{"a":1}')],
    ['more than an object', 4000, (socket) => socket.text('{"id":1,"payload":{}}{}')],
    ['a comma too many', 4000, (socket) => socket.text('{"id":1,"payload":{},}')],
    ['no id', 4000, (socket) => socket.text('{"payload":{}}')],
    ['an id that is no number', 4000, (socket) => socket.text('{"id":"1","payload":{}}')],
    ['an id below 0', 4000, (socket) => socket.text('{"id":-1,"payload":{}}')],
    ['an id that is no whole number', 4000, (socket) => socket.text('{"id":1.5,"payload":{}}')],
    ['an id beyond what is exact', 4000, (socket) => socket.text('{"id":9007199254740993,"payload":{}}')],
    ['no payload', 4000, (socket) => socket.text('{"id":1}')],
    ['a device that is no text', 4000, (socket) => socket.text('{"id":1,"device":1,"payload":{}}')],
    ['a codec that is no text', 4000, (socket) => socket.text('{"id":1,"codec":{},"payload":{}}')],
    ['a short binary frame', 4000, (socket) => socket.bytes(Buffer.from([0, 0, 0, 1, 0]))],
    ['a device beyond the frame', 4000, (socket) => socket.bytes(Buffer.from([0, 0, 0, 1, 0, 9, 65]))],
    ['a codec that there is no number for', 4000, (socket) => socket.bytes(ingestFrame(1, 7, '', '{}'))],
  ])('closes on %s: %i', async (_name, code, send) => {
    const ingest = await start()
    const socket = open(ingest)
    await socket.hello()
    send(socket)
    expect(await socket.closed()).toBe(code)
    await waitFor(() => ingest.service.totals().connections === 0)
  })

  it('closes on a frame that names no device on a socket that has none: 4000', async () => {
    const ingest = await start()
    const socket = open(ingest, '/v1/ingest')
    await socket.hello()
    socket.json({ id: 1, payload: { a: 1 } })
    expect(await socket.closed()).toBe(4000)
  })

  it('refuses an upgrade from a page of another site, and takes one of this host', async () => {
    const ingest = await start()
    for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1.evil.example']) {
      const socket = open(ingest, '/v1/ingest?device=d1', { Origin: origin })
      await socket.closed()
      expect(socket.head).toMatch(/^HTTP\/1.1 403 /)
    }
    await open(ingest, '/v1/ingest?device=d1', { Origin: 'http://127.0.0.1:8080' }).hello()
  })

  it.each(['/v1/ingest?device=a%20b', '/v1/ingest?device=', '/v1/ingest?device=a&device=b', '/v1/ingest?who=a'])(
    'refuses %s with 400',
    async (path) => {
      const ingest = await start()
      const socket = open(ingest, path)
      await socket.closed()
      expect(socket.head).toMatch(/^HTTP\/1.1 400 /)
    },
  )

  it('closes with 1013 when what is not durable uses the memory, and what was acknowledged is kept', async () => {
    const ingest = await start({ memoryBytes: 64 * 1024 })
    ingest.stall()
    const socket = open(ingest)
    const many = { ts: Array.from({ length: 2_000 }, (_, i) => i + 1), values: { a: Array(2_000).fill(1) } }
    await socket.hello()
    socket.json({ id: 1, payload: many })
    socket.json({ id: 2, payload: { a: 1 } })
    expect(await socket.closed()).toBe(1013)
    ingest.goOn()
  })

  it('acknowledges what was taken before it stops, and closes with 1001', async () => {
    const ingest = await start()
    const socket = open(ingest)
    await socket.hello()
    ingest.stall()
    socket.json({ id: 1, payload: { a: 1 } })
    await waitFor(() => ingest.service.totals().receivedReadings === 1)
    const draining = ingest.service.drain(AbortSignal.timeout(60_000))
    ingest.goOn()
    await draining
    expect(await socket.closed()).toBe(1001)
    expect(socket.ackedUpTo).toBe(1)
  })
})
