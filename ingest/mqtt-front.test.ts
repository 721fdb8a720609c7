// What a hostile or broken client may send, and what plain aedes let pass (docs/decisions/0002-mqtt-front.md). Through real sockets, with the real log.
import { createServer } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { StartError } from '../runtime/errors.ts'
import { connectPacket, field, packet, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { openAuth } from './device-auth.ts'

let ingest: RunningIngest
const opened: RawMqtt[] = []

async function open(): Promise<RawMqtt> {
  const client = await RawMqtt.open(ingest.address)
  opened.push(client)
  return client
}

async function connected(clientId: string, options = {}): Promise<RawMqtt> {
  const client = await RawMqtt.connected(ingest.address, clientId, options)
  opened.push(client)
  return client
}

const subscribePacket = (id: number, ...filters: string[]) =>
  packet(0x82, uint16(id), ...filters.flatMap((filter) => [field(filter), Buffer.from([0])]))

afterEach(async () => {
  for (const client of opened.splice(0)) client.destroy()
  await ingest.close()
})

describe('packets that MQTT does not allow', () => {
  beforeEach(async () => {
    ingest = await runIngest()
  })

  const good = publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}', id: 9 })
  const cases: [string, Buffer][] = [
    ['a length of five bytes', Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff, 1])],
    ['packet type 0', Buffer.from([0x00, 0])],
    ['packet type 15', Buffer.from([0xf0, 0])],
    ['a CONNACK from a client', Buffer.from([0x20, 2, 0, 0])],
    ['reserved flags', Buffer.from([0xc1, 0])],
    ['a SUBSCRIBE with wrong flags', Buffer.from([0x80, ...subscribePacket(1, 'devices/d/c').subarray(1)])],
    ['a PINGREQ with a body', Buffer.from([0xc0, 1, 0])],
    ['a PUBACK that is too long', Buffer.from([0x40, 3, 0, 1, 0])],
    ['QoS 3', Buffer.from([0x36, ...good.subarray(1)])],
    [
      'DUP with QoS 0',
      Buffer.from([0x38, ...publishPacket({ topic: 'devices/d/telemetry', payload: '1', qos: 0 }).subarray(1)]),
    ],
    ['packet id 0', publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}', id: 0 })],
    ['an empty topic', publishPacket({ topic: '', payload: '{"x":1}' })],
    ['a topic with a wildcard', publishPacket({ topic: 'devices/+/telemetry', payload: '{"x":1}' })],
    ['a topic with NUL', publishPacket({ topic: 'devices/a\0/telemetry', payload: '{"x":1}' })],
    ['a topic that is not UTF-8', publishPacket({ topic: Buffer.from([0x64, 0xc3, 0x28]), payload: '{"x":1}' })],
    ['a topic with a surrogate', publishPacket({ topic: Buffer.from([0xed, 0xa0, 0x80]), payload: '{"x":1}' })],
    ['a topic longer than its packet', Buffer.from([0x32, 4, 0, 200, 1, 1])],
    ['a topic of 101 levels', publishPacket({ topic: `devices/d${'/a'.repeat(99)}`, payload: '' })],
    ['a second CONNECT', connectPacket('other')],
    ['a SUBSCRIBE without filters', packet(0x82, uint16(1))],
    ['a SUBSCRIBE with packet id 0', subscribePacket(0, 'devices/d/c')],
    ['a filter with # in the middle', subscribePacket(1, 'devices/#/c')],
    ['a packet above the limit', Buffer.from([0x32, 0x80, 0x80, 0x80, 0x01])],
    ['a device name that is none', publishPacket({ topic: 'devices/a b/telemetry', payload: '{"x":1}' })],
    ['a codec that is none', publishPacket({ topic: 'devices/d/telemetry/yaml', payload: '{"x":1}' })],
    ['a topic outside devices/', publishPacket({ topic: 'home/kitchen', payload: '{"x":1}' })],
    ['a forged $SYS message', publishPacket({ topic: '$SYS/x/new/clients', payload: 'good' })],
  ]

  it.each(cases)('%s closes the connection, unacknowledged', async (_, bytes) => {
    const bad = await connected('bad')
    // Another publish right behind: what comes after the offence is not handled either.
    bad.send(Buffer.concat([bytes, good]))
    await bad.closed()
    expect(bad.packets).toEqual([])
    const other = await connected('good')
    await other.publish('devices/good/telemetry', '{"x":1}')
    expect((await ingest.readings()).map(({ device }) => device)).toEqual(['good'])
    expect(await ingest.counted('weir_mqtt_connections_closed_total')).toBe(1)
  })

  it('a payload that can not be used is acknowledged and kept as a dead letter, and the device goes on', async () => {
    const device = await connected('d')
    await device.publish('devices/d/telemetry', '{"x":', 1)
    await device.publish('devices/d/telemetry', '', 2)
    await device.publish('devices/d/telemetry', '{"x":1}', 3)
    expect(await ingest.deadLetterCount()).toBe(2)
    expect(await ingest.readings()).toMatchObject([{ device: 'd', metric: 'x', value: 1 }])
  })
})

