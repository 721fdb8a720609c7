// The gateway on a real port with a real log: `POST /v1/telemetry/{device}`.
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import type { RunningIngest } from '../tests/helpers/running-ingest.ts'
import { usedBytes } from '../tests/helpers/used-bytes.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { ingestLimits } from './limits.ts'
import { closeGateways, startGateway } from './test-gateway.ts'

afterEach(closeGateways)

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

const upgrade =
  'Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=='

describe('POST /v1/telemetry/{device}', () => {
  it('answers with what was accepted, once it is durable', async () => {
    const ingest = await startGateway()
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
    const ingest = await startGateway()
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
    const ingest = await startGateway()
    for (const body of ['{"a"', '', '[1]', '{"a": [1]}']) {
      const { status, headers, body: problem } = await post(ingest, body)
      expect(status).toBe(422)
      expect(headers.get('content-type')).toMatch(/^application\/problem\+json/)
      expect(problem.type).toBe('/problems/nothing-usable')
      expect(problem.deadLetter).toMatch(/^[0-9a-f]{16}-[0-9a-f]{8}$/)
      // The gateway has no such route: whoever reads it must know where to ask.
      expect(problem.detail).toContain(`GET /v1/dead-letters/${problem.deadLetter} on the API’s port (WEIR_HTTP_PORT)`)
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
    ['a second length', 400, 'POST /v1/telemetry/d HTTP/1.1\r\nContent-Length: 8'],
    ['the same length twice', 400, 'POST /v1/telemetry/d HTTP/1.1\r\nContent-Length: 7'],
    ['a second length on another route', 400, 'GET /healthz HTTP/1.1\r\nContent-Length: 8'],
    ['a socket that is not opened', 426, 'GET /v1/ingest HTTP/1.1'],
  ])('refuses %s with %i', async (_name, status, head) => {
    const ingest = await startGateway()
    const got = await raw(ingest, `${head}\r\nHost: 127.0.0.1\r\nContent-Length: 7\r\n\r\n{"a":1}`)
    expect(got).toMatch(new RegExp(`^HTTP/1.1 ${status} `))
    const problem = JSON.parse(got.slice(got.indexOf('\r\n\r\n')))
    expect(problem).toMatchObject({ status, type: expect.stringMatching(/^\/problems\/[a-z-]+$/) })
    expect(problem.detail.length).toBeGreaterThan(10)
    expect(ingest.service.totals()).toMatchObject({ receivedReadings: 0, refused: 1 })
  })

  it.each(['identity', 'xchunked', 'gzip, chunked', 'chunked, identity', 'chunked\r\nTransfer-Encoding: identity'])(
    'refuses the transfer encoding %s, which others might read otherwise',
    async (encoding) => {
      const ingest = await startGateway()
      const head = `POST /v1/telemetry/d HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: ${encoding}\r\n\r\n`
      const got = await raw(ingest, `${head}7\r\n{"a":1}\r\n0\r\n\r\n`)
      expect(got).toMatch(/^HTTP\/1.1 400 /)
      expect(got).toContain('/problems/ambiguous-length')
      expect(ingest.service.totals()).toMatchObject({ receivedReadings: 0, refused: 1 })
    },
  )

  it('names the content types that there are', async () => {
    const ingest = await startGateway()
    const { status, body } = await post(ingest, 'x', { headers: { 'content-type': 'text/html' } })
    expect(status).toBe(415)
    expect(body.detail).toMatch(/application\/json.*application\/x-ndjson/)
  })

  it.each([
    ['POST /v1/telemetry/d?who=a HTTP/1.1', 'invalid-parameter', 'who'],
    ['POST /v1/telemetry/a%20b HTTP/1.1', 'invalid-device-name', 'device'],
    [`GET /v1/ingest?who=a HTTP/1.1\r\n${upgrade}`, 'invalid-parameter', 'who'],
    [`GET /v1/ingest?device=a&device=b HTTP/1.1\r\n${upgrade}`, 'invalid-parameter', 'device'],
    [`GET /v1/ingest?device=a%20b HTTP/1.1\r\n${upgrade}`, 'invalid-device-name', 'device'],
  ])('says which parameter is wrong, for programs too: %s', async (head, slug, path) => {
    const answer = await raw(await startGateway(), `${head}\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n`)
    const problem = JSON.parse(answer.slice(answer.indexOf('\r\n\r\n')))
    expect(problem).toMatchObject({ type: `/problems/${slug}`, status: 400, errors: [{ path }] })
    expect(problem.detail).toContain(problem.errors[0].message)
  })

  it('refuses a large body by its length before it is read, and one in chunks once it is large', async () => {
    const ingest = await startGateway()
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
    const ingest = await startGateway()
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

  it('holds a body that comes byte by byte in about its own size', async () => {
    const ingest = await startGateway()
    const { host, port } = ingest.gateway
    const size = 500_000
    const before = usedBytes()
    const socket = connect(port, host)
    socket.write('POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n')
    socket.write('1\r\n \r\n'.repeat(size))
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === size + 1)
    // An object a byte would be 70 MB.
    expect(usedBytes() - before).toBeLessThan(20_000_000)
    socket.write('6\r\n"a":1}\r\n0\r\n\r\n')
    await waitFor(() => ingest.service.totals().durableReadings === 1)
    socket.destroy()
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 0)
  })

  it('gives a body that does not come to its end 408', async () => {
    const ingest = await startGateway()
    const got = await raw(ingest, 'POST /v1/telemetry/d HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"a":1}')
    expect(got).toMatch(/^HTTP\/1.1 408 /)
    expect(ingest.service.totals().receivedReadings).toBe(0)
  })

  it('refuses with 503 and Retry-After while what is not durable uses the memory, and takes again after', async () => {
    const ingest = await startGateway({ memoryBytes: 64 * 1024 })
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
