// The gateway on a real port with a real log: `WebSocket /v1/ingest`.
import { afterEach, describe, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { clientFrame, ingestFrame, opcodes, type TestSocket } from '../tests/helpers/websocket.ts'
import { closeGateways, openSocket, startGateway } from './test-gateway.ts'

afterEach(closeGateways)

describe('WebSocket /v1/ingest', () => {
  it('takes what came in one segment before a close, more than is gathered at once, of two sockets in order of arrival', async () => {
    const ingest = await startGateway()
    const sent = 40
    const all = ['d1', 'd2'].map((device) => openSocket(ingest, `/v1/ingest?device=${device}`))
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

  it('takes nothing behind a message that it closes for, and says so once, though the peer closes in the same segment', async () => {
    const ingest = await startGateway()
    const socket = openSocket(ingest)
    await socket.hello()
    const frames = [5, 4, 6, 3, 7].map((id) =>
      clientFrame(opcodes.binary, ingestFrame(id, 0, '', `{"ts":${id},"a":${id}}`)),
    )
    socket.socket.write(Buffer.concat([...frames, clientFrame(opcodes.close, Buffer.from([0x03, 0xe8]))]))
    await socket.closed()
    await waitFor(() => ingest.service.totals().durableReadings > 0)
    expect((await ingest.readings()).map(({ value }) => value)).toEqual([5])
    expect(await ingest.counted('weir_gateway_sockets_closed_total', 'order')).toBe(1)
  })

  it('says hello and acknowledges up to what is durable, in one send', async () => {
    const ingest = await startGateway()
    const socket = openSocket(ingest)
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
    const ingest = await startGateway()
    const socket = openSocket(ingest, '/v1/ingest')
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
    const ingest = await startGateway()
    const socket = openSocket(ingest, '/v1/ingest?device=boiler%401')
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
    const ingest = await startGateway()
    const socket = openSocket(ingest)
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
    const ingest = await startGateway()
    const socket = openSocket(ingest)
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
    const ingest = await startGateway()
    const socket = openSocket(ingest)
    await socket.hello()
    send(socket)
    expect(await socket.closed()).toBe(code)
    await waitFor(() => ingest.service.totals().connections === 0)
  })

  it('closes on a frame that names no device on a socket that has none: 4000', async () => {
    const ingest = await startGateway()
    const socket = openSocket(ingest, '/v1/ingest')
    await socket.hello()
    socket.json({ id: 1, payload: { a: 1 } })
    expect(await socket.closed()).toBe(4000)
  })

  it('refuses an upgrade from a page of another site, and takes one of this host', async () => {
    const ingest = await startGateway()
    for (const origin of ['http://evil.example', 'null', 'http://127.0.0.1.evil.example']) {
      const socket = openSocket(ingest, '/v1/ingest?device=d1', { headers: { Origin: origin } })
      await socket.closed()
      expect(socket.head).toMatch(/^HTTP\/1.1 403 /)
    }
    await openSocket(ingest, '/v1/ingest?device=d1', { headers: { Origin: 'http://127.0.0.1:8080' } }).hello()
  })

  it.each(['/v1/ingest?device=a%20b', '/v1/ingest?device=', '/v1/ingest?device=a&device=b', '/v1/ingest?who=a'])(
    'refuses %s with 400',
    async (path) => {
      const ingest = await startGateway()
      const socket = openSocket(ingest, path)
      await socket.closed()
      expect(socket.head).toMatch(/^HTTP\/1.1 400 /)
    },
  )

  it('closes with 1013 when what is not durable uses the memory, and what was acknowledged is kept', async () => {
    const ingest = await startGateway({ memoryBytes: 64 * 1024 })
    ingest.stall()
    const socket = openSocket(ingest)
    const many = { ts: Array.from({ length: 2_000 }, (_, i) => i + 1), values: { a: Array(2_000).fill(1) } }
    await socket.hello()
    socket.json({ id: 1, payload: many })
    socket.json({ id: 2, payload: { a: 1 } })
    expect(await socket.closed()).toBe(1013)
    ingest.goOn()
  })

  it('acknowledges what was taken before it stops, and closes with 1001', async () => {
    const ingest = await startGateway()
    const socket = openSocket(ingest)
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
