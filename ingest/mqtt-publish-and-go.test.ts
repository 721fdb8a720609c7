// Publish and go: a client sends its last publishes, its goodbye and the end of its socket in one go, as `mosquitto_pub` does. What it sent is taken,
// also where it has to wait for a session, for credit or for its device's rate.
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { connectPacket, field, packet, packetType, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { type RunningIngest, runIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { ingestLimits } from './limits.ts'

let ingest: RunningIngest
afterEach(() => ingest.close())

const goodbye = Buffer.from([0xe0, 0])
const noGoodbye = Buffer.alloc(0)
const will = { topic: 'devices/a/state', payload: 'lost' }
const leaving = [
  ['with a goodbye', goodbye],
  ['without one', noGoodbye],
] as const

/** Waits for CONNACK, sends, and is gone. */
async function publishAndGo(clientId: string, bytes: Buffer, options = {}): Promise<void> {
  const socket = connect(ingest.address.port, ingest.address.host)
  socket.on('error', () => {})
  await once(socket, 'connect')
  socket.write(connectPacket(clientId, options))
  await once(socket, 'data')
  socket.resume()
  socket.end(bytes)
  await once(socket, 'close')
}

function publishes(count: number, topic: string, payload: (index: number) => string): Buffer {
  return Buffer.concat(
    Array.from({ length: count }, (_, index) => publishPacket({ topic, payload: payload(index), qos: 0 })),
  )
}

describe.each(leaving)('publishes of QoS 0 of a client that goes %s', (_, end) => {
  it('reach a subscriber, in order, whether its session was open or not', async () => {
    ingest = await runIngest()
    const subscriber = await RawMqtt.connected(ingest.address, 'subscriber')
    try {
      subscriber.send(packet(0x82, uint16(1), field('devices/+/commands'), Buffer.from([0])))
      await subscriber.next()
      const heard = () => subscriber.packets.filter(({ type }) => type === packetType.publish)
      const expected: string[] = []
      for (const options of [{}, { will }, { clean: false }]) {
        for (const count of [1, 200]) {
          const name = `${Object.keys(options).join()} ${count}`
          const bytes = publishes(count, 'devices/a/commands', (index) => `${name} ${index}`)
          await publishAndGo('sender', Buffer.concat([bytes, end]), options)
          for (let index = 0; index < count; index++) expected.push(`${name} ${index}`)
          await waitFor(() => heard().length >= expected.length, { what: `${name}: ${expected.length} messages` })
        }
      }
      const payloads = heard().map(({ body }) => body.toString('utf8', 2 + body.readUInt16BE(0)))
      expect(payloads).toEqual(expected)
      await waitFor(() => ingest.service.totals().connections === 1)
    } finally {
      subscriber.destroy()
    }
  })

  it('are stored when they wait for credit behind a log that stalls', async () => {
    ingest = await runIngest()
    const one = publishes(1, 'devices/a/telemetry', () => JSON.stringify({ x: 10_000, t: 'y'.repeat(1000) })).length
    // More than credit takes, less than is read ahead on top of it.
    const count = Math.ceil((ingestLimits.bytesInFlightMax + ingestLimits.lookAheadBytesMax / 2) / one)
    const bytes = publishes(count, 'devices/a/telemetry', (i) => JSON.stringify({ x: 10_000 + i, t: 'y'.repeat(1000) }))
    ingest.stall()
    await publishAndGo('sender', Buffer.concat([bytes, end]))
    ingest.goOn()
    await waitForReadings(ingest, 2 * count)
    const kept = (await ingest.readings()).filter(({ metric }) => metric === 'x')
    expect(kept.map(({ value }) => value)).toEqual(Array.from({ length: count }, (_, i) => 10_000 + i))
    await waitFor(() => ingest.service.totals().connections === 0)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })

  it('are stored when they wait for the rate of their device', async () => {
    ingest = await runIngest({ config: { rateLimitReadingsPerS: 20 } })
    await publishAndGo('sender', Buffer.concat([publishes(40, 'devices/a/telemetry', (i) => `{"x":${i}}`), end]))
    await waitForReadings(ingest, 40)
    await waitFor(() => ingest.service.totals().connections === 0)
  })
})

describe('a client that went', () => {
  it('is not waited for longer than 10 s, and that something of it was lost is counted', async () => {
    ingest = await runIngest({ config: { rateLimitReadingsPerS: 1 } })
    await publishAndGo(
      'sender',
      publishes(40, 'devices/a/telemetry', (i) => `{"x":${i}}`),
    )
    await waitFor(async () => (await ingest.counted('weir_mqtt_connections_closed_total', 'left-behind')) === 1, {
      withinMs: 40_000,
    })
    expect(ingest.service.totals().connections).toBe(0)
  }, 60_000)

  it('without a goodbye leaves its will, after what it sent', async () => {
    ingest = await runIngest()
    const subscriber = await RawMqtt.connected(ingest.address, 'subscriber')
    try {
      subscriber.send(packet(0x82, uint16(1), field('devices/a/state'), Buffer.from([0])))
      await subscriber.next()
      await publishAndGo(
        'sender',
        publishes(100, 'devices/a/state', () => 'here'),
        { will },
      )
      const heard = () => subscriber.packets.filter(({ type }) => type === packetType.publish)
      await waitFor(() => heard().length === 101)
      expect(heard().at(-1)!.body.subarray(-4).toString()).toBe('lost')
    } finally {
      subscriber.destroy()
    }
  })
})
