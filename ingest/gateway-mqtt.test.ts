// MQTT over WebSocket: MQTT.js as a browser uses it, and what a bare socket may send.
import mqtt, { type MqttClient } from 'mqtt'
import { afterEach, describe, expect, it } from 'vitest'
import { connectPacket, publishPacket } from '../tests/helpers/mqtt-raw.ts'
import { type RunningIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { usedBytes } from '../tests/helpers/used-bytes.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { clientFrame, opcodes, type TestSocket } from '../tests/helpers/websocket.ts'
import { ingestLimits } from './limits.ts'
import { closeGateways, openSocket, startGateway } from './test-gateway.ts'

const clients: MqttClient[] = []

afterEach(async () => {
  for (const client of clients.splice(0)) client.end(true)
  await closeGateways()
})

async function client({ gateway }: RunningIngest, clientId: string): Promise<MqttClient> {
  const connected = await mqtt.connectAsync(`ws://${gateway.host}:${gateway.port}/mqtt`, {
    clientId,
    protocolVersion: 4,
    reconnectPeriod: 0,
  })
  clients.push(connected)
  return connected
}

async function bare(ingest: RunningIngest, clientId = 'bare'): Promise<TestSocket> {
  const socket = openSocket(ingest, '/mqtt', { protocol: 'mqtt' })
  await waitFor(() => socket.isOpen)
  socket.bytes(connectPacket(clientId))
  await waitFor(() => socket.binary.length > 0)
  return socket
}

const received = (socket: TestSocket): Buffer => Buffer.concat(socket.binary)

describe('WebSocket /mqtt', () => {
  it('takes what MQTT.js publishes, acknowledged once it is durable', async () => {
    const ingest = await startGateway()
    const device = await client(ingest, 'd1')
    ingest.stall()
    let acknowledged = 0
    const all = Array.from({ length: 1_000 }, (_, i) =>
      device.publishAsync('devices/d1/telemetry', `{"ts":${1_700_000_000_000 + i},"v":${i}}`, { qos: 1 }).then(() => {
        acknowledged++
      }),
    )
    await waitFor(() => ingest.service.totals().receivedReadings > 0)
    expect(acknowledged).toBe(0)
    ingest.goOn()
    await Promise.all(all)
    await waitForReadings(ingest, 1_000)
    expect((await ingest.readings()).map(({ value }) => value)).toEqual(Array.from({ length: 1_000 }, (_, i) => i))
  })

  it('is the MQTT of the other port: sessions, subscriptions, and one owner of a client id', async () => {
    const ingest = await startGateway()
    const device = await client(ingest, 'd1')
    const heard: string[] = []
    device.on('message', (_topic, payload) => heard.push(payload.toString()))
    await device.subscribeAsync('devices/d1/commands')
    const owner = await mqtt.connectAsync(`mqtt://${ingest.address.host}:${ingest.address.port}`, {
      reconnectPeriod: 0,
    })
    clients.push(owner)
    await owner.publishAsync('devices/d1/commands', 'x'.repeat(100_000), { qos: 1 })
    await owner.publishAsync('devices/d1/commands', 'open', { qos: 1 })
    await waitFor(() => heard.length === 2)
    expect(heard).toEqual(['x'.repeat(100_000), 'open'])
    let isClosed = false
    device.on('close', () => {
      isClosed = true
    })
    await client(ingest, 'd1')
    await waitFor(() => isClosed)
    expect(ingest.service.totals().connections).toBe(2)
  })

  it('reads packets that are cut anywhere, and many in one frame', async () => {
    const ingest = await startGateway()
    const socket = await bare(ingest)
    const packets = Buffer.concat(
      Array.from({ length: 20 }, (_, i) =>
        publishPacket({ topic: 'devices/d1/telemetry', payload: `{"v":${i}}`, id: i + 1 }),
      ),
    )
    for (let at = 0; at < packets.length; at += 7) socket.bytes(packets.subarray(at, at + 7))
    socket.bytes(publishPacket({ topic: 'devices/d1/telemetry', payload: `{"v":20}`, id: 21 }))
    await waitFor(() => received(socket).length === 4 + 21 * 4)
    expect((await ingest.readings()).map(({ value }) => value)).toEqual(Array.from({ length: 21 }, (_, i) => i))
  })

  it('wants the subprotocol, binary frames, and a page of this host', async () => {
    const ingest = await startGateway()
    const without = openSocket(ingest, '/mqtt')
    const foreign = openSocket(ingest, '/mqtt', {
      protocol: 'mqtt',
      headers: { Origin: 'http://evil.example' },
    })
    await Promise.all([without.closed(), foreign.closed()])
    expect(without.head).toMatch(/^HTTP\/1.1 400 /)
    expect(foreign.head).toMatch(/^HTTP\/1.1 403 /)
    const socket = await bare(ingest)
    socket.text('words')
    expect(await socket.closed()).toBe(1003)
    await waitFor(() => ingest.service.totals().connections === 0)
  })

  it('closes a socket on what is no MQTT, and counts it as on the other port', async () => {
    const ingest = await startGateway()
    const socket = await bare(ingest)
    socket.bytes(Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff]))
    await socket.closed()
    expect(await ingest.counted('weir_mqtt_connections_closed_total', 'malformed-packet')).toBe(1)
    const silent = openSocket(ingest, '/mqtt', { protocol: 'mqtt' })
    await waitFor(() => silent.isClosed, { what: 'a socket without CONNECT to be closed' })
    expect(await ingest.counted('weir_mqtt_connections_closed_total', 'connect-late')).toBe(1)
  })

  it('closes a peer that sends on while nothing is read: 4008, within the memory that a socket may hold', async () => {
    const ingest = await startGateway()
    const socket = await bare(ingest)
    ingest.stall()
    const payload = `{"v":1,"text":"${'x'.repeat(1000)}"}`
    const packets = Buffer.concat(
      Array.from({ length: 50 }, (_, i) => publishPacket({ topic: 'devices/d1/telemetry', payload, id: i + 1 })),
    )
    let most = 0
    for (let sent = 0; !socket.isClosed && sent < 16 * ingestLimits.mqttQueueBytesMax; sent += packets.length) {
      socket.bytes(packets)
      most = Math.max(most, await ingest.counted('weir_gateway_held_bytes'))
    }
    expect(await socket.closed()).toBe(4008)
    expect(most).toBeLessThanOrEqual(ingestLimits.mqttQueueBytesMax)
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 0)
    expect(await ingest.counted('weir_gateway_sockets_closed_total', 'window')).toBe(1)
  })

  it('counts what a peer costs that sends byte by byte while nothing is read', async () => {
    const ingest = await startGateway()
    const socket = await bare(ingest)
    ingest.stall()
    // One more than may be in flight, and more behind it than is read ahead.
    const packets = Array.from({ length: 129 }, (_, i) =>
      publishPacket({ topic: 'devices/d1/telemetry', payload: `{"v":${i}}`, id: i + 1 }),
    )
    for (const each of [...packets, publishPacket({ topic: 'devices/d1/telemetry', payload: ' '.repeat(100_000) })])
      socket.bytes(each)
    await waitFor(() => ingest.service.totals().receivedReadings === 128)
    const before = usedBytes()
    const one = Buffer.concat(Array.from({ length: 1_000 }, () => clientFrame(opcodes.binary, Buffer.from([0xc0]))))
    for (let sent = 0; !socket.isClosed && sent < 200_000; sent += 1_000) {
      socket.socket.write(one)
      if (sent % 20_000 === 0) await waitFor(() => socket.isClosed || socket.socket.writableLength === 0)
    }
    expect(await socket.closed()).toBe(4008)
    expect(usedBytes() - before).toBeLessThan(2 * ingestLimits.mqttQueueBytesMax)
    await waitFor(async () => (await ingest.counted('weir_gateway_held_bytes')) === 0)
  })
})