describe('CONNECT', () => {
  beforeEach(async () => {
    ingest = await runIngest()
  })

  it('must be the first packet', async () => {
    for (const bytes of [
      publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}' }),
      subscribePacket(1, 'devices/d/c'),
      Buffer.from([0xc0, 0]),
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
    ]) {
      const client = await open()
      client.send(bytes)
      await client.closed()
      expect(client.packets).toEqual([])
    }
    expect(await ingest.readings()).toEqual([])
  })

  it('of MQTT 5 is answered in the shape of MQTT 5, and closed', async () => {
    const client = await open()
    client.send(connectPacket('five', { level: 5 }))
    const answer = await client.next()
    expect([answer.type, ...answer.body]).toEqual([2, 0, 0x84, 0])
    await client.closed()
  })

  it.each([0, 3, 6, 255])('of version %i by the name MQTT is answered with code 1, and closed', async (level) => {
    const client = await open()
    client.send(connectPacket('odd', { level }))
    expect([...(await client.next()).body]).toEqual([0, 1])
    await client.closed()
  })

  it('of MQTT 3.1 is welcome, with a client id of up to 23 characters', async () => {
    const client = await connected('a23456789012345678901234'.slice(0, 23), { protocol: 'MQIsdp', level: 3 })
    await client.publish('devices/old/telemetry', '{"x":1}')
    const long = await open()
    long.send(connectPacket('a'.repeat(24), { protocol: 'MQIsdp', level: 3 }))
    expect([...(await long.next()).body]).toEqual([0, 2])
    await long.closed()
  })

  it('with an empty client id is welcome only with a clean session', async () => {
    const anonymous = await connected('')
    await anonymous.publish('devices/d/telemetry', '{"x":1}')
    const kept = await open()
    kept.send(connectPacket('', { clean: false }))
    expect([...(await kept.next()).body]).toEqual([0, 2])
    await kept.closed()
  })

  it.each([
    ['too long', 'x'.repeat(129)],
    ['with a control character', 'a\u0007b'],
  ])('with a client id that is %s is refused with code 2', async (_, clientId) => {
    const client = await open()
    client.send(connectPacket(clientId))
    expect([...(await client.next()).body]).toEqual([0, 2])
    await client.closed()
  })

  it('that announces more than 16 KiB is closed at its header, with 200 MB as with one byte too many', async () => {
    for (const header of [
      [0x10, 0xff, 0xff, 0xff, 0x5f],
      [0x10, 0x81, 0x80, 0x01],
    ]) {
      const client = await open()
      client.send(Buffer.from(header))
      await client.closed()
    }
    expect(await ingest.counted('weir_mqtt_connections_closed_total', 'connect-too-large')).toBe(2)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })

  it.each([
    ['a reserved flag', 1],
    ['a will QoS of 3', 0x1e],
    ['a will QoS without a will', 0x0a],
    ['a password without a name', 0x42],
  ])('with %s is closed', async (_, flags) => {
    const client = await open()
    client.send(packet(0x10, field('MQTT'), Buffer.from([4, flags, 0, 0]), field('d'), field('t'), field('p')))
    await client.closed()
    expect(client.packets).toEqual([])
  })

  it('with a will outside devices/ is refused with code 5', async () => {
    const client = await open()
    client.send(packet(0x10, field('MQTT'), Buffer.from([4, 6, 0, 0]), field('d'), field('home/x'), field('gone')))
    expect([...(await client.next()).body]).toEqual([0, 5])
    await client.closed()
  })

  it('of a client id in use takes it over', async () => {
    const first = await connected('twin')
    const second = await connected('twin')
    await first.closed()
    await second.publish('devices/twin/telemetry', '{"x":1}')
    expect(ingest.service.totals().connections).toBe(1)
  })
})

