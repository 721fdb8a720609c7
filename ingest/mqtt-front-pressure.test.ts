// Pressure: a store that stalls, readers that do not read, senders that do not wait. What is held stays bounded, nobody is disconnected for our own
// slowness, nothing is lost, and acknowledgements come in order.
import { connect, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { connectPacket, field, packet, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { type RunningIngest, runIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { pause, waitFor } from '../tests/helpers/wait-for.ts'
import { ingestLimits } from './limits.ts'

let ingest: RunningIngest
const opened: { destroy(): void }[] = []

async function connected(clientId: string, options = {}): Promise<RawMqtt> {
  const client = await RawMqtt.connected(ingest.address, clientId, options)
  opened.push(client)
  return client
}

/** A client that reads only when told to. */
async function frozen(clientId: string, ...first: Buffer[]): Promise<Socket> {
  const socket = connect(ingest.address.port, ingest.address.host)
  opened.push(socket)
  socket.on('error', () => {})
  socket.write(Buffer.concat([connectPacket(clientId), ...first]))
  await waitFor(() => ingest.service.totals().connections > 0)
  return socket
}

const subscribePacket = (id: number, filter: string) => packet(0x82, uint16(id), field(filter), Buffer.from([0]))
const reading = (id: number, device = 'd', padding = 0) =>
  publishPacket({
    topic: `devices/${device}/telemetry`,
    payload: `{"ts":${1_700_000_000_000 + id},"x":${id}}${' '.repeat(padding)}`,
    id,
  })
const ids = (client: RawMqtt, type = 4) =>
  client.packets.filter((each) => each.type === type).map(({ body }) => body.readUInt16BE(0))
const upTo = (count: number, from = 1) => Array.from({ length: count }, (_, i) => from + i)

/** Resolves when the front takes no more: nothing has changed over many turns of the event loop, which it shares with those who send. */
async function nothingMoreIsTaken(): Promise<void> {
  let before = ''
  let same = 0
  await waitFor(async () => {
    const { receivedReadings } = ingest.service.totals()
    const now = `${receivedReadings} ${await ingest.counted('weir_ingest_held_bytes')}`
    same = now === before ? same + 1 : 0
    before = now
    return same >= 10
  })
}

afterEach(async () => {
  for (const client of opened.splice(0)) client.destroy()
  await ingest.close()
})

describe('while the store stalls', () => {
  it('a connection has at most 128 publishes and 1 MiB in flight, and everything is kept once it goes on', async () => {
    ingest = await runIngest()
    const [many, large] = [await connected('many'), await connected('large')]
    ingest.stall()
    // One publish a segment, as in the attack that plain aedes took 200 MB of.
    for (const id of upTo(2_000)) many.send(reading(id, 'many'))
    for (const id of upTo(300)) large.send(reading(id, 'large', 10_000))
    await waitFor(() => ingest.service.totals().receivedReadings >= 128 + 90)
    await waitFor(async () => (await ingest.counted('weir_ingest_held_bytes')) > 1_000_000)
    await nothingMoreIsTaken()
    const { receivedReadings } = ingest.service.totals()
    expect(receivedReadings).toBeLessThanOrEqual(128 + Math.floor(ingestLimits.bytesInFlightMax / 10_000))
    expect(await ingest.counted('weir_ingest_held_bytes')).toBeLessThan(
      2 * (ingestLimits.bytesInFlightMax + 2 * ingestLimits.lookAheadBytesMax + 65_536),
    )
    expect(many.packets).toEqual([])
    ingest.goOn()
    await waitFor(() => many.packets.length === 2_000 && large.packets.length === 300)
    expect(ids(many)).toEqual(upTo(2_000))
    expect(ids(large)).toEqual(upTo(300))
    const kept = await ingest.readings()
    expect(kept).toHaveLength(2_300)
    expect(new Set(kept.map(({ device, value }) => `${device} ${value}`)).size).toBe(2_300)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
  })

  it('pings are answered, in front of the limit and behind it, and nobody is closed', async () => {
    ingest = await runIngest()
    const [few, many] = [await connected('few', { keepaliveS: 1 }), await connected('many', { keepaliveS: 1 })]
    const far = await connected('far', { keepaliveS: 1 })
    ingest.stall()
    for (const id of upTo(64)) few.send(reading(id, 'few'))
    for (const id of upTo(200)) many.send(reading(id, 'many'))
    // More than is read ahead: its pings are not seen, and still it hears from us.
    for (const id of upTo(300)) far.send(reading(id, 'far', 1_000))
    for (let i = 0; i < 6; i++) {
      for (const client of [few, many, far]) client.send(Buffer.from([0xc0, 0]))
      await pause(500)
    }
    await waitFor(() => few.packets.length === 6 && many.packets.length === 6, {
      what: 'each ping to be answered once',
    })
    for (const client of [few, many, far]) {
      expect(client.ended).toBe(false)
      expect(new Set(client.packets.map(({ type }) => type))).toEqual(new Set([13]))
    }
    expect(far.packets.length).toBeGreaterThanOrEqual(3)
    ingest.goOn()
    await waitFor(() => ids(few).length === 64 && ids(many).length === 200 && ids(far).length === 300)
    expect(ids(many)).toEqual(upTo(200))
    expect(many.packets.filter(({ type }) => type === 13)).toHaveLength(6)
  })

  it('all connections together hold no more than the memory they were given, QoS 0 included', async () => {
    const memoryBytes = 2 * 1024 ** 2
    ingest = await runIngest({ memoryBytes })
    const clients = await Promise.all(upTo(20).map((n) => connected(`c${n}`)))
    ingest.stall()
    const perClient = 100
    clients.forEach((client, n) => {
      for (const id of upTo(perClient)) {
        const payload = `{"ts":${1_700_000_000_000 + id},"x":1}${' '.repeat(3_000)}`
        client.send(publishPacket({ topic: `devices/c${n}/telemetry`, payload, qos: n % 2 === 0 ? 0 : 1, id }))
      }
    })
    await waitFor(async () => (await ingest.counted('weir_mqtt_reading_stopped_total')) > 0)
    expect(ingest.service.health()).toMatchObject({ state: 'degraded' })
    await nothingMoreIsTaken()
    // One read of one socket may go over.
    expect(await ingest.counted('weir_ingest_held_bytes')).toBeLessThan(memoryBytes + 65_536)
    expect(ingest.service.totals().receivedReadings).toBeLessThan((memoryBytes + 65_536) / 3_000)
    ingest.goOn()
    await waitForReadings(ingest, 20 * perClient)
    await waitFor(async () => (await ingest.counted('weir_ingest_held_bytes')) === 0)
    expect(await ingest.readings()).toHaveLength(20 * perClient)
    expect(ingest.service.health()).toEqual({ state: 'ok' })
  })

  it('packets that are never finished can not keep the others from being read', async () => {
    ingest = await runIngest({ memoryBytes: 1024 ** 2 })
    const hoarders = await Promise.all(upTo(6).map((n) => connected(`hoarder-${n}`)))
    const begun = publishPacket({ topic: 'devices/d/telemetry', payload: ' '.repeat(250_000), id: 1 }).subarray(0, -10)
    for (const hoarder of hoarders) hoarder.send(begun)
    await waitFor(async () => (await ingest.counted('weir_mqtt_connections_closed_total', 'memory')) > 0)
    const good = await connected('good')
    await good.publish('devices/good/telemetry', '{"x":1}')
  })

  it('clients that come, publish and go leave only what is to become durable', async () => {
    ingest = await runIngest()
    ingest.stall()
    for (const n of upTo(50)) {
      const client = await connected(`c${n}`)
      client.send(Buffer.concat(upTo(10).map((id) => reading(id, `c${n}`))))
      await waitFor(() => ingest.service.totals().receivedReadings === n * 10)
      client.destroy()
    }
    await waitFor(() => ingest.service.totals().connections === 0)
    expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
    ingest.goOn()
    await waitForReadings(ingest, 500)
  })
})

describe('acknowledgements', () => {
  it.each([
    { qos: 1, type: 4 },
    { qos: 2, type: 5 },
  ] as const)(
    'of QoS $qos come in the order of the publishes, whether the front or the broker answers',
    async ({ qos, type }) => {
      ingest = await runIngest()
      const client = await connected('mixed')
      const message = (id: number) =>
        id % 3 === 0
          ? publishPacket({ topic: 'devices/mixed/attributes', payload: 'v', id, qos })
          : publishPacket({ topic: 'devices/mixed/telemetry', payload: `{"x":${id}}`, id, qos })
      for (let round = 0; round < 5; round++) {
        if (round % 2 === 1) ingest.stall()
        const wanted = upTo(100, round * 100 + 1)
        client.send(Buffer.concat(wanted.map(message)))
        if (round % 2 === 1) {
          await waitFor(() => ingest.service.totals().receivedReadings > 0)
          ingest.goOn()
        }
        await waitFor(() => client.packets.length === 100)
        expect(ids(client, type)).toEqual(wanted)
        client.packets.length = 0
      }
    },
  )

  it('wait for the log: none before, all after', async () => {
    ingest = await runIngest()
    const client = await connected('d')
    ingest.stall()
    client.send(Buffer.concat(upTo(20).map((id) => reading(id))))
    await waitFor(() => ingest.service.totals().receivedReadings === 20)
    client.send(Buffer.from([0xc0, 0]))
    expect((await client.next()).type).toBe(13)
    expect(client.packets).toEqual([])
    ingest.goOn()
    await waitFor(() => client.packets.length === 20)
    expect(ids(client)).toEqual(upTo(20))
  })

  it('of a device that cut its packets anywhere are the same', async () => {
    ingest = await runIngest()
    const client = await connected('cut')
    const bytes = Buffer.concat(upTo(300).map((id) => reading(id, 'cut', id % 50)))
    let at = 0
    for (let step = 1; at < bytes.length; step = (step * 7) % 1_009) {
      client.send(bytes.subarray(at, at + step))
      at += step
      if (step % 5 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await waitFor(() => client.packets.length === 300)
    expect(ids(client)).toEqual(upTo(300))
    expect((await ingest.readings()).map(({ value }) => value)).toEqual(upTo(300))
  })
})

describe('a peer that does not read', () => {
  it('a frozen subscriber of all telemetry costs the others nothing, and is let go', async () => {
    ingest = await runIngest()
    await frozen('frozen', subscribePacket(1, 'devices/#'))
    const viewer = await connected('viewer')
    viewer.send(subscribePacket(1, 'devices/#'))
    expect((await viewer.next()).type).toBe(9)
    const device = await connected('d')
    let sent = 0
    const send = () => {
      device.packets.length = 0
      device.send(Buffer.concat(upTo(100, (sent % 600) * 100 + 1).map((id) => reading(id, 'd', 1_000))))
      sent++
    }
    const begun = performance.now()
    // Until well past what the kernel buffers for the frozen one, with every publish acknowledged at once.
    while ((await ingest.counted('weir_mqtt_connections_closed_total')) === 0 && performance.now() - begun < 60_000) {
      send()
      await waitFor(() => device.packets.length === 100, { everyMs: 1 })
    }
    expect(await ingest.counted('weir_mqtt_connections_closed_total')).toBe(1)
    expect(await ingest.counted('weir_mqtt_messages_dropped_total', 'slow-reader')).toBeGreaterThan(0)
    expect(ingest.service.totals().connections).toBe(2)
    await waitFor(() => viewer.packets.length >= sent * 100)
    expect(await ingest.counted('weir_mqtt_messages_dropped_total', 'copies-in-flight')).toBe(0)
  })

  it('a device that never reads its acknowledgements is stopped, then let go', async () => {
    ingest = await runIngest()
    const deaf = await frozen('deaf')
    deaf.pause()
    // PINGREQs cost four bytes a pair and nothing bounds them but this.
    const pings = Buffer.alloc(64 * 1024, Buffer.from([0xc0, 0]))
    const push = (): void => {
      while (!deaf.destroyed && deaf.writableLength < 1024 ** 2 && deaf.write(pings));
    }
    deaf.on('drain', push)
    push()
    const pushing = setInterval(push, 20)
    try {
      await waitFor(async () => (await ingest.counted('weir_mqtt_connections_closed_total', 'slow-reader')) === 1)
    } finally {
      clearInterval(pushing)
    }
    const good = await connected('good')
    await good.publish('devices/good/telemetry', '{"x":1}')
  })
})
