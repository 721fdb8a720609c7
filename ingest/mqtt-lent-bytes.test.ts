// All plain sockets read into one piece of memory: what one connection brought is overwritten by the next read of any other. Seeded: connections that
// send at once, cut anywhere, with a log that stalls now and then; whatever is kept of a connection is what that connection sent.
import { setImmediate as nextTurn } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { connectPacket, field, packet, packetType, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { createRandom, type Random } from '../tests/helpers/random.ts'
import { type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'

const devices = ['ada', 'bob', 'cyd', 'dee', 'eve', 'fay']
const messagesEach = 160
/** More than credit allows unacknowledged, so that some always wait while others read. */
const textMetricsMax = 120

let ingest: RunningIngest
afterEach(() => ingest.close())

interface Sent {
  readonly device: string
  /** Everything, CONNECT first, as one stream of bytes. */
  readonly bytes: Buffer
  /** Texts that its telemetry holds, `device metric value`. */
  readonly readings: string[]
  readonly payloads: Set<string>
  /** The last word of each retained topic. */
  readonly retained: Map<string, string>
  readonly acknowledged: number[]
}

/** The other device that a connection speaks for. */
function twinOf(device: string): string {
  return `${device.slice(0, 2)}2`
}

/** What no other connection sends, at no other place. */
function mark(device: string, index: number, place: number, length: number): string {
  return `${device}-${index}-${place}-`.padEnd(length, `${device}${index}.`)
}

function telemetry(random: Random, device: string, index: number, sent: Pick<Sent, 'readings' | 'payloads'>): string {
  const isLarge = random.next() < 0.06
  const metrics = isLarge ? random.between(20, textMetricsMax) : random.between(1, 3)
  const texts = Array.from({ length: metrics }, (_, place) =>
    mark(device, index, place, random.between(20, isLarge ? 1000 : 100)),
  )
  texts.forEach((text, place) => void sent.readings.push(`${device} m${place} ${text}`))
  const payload = JSON.stringify(Object.fromEntries(texts.map((text, place) => [`m${place}`, text])))
  sent.payloads.add(payload)
  return payload
}

function stream(random: Random, device: string): Sent {
  const sent = { device, readings: [], payloads: new Set<string>(), retained: new Map(), acknowledged: [] as number[] }
  const password = mark(device, 0, 0, 60)
  const will = { topic: `devices/${device}/will`, payload: mark(device, 0, 1, 300) }
  const packets = [connectPacket(device, { username: device, password, will })]
  for (let index = 1; index <= messagesEach; index++) {
    if (random.next() < 0.8) {
      const qos = random.between(0, 2) as 0 | 1 | 2
      // Two topics of one length, so that a remembered one that changed under our hands is taken for the other.
      const name = random.next() < 0.5 ? device : twinOf(device)
      const payload = telemetry(random, name, index, sent)
      packets.push(publishPacket({ topic: `devices/${name}/telemetry`, payload, qos, id: index }))
      if (qos > 0) sent.acknowledged.push(index)
      continue
    }
    // An ordinary message, which the broker takes and keeps; a topic has one QoS, since the order holds for each by itself (MQTT 3.1.1 §4.6).
    const kind = random.between(0, 3)
    const qos = (kind % 2) as 0 | 1
    const topic = `devices/${device}/status/${kind}`
    const payload = mark(device, index, 0, random.between(20, random.next() < 0.2 ? 20_000 : 300))
    sent.retained.set(topic, payload)
    const id = qos > 0 ? [uint16(index)] : []
    packets.push(packet(0x31 | (qos > 0 ? 2 : 0), field(topic), ...id, Buffer.from(payload)))
    if (qos > 0) sent.acknowledged.push(index)
  }
  return { ...sent, bytes: Buffer.concat(packets) }
}

/** Sends all streams at once, cut at random places, each cut in its turn. */
async function sendInPieces(random: Random, each: readonly { client: RawMqtt; bytes: Buffer }[]): Promise<void> {
  const open = each.map(({ client, bytes }) => ({ client, bytes, at: 0 }))
  while (open.length > 0) {
    const place = random.between(0, open.length - 1)
    const one = open[place]!
    const next = one.at + random.between(1, random.next() < 0.3 ? 100_000 : 400)
    one.client.send(one.bytes.subarray(one.at, next))
    one.at = next
    if (one.at >= one.bytes.length) open.splice(place, 1)
    if (random.next() < 0.5) await nextTurn()
    if (random.next() < 0.004) ingest.stall()
    else if (random.next() < 0.02) ingest.goOn()
  }
  ingest.goOn()
}

function acknowledgedIds(client: RawMqtt): number[] {
  const answers = client.packets.filter(({ type }) => type === packetType.puback || type === packetType.pubrec)
  return answers.map(({ body }) => body.readUInt16BE(0))
}

function readPublish({ flags, body }: { flags: number; body: Buffer }): { topic: string; payload: string } {
  const end = 2 + body.readUInt16BE(0)
  return { topic: body.toString('utf8', 2, end), payload: body.toString('utf8', end + (flags & 6 ? 2 : 0)) }
}

async function subscribed(filter: string): Promise<RawMqtt> {
  const client = await RawMqtt.open(ingest.address)
  client.send(connectPacket('watcher', { username: 'watcher', password: mark('watcher', 0, 0, 60) }))
  client.send(packet(0x82, uint16(1), field(filter), Buffer.from([0])))
  await waitFor(() => client.packets.some(({ type }) => type === packetType.suback))
  return client
}

describe('bytes that were lent for one read', () => {
  it('are what their own connection sent, wherever they are kept', async () => {
    const random = createRandom()
    type Connect = { clientId: string; password: Buffer | undefined }
    const answer = ({ clientId, password }: Connect): 0 | 4 =>
      password?.toString() === mark(clientId, 0, 0, 60) ? 0 : 4
    // For half of them the answer comes after other connections were read; the packets of the others are taken where they were read.
    const authenticate = (connect: Connect): 0 | 4 | Promise<0 | 4> => {
      if (devices.indexOf(connect.clientId) % 2 === 0) return answer(connect)
      return nextTurn()
        .then(() => nextTurn())
        .then(() => answer(connect))
    }
    ingest = await runIngest({ authenticate })
    const clients: RawMqtt[] = []
    try {
      const watcher = await subscribed('devices/+/telemetry')
      clients.push(watcher)
      const streams = devices.map((device) => stream(random, device))
      const opened = await Promise.all(streams.map(() => RawMqtt.open(ingest.address)))
      clients.push(...opened)
      const oversize = await RawMqtt.open(ingest.address)
      clients.push(oversize)
      const tooLarge = publishPacket({ topic: 'devices/ada/telemetry', payload: Buffer.alloc(300_000, 0x61), qos: 0 })
      const connect = connectPacket('over', { username: 'over', password: mark('over', 0, 0, 60) })
      await sendInPieces(random, [
        ...streams.map(({ bytes }, place) => ({ client: opened[place]!, bytes })),
        { client: oversize, bytes: Buffer.concat([connect, tooLarge]) },
      ])
      const expected = streams.reduce((sum, { readings }) => sum + readings.length, 0)
      await waitFor(() => ingest.service.totals().durableReadings >= expected, { withinMs: 60_000 })
      await waitFor(
        () => opened.every((client, i) => acknowledgedIds(client).length >= streams[i]!.acknowledged.length),
        { withinMs: 60_000 },
      )
      await oversize.closed()

      const kept = await ingest.readings()
      expect(await ingest.deadLetterCount()).toBe(0)
      for (const [place, { device, readings, acknowledged }] of streams.entries()) {
        for (const name of [device, twinOf(device)]) {
          const own = kept.filter((reading) => reading.device === name)
          expect(own.map(({ metric, value }) => `${name} ${metric} ${value}`)).toEqual(
            readings.filter((reading) => reading.startsWith(`${name} `)),
          )
        }
        expect(acknowledgedIds(opened[place]!)).toEqual(acknowledged)
      }
      expect(kept.length).toBe(expected)

      // Copies for who listens live may be left out, never changed.
      const copies = watcher.packets.filter(({ type }) => type === packetType.publish).map(readPublish)
      expect(copies.length).toBeGreaterThan(0)
      const payloadsOf = new Map<string, Set<string>>(
        streams.flatMap(({ device, payloads }) =>
          [device, twinOf(device)].map((name) => [`devices/${name}/telemetry`, payloads] as const),
        ),
      )
      for (const { topic, payload } of copies) expect(payloadsOf.get(topic)!.has(payload), topic).toBe(true)

      // Whoever comes later hears what was retained; who is lost, its will.
      watcher.destroy()
      const later = await subscribed('devices/#')
      clients.push(later)
      const retained = new Map(streams.flatMap((each) => [...each.retained]))
      const heard = () => later.packets.filter(({ type }) => type === packetType.publish).map(readPublish)
      await waitFor(() => heard().length >= retained.size)
      for (const { topic, payload } of heard())
        expect(payload.slice(0, 100), topic).toBe(retained.get(topic)!.slice(0, 100))
      for (const { topic, payload } of heard()) expect(payload === retained.get(topic), topic).toBe(true)
      for (const client of opened) client.destroy()
      await waitFor(() => heard().length >= retained.size + devices.length)
      const wills = heard().slice(retained.size)
      expect(new Map(wills.map(({ topic, payload }) => [topic, payload]))).toEqual(
        new Map(devices.map((device) => [`devices/${device}/will`, mark(device, 0, 1, 300)])),
      )
    } catch (error) {
      throw new Error(`with WEIR_TEST_SEED=${random.seed}: ${(error as Error).message}`, { cause: error })
    } finally {
      for (const client of clients) client.destroy()
    }
  }, 120_000)

  it('are not what a remembered topic is compared with', async () => {
    ingest = await runIngest()
    const client = await RawMqtt.connected(ingest.address, 'gateway')
    try {
      // Topics of one length, each at the same place of its read.
      for (const [index, name] of ['ada', 'bob', 'ada', 'bob'].entries())
        await client.publish(`devices/${name}/telemetry`, `{"x":${index}}`, index + 1)
      const kept = (await ingest.readings()).map(({ device, value }) => `${device} ${value}`)
      expect(kept.sort()).toEqual(['ada 0', 'ada 2', 'bob 1', 'bob 3'])
    } finally {
      client.destroy()
    }
  })
})