describe('before the answer to CONNECT', () => {
  const publish = publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}', id: 5 })
  const subscribe = subscribePacket(6, 'devices/d/#')

  it('nothing is handled, and afterwards everything, in order', async () => {
    let answer: (code: 0) => void = () => {}
    ingest = await runIngest({ authenticate: () => new Promise((resolve) => (answer = resolve)) })
    const client = await open()
    client.send(Buffer.concat([connectPacket('slow'), publish]))
    client.send(Buffer.concat([publish, subscribe]))
    await waitFor(async () => (await ingest.counted('weir_ingest_held_bytes')) > 0)
    expect(client.packets).toEqual([])
    expect(ingest.service.totals().receivedReadings).toBe(0)
    answer(0)
    await waitFor(() => client.packets.length >= 4, { what: 'CONNACK, two PUBACK and SUBACK' })
    expect(
      client.packets
        .slice(0, 4)
        .map(({ type }) => type)
        .sort(),
    ).toEqual([2, 4, 4, 9])
    expect(client.packets[0]!.type).toBe(2)
  })

  it('nothing of a client that is refused is kept, delivered or acknowledged, padded CONNECT or not', async () => {
    ingest = await runIngest({
      authenticate: async (connect) => {
        await new Promise((resolve) => setImmediate(resolve))
        return connect.clientId === 'good' ? 0 : 5
      },
    })
    const good = await connected('good')
    good.send(subscribe)
    expect((await good.next()).type).toBe(9)
    const withPassword = (length: number) =>
      packet(
        0x10,
        field('MQTT'),
        Buffer.from([4, 0xc2, 0, 0]),
        field('bad'),
        field('u'),
        field(Buffer.alloc(length, 97)),
      )
    // 65,536 bytes fill one read of the socket, which is what let the next packet past aedes.
    for (const passwordLength of [1, 16_000, 65_509]) {
      const bad = await open()
      bad.send(Buffer.concat([withPassword(passwordLength), publish, subscribe]))
      await bad.closed()
      const expected = passwordLength > 16_384 ? [] : [[2, 5]]
      expect(bad.packets.map(({ type, body }) => [type, body[1]])).toEqual(expected)
    }
    expect(ingest.service.totals().receivedReadings).toBe(0)
    expect(good.packets).toEqual([])
    await good.publish('devices/good/telemetry', '{"x":1}')
  })
})

