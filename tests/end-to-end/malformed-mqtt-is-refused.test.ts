// Bytes that break the protocol, or ask for what is not allowed, end the connection without an acknowledgement and leave nothing behind; the device
// next to them notices nothing.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { ask } from '../helpers/ask.ts'
import { connectPacket, field, packet, packetType, publishPacket, RawMqtt, uint16 } from '../helpers/mqtt-raw.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const topic = 'devices/intruder/telemetry'
const payload = '{"t": 1}'

describe('malformed MQTT is refused', () => {
  let weir: WeirProcess
  let neighbour: RawMqtt
  let published = 0
  const clients: RawMqtt[] = []
  beforeAll(async () => {
    weir = await startWeir()
    neighbour = await RawMqtt.connected(weir.mqtt, 'neighbour')
  })
  afterEach(async () => {
    for (const client of clients.splice(0)) client.destroy()
    await neighbour.publish('devices/neighbour/telemetry', '{"alive": 1}', ++published)
  })
  afterAll(async () => {
    const { items } = await ask<{ items: unknown[] }>(`${weir.http}/v1/readings?device=intruder&from=0`)
    expect(items, 'nothing of all this was kept').toEqual([])
  })

  const open = async (): Promise<RawMqtt> => {
    const client = await RawMqtt.open(weir.mqtt)
    clients.push(client)
    return client
  }
  const connected = async (): Promise<RawMqtt> => {
    const client = await RawMqtt.connected(weir.mqtt, 'intruder')
    clients.push(client)
    return client
  }
  const expectClosedWithoutAcknowledgement = async (client: RawMqtt): Promise<void> => {
    await client.closed()
    expect(client.packets.filter(({ type }) => type !== packetType.connack)).toEqual([])
  }

  it.each([
    ['a topic with a NUL', publishPacket({ topic: 'devices/in\0truder/telemetry', payload })],
    [
      'a topic that is no UTF-8',
      publishPacket({ topic: Buffer.from('devices/\xff\xfe/telemetry', 'latin1'), payload }),
    ],
    [
      'a topic with a surrogate',
      publishPacket({ topic: Buffer.from('devices/\xed\xa0\x80/telemetry', 'latin1'), payload }),
    ],
    ['an empty topic', publishPacket({ topic: '', payload })],
    ['a topic with a wildcard', publishPacket({ topic: 'devices/+/telemetry', payload })],
    ['packet id 0', publishPacket({ topic, payload, id: 0 })],
    ['QoS 3', packet(0x36, field(topic), uint16(1), Buffer.from(payload))],
    ['DUP with QoS 0', packet(0x38, field(topic), Buffer.from(payload))],
    ['a length of five bytes', Buffer.from([0x32, 0xff, 0xff, 0xff, 0xff, 0x01])],
    ['a topic longer than its packet', packet(0x32, Buffer.from([0xff, 0xff]), Buffer.from('devices'))],
    ['a packet type that does not exist', Buffer.from([0xf0, 0x00])],
    ['type 0', Buffer.from([0x00, 0x00])],
    ['SUBSCRIBE with wrong flags', packet(0x80, uint16(1), field('devices/intruder/commands'), Buffer.from([0]))],
    ['a second CONNECT', connectPacket('intruder')],
    ['a CONNACK from a client', Buffer.from([0x20, 2, 0, 0])],
  ])('%s', async (_, bytes) => {
    const client = await connected()
    client.send(bytes)
    await expectClosedWithoutAcknowledgement(client)
  })

  it.each([
    ['a topic that is not a device’s', 'factory/1/temperature'],
    ['a codec that does not exist', 'devices/intruder/telemetry/morse'],
    ['a device name that is not allowed', 'devices/no spaces/telemetry'],
    ['a system topic', '$SYS/broker/uptime'],
    ['a topic of many levels', Array.from({ length: 101 }, () => 'a').join('/')],
  ])('%s', async (_, unknown) => {
    const client = await connected()
    client.send(publishPacket({ topic: unknown, payload }))
    await expectClosedWithoutAcknowledgement(client)
  })

  it('a packet that announces more than is allowed, before its bytes come', async () => {
    const client = await connected()
    // 200 MB announced, a few bytes sent.
    client.send(Buffer.concat([Buffer.from([0x32, 0x80, 0x84, 0xaf, 0x5f]), field(topic)]))
    await expectClosedWithoutAcknowledgement(client)
  })

  it('a CONNECT that announces more than is allowed', async () => {
    const client = await open()
    client.send(Buffer.concat([Buffer.from([0x10, 0x80, 0x84, 0xaf, 0x5f]), field('MQTT')]))
    await expectClosedWithoutAcknowledgement(client)
    expect(client.packets).toEqual([])
  })

  it.each([
    ['PUBLISH', publishPacket({ topic, payload })],
    ['SUBSCRIBE', packet(0x82, uint16(1), field('#'), Buffer.from([1]))],
    ['PINGREQ', Buffer.from([0xc0, 0])],
  ])('%s before CONNECT', async (_, bytes) => {
    const client = await open()
    client.send(bytes)
    await expectClosedWithoutAcknowledgement(client)
    expect(client.packets).toEqual([])
  })

  it('what was sent right behind a CONNECT that is refused', async () => {
    const client = await open()
    client.send(Buffer.concat([connectPacket('intruder', { level: 5 }), publishPacket({ topic, payload })]))
    await expectClosedWithoutAcknowledgement(client)
  })

  it('version 5, with an answer that a client of version 5 understands', async () => {
    const client = await open()
    client.send(connectPacket('intruder', { level: 5 }))
    const answer = await client.next()
    // MQTT 5.0 §3.2: flags, reason code 0x84 (unsupported protocol version), no properties.
    expect([answer.type, [...answer.body]]).toEqual([packetType.connack, [0, 0x84, 0]])
    await client.closed()
  })

  it.each([0, 6, 255])('version %i', async (level) => {
    const client = await open()
    client.send(connectPacket('intruder', { level }))
    await client.closed()
    expect(client.packets.filter(({ body }) => body[1] === 0)).toEqual([])
  })

  it('something that is no MQTT at all', async () => {
    const client = await open()
    client.send(Buffer.from('GET / HTTP/1.1\r\nHost: weir\r\n\r\n'))
    await expectClosedWithoutAcknowledgement(client)
  })

  it('a client that never says CONNECT, and one that never ends its packet', async () => {
    const silent = await open()
    const trickling = await connected()
    const bytes = publishPacket({ topic, payload })
    trickling.send(bytes.subarray(0, bytes.length - 1))
    await Promise.all([expectClosedWithoutAcknowledgement(silent), expectClosedWithoutAcknowledgement(trickling)])
  })

  it('but one byte at a time is fine', async () => {
    const client = await RawMqtt.connected(weir.mqtt, 'slow')
    clients.push(client)
    for (const byte of publishPacket({ topic: 'devices/slow/telemetry', payload, id: 7 }))
      client.send(Buffer.from([byte]))
    const answer = await client.next()
    expect([answer.type, answer.body.readUInt16BE(0)]).toEqual([packetType.puback, 7])
  })
})