describe('many of them', () => {
  it('connections beyond the limit are closed, and the others served', async () => {
    ingest = await runIngest({ connectionsMax: 5 })
    const clients = await Promise.all([1, 2, 3, 4, 5].map((n) => connected(`c${n}`)))
    const late = await open()
    await late.closed()
    await clients[4]!.publish('devices/d/telemetry', '{"x":1}')
    expect(ingest.service.health()).toMatchObject({ state: 'degraded' })
    clients[0]!.destroy()
    await waitFor(() => ingest.service.totals().connections === 4)
    await connected('again')
  })

  it('500 connections that announce 200 MB cost nothing', async () => {
    ingest = await runIngest()
    const publish = Buffer.from([0x32, 0x80, 0x84, 0xaf, 0x5f, 0, 19])
    for (let i = 0; i < 500; i += 50) {
      const clients = await Promise.all(Array.from({ length: 50 }, (_, k) => connected(`big-${i + k}`)))
      for (const client of clients) client.send(publish)
      await Promise.all(clients.map((client) => client.closed()))
      opened.splice(0)
    }
    expect(await ingest.counted('weir_mqtt_connections_closed_total', 'packet-too-large')).toBe(500)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })

  it('a packet that comes byte by byte holds about its own size', async () => {
    ingest = await runIngest()
    const client = await connected('trickle')
    const bytes = publishPacket({ topic: 'devices/d/telemetry', payload: `{"x":1}${' '.repeat(3_000)}`, id: 3 })
    for (const byte of bytes.subarray(0, -1)) {
      client.send(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    await waitFor(async () => (await ingest.counted('weir_ingest_held_bytes')) >= 2_048)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBeLessThanOrEqual(2 * bytes.length)
    client.send(bytes.subarray(-1))
    expect([...(await client.next()).body]).toEqual([0, 3])
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })

  it('acknowledgements of nothing, from thousands of client ids, leave nothing behind', async () => {
    ingest = await runIngest()
    for (let i = 0; i < 2_000; i += 100) {
      await Promise.all(
        Array.from({ length: 100 }, async (_, k) => {
          const client = await RawMqtt.connected(ingest.address, `${i + k}-`.padEnd(128, 'x'))
          client.send(Buffer.from([0x40, 2, 0, 1, 0x50, 2, 0, 2, 0x62, 2, 0, 3, 0x70, 2, 0, 4]))
          // PUBREL is answered even so (MQTT 3.1.1 §4.3.3: the other side can't know what we forgot).
          expect([(await client.next()).type]).toEqual([7])
          client.destroy()
        }),
      )
    }
    await waitFor(() => ingest.service.totals().connections === 0)
    expect(await ingest.counted('weir_mqtt_stray_packets_total')).toBe(6_000)
    expect(await ingest.counted('weir_mqtt_sessions')).toBe(0)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })
})

describe('time', () => {
  // The front counts its own ticks, so a test can make them come.
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
  })
  afterEach(async () => {
    vi.useRealTimers()
    // A drain does not read, and waits for the front's clock, which stands still here.
    for (const client of opened.splice(0)) client.destroy()
    await waitFor(() => ingest.service.totals().connections === 0)
  })

  const held = (bytes: number) => waitFor(async () => (await ingest.counted('weir_ingest_held_bytes')) >= bytes)
  const causes = (cause: string) => ingest.counted('weir_mqtt_connections_closed_total', cause)

  it('a CONNECT must be whole within 5 s, however it trickles', async () => {
    ingest = await runIngest()
    const silent = await open()
    const slow = await open()
    await waitFor(() => ingest.service.totals().connections === 2)
    slow.send(connectPacket('slow').subarray(0, 3))
    await held(1)
    vi.advanceTimersByTime(4_000)
    slow.send(connectPacket('slow').subarray(3, 6))
    await held(6)
    expect(ingest.service.totals().connections).toBe(2)
    expect(silent.ended || slow.ended).toBe(false)
    vi.advanceTimersByTime(1_500)
    await Promise.all([silent.closed(), slow.closed()])
    expect(await causes('connect-late')).toBe(2)
  })

  it('a packet must be whole within 10 s, however it trickles', async () => {
    ingest = await runIngest()
    const client = await connected('d')
    const bytes = publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}'.padEnd(1_000) })
    client.send(bytes.subarray(0, 500))
    await held(500)
    vi.advanceTimersByTime(9_000)
    client.send(bytes.subarray(500, 900))
    await held(900)
    expect(client.ended).toBe(false)
    vi.advanceTimersByTime(1_500)
    await client.closed()
    expect(await causes('packet-late')).toBe(1)
  })

  it('an answer to CONNECT that does not come ends in a close', async () => {
    ingest = await runIngest({ authenticate: () => new Promise(() => {}) })
    const client = await open()
    client.send(Buffer.concat([connectPacket('d'), Buffer.from([0xc0, 0])]))
    await held(1)
    vi.advanceTimersByTime(9_500)
    expect(client.ended).toBe(false)
    vi.advanceTimersByTime(1_000)
    await client.closed()
    expect(client.packets).toEqual([])
    expect(await causes('session-late')).toBe(1)
  })

  it('silence beyond one and a half times the keepalive closes; pings keep open; no keepalive, no limit', async () => {
    ingest = await runIngest()
    const silent = await connected('silent', { keepaliveS: 10 })
    const lively = await connected('lively', { keepaliveS: 10 })
    const patient = await connected('patient')
    vi.advanceTimersByTime(9_000)
    lively.send(Buffer.from([0xc0, 0]))
    expect((await lively.next()).type).toBe(13)
    vi.advanceTimersByTime(5_500)
    expect(silent.ended).toBe(false)
    vi.advanceTimersByTime(1_000)
    await silent.closed()
    vi.advanceTimersByTime(7_000)
    for (const client of [lively, patient]) {
      client.send(Buffer.from([0xc0, 0]))
      expect((await client.next()).type).toBe(13)
    }
    expect([lively.ended, patient.ended]).toEqual([false, false])
    expect(await causes('keepalive')).toBe(1)
  })

  it('a stalled log excuses the silence of clients that wait for it', async () => {
    ingest = await runIngest()
    const client = await connected('d', { keepaliveS: 1 })
    ingest.stall()
    const all = Array.from({ length: 200 }, (_, i) =>
      publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}', id: i + 1 }),
    )
    client.send(Buffer.concat(all))
    await held(128 * all[0]!.length + 1)
    vi.advanceTimersByTime(60_000)
    ingest.goOn()
    await waitFor(() => client.packets.length === 200)
    expect(client.ended).toBe(false)
  })

  it('who comes while memory is used up waits to be read, and is let in after', async () => {
    ingest = await runIngest({ memoryBytes: 64 * 1024 })
    const client = await connected('d')
    ingest.stall()
    client.send(publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}'.padEnd(100_000) }))
    await waitFor(() => ingest.service.health().state === 'degraded')
    const late = await open()
    late.send(connectPacket('late'))
    await waitFor(() => ingest.service.totals().connections === 2)
    vi.advanceTimersByTime(60_000)
    expect(late.ended).toBe(false)
    ingest.goOn()
    expect((await late.next()).type).toBe(2)
    vi.advanceTimersByTime(60_000)
    expect([late.ended, await causes('connect-late')]).toEqual([false, 0])
  })
})

describe('the life of the service', () => {
  it('a port that is taken is said in one sentence that names the option', async () => {
    ingest = await runIngest()
    const other = createServer()
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve))
    const { port } = other.address() as { port: number }
    try {
      const { MqttFront } = await import('./mqtt-front.ts')
      const front = new MqttFront({
        host: '127.0.0.1',
        port,
        topicsOpen: false,
        connectionsMax: 1,
        memoryBytesMax: 1,
        accepter: { onDurable() {} } as never,
        broker: {} as never,
        events: {} as never,
        auth: openAuth,
      })
      const refused = front.listen()
      await expect(refused).rejects.toThrow(StartError)
      await expect(refused).rejects.toThrow(/port \d+ on 127\.0\.0\.1 is taken.*WEIR_MQTT_PORT/)
    } finally {
      other.close()
    }
  })

  it('a drain acknowledges what was taken, then closes in order', async () => {
    ingest = await runIngest()
    const client = await connected('d')
    ingest.stall()
    client.send(
      Buffer.concat([1, 2, 3].map((id) => publishPacket({ topic: 'devices/d/telemetry', payload: `{"x":${id}}`, id }))),
    )
    await waitFor(() => ingest.service.totals().receivedReadings === 3)
    const drained = ingest.service.drain(AbortSignal.timeout(60_000))
    expect(client.packets).toEqual([])
    ingest.goOn()
    await drained
    await client.closed()
    expect(client.packets.map(({ body }) => body[1])).toEqual([1, 2, 3])
    expect(ingest.service.totals()).toMatchObject({ connections: 0, durableReadings: 3 })
  })

  it('a drain that can not finish acknowledges nothing more than is durable', async () => {
    ingest = await runIngest()
    const client = await connected('d')
    ingest.stall()
    client.send(publishPacket({ topic: 'devices/d/telemetry', payload: '{"x":1}', id: 1 }))
    await waitFor(() => ingest.service.totals().receivedReadings === 1)
    await ingest.service.drain(AbortSignal.timeout(200))
    await ingest.service.stop()
    await client.closed()
    expect(client.packets).toEqual([])
  })
})
