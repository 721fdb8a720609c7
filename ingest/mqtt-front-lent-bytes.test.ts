// All plain sockets are read into one piece of memory, lent to a connection until its read is taken. Seeded: connections whose every byte says whose
// it is send packets of every kind, cut anywhere and interleaved, larger than the memory and without credit; nothing of one may turn up in another.
import { afterEach, expect, it } from 'vitest'
import { connectPacket, field, type Packet, packet, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { createRandom, type Random } from '../tests/helpers/random.ts'
import { type KeptReading, type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { readDeadLetters } from './test-accepter.ts'

/** Each connection has a letter, and devices that are called by it, whose topics are of one length. */
const letters = [...'abcdefgh']
const devicesEach = 4
const packetsEach = 150
const firstAt = 1_700_000_000_000

let ingest: RunningIngest
const opened: RawMqtt[] = []
afterEach(async () => {
  for (const client of opened.splice(0)) client.destroy()
  await ingest.close()
})

/** What a connection sends, and what has to come of it. */
class Sender {
  readonly letter: string
  readonly bytes: Buffer
  /** Where a packet ends. */
  readonly ends: readonly number[]
  readonly readings: string[] = []
  readonly deadLetters: string[] = []
  readonly answers: string[] = []
  retained = ''
  private readonly random: Random

  constructor(letter: string, random: Random) {
    this.letter = letter
    this.random = random
    const text = this.own(1, 500)
    const will = { topic: `devices/${letter}0/telemetry`, payload: `{"ts":${firstAt},"will":"${text}"}` }
    this.readings.push(`${letter}0 will ${text}`)
    const options = { username: this.own(20, 100), password: this.own(20, 100), will }
    const published = Array.from({ length: packetsEach }, (_, i) => this.packet(i + 1))
    const packets = [connectPacket(letter, options), ...published]
    this.bytes = Buffer.concat(packets)
    let end = 0
    this.ends = packets.map(({ length }) => (end += length))
  }

  /** Nothing but the connection's own letter. */
  private own(min: number, max: number): string {
    return this.letter.repeat(this.random.between(min, max))
  }

  private packet(id: number): Buffer {
    const { letter, random } = this
    const device = `${letter}${random.between(0, devicesEach - 1)}`
    const kind = random.between(0, 9)
    // Messages of one topic have an order only within one QoS.
    const qos = kind === 1 ? 1 : (random.between(0, 2) as 0 | 1 | 2)
    const topic = `devices/${device}/${random.next() < 0.5 ? 'telemetry' : 'telemetry/json'}`
    if (qos > 0) this.answers.push(`${qos === 1 ? 4 : 5} ${id}`)
    const at = firstAt + id
    switch (kind) {
      case 0: {
        const payload = this.own(1, 2_000)
        this.deadLetters.push(`${device} ${payload}`)
        return publishPacket({ topic, payload, qos, id })
      }
      case 1: {
        this.retained = this.own(1, 2_000)
        const retained = publishPacket({ topic: `devices/${letter}0/state`, payload: this.retained, qos, id })
        retained[0] = retained[0]! | 1
        return retained
      }
      case 2: {
        // Many times what is read at once.
        const texts = Array.from({ length: 200 }, () => this.own(300, 1_000))
        this.readings.push(...texts.map((text) => `${device} large ${text}`))
        const instants = texts.map((_, i) => at * 1_000_000 + i)
        return publishPacket({ topic, payload: JSON.stringify({ ts: instants, values: { large: texts } }), qos, id })
      }
      case 3: {
        const name = this.own(1, 100)
        this.readings.push(`${device} ${name} ${id}`)
        return publishPacket({ topic, payload: `{"ts":${at},"${name}":${id}}`, qos, id })
      }
      default: {
        const number = letter.charCodeAt(0) * 1_000 + id
        this.readings.push(`${device} number ${number}`)
        return publishPacket({ topic, payload: `{"ts":${at},"values":{"number":${number}}}`, qos, id })
      }
    }
  }
}

/** Sends everything in pieces: a piece of one and a piece of another, most of them in the same turns of the event loop. */
async function interleave(random: Random, senders: readonly Sender[], clients: readonly RawMqtt[]): Promise<void> {
  const sent = senders.map(() => 0)
  for (;;) {
    const left = senders.flatMap(({ bytes }, i) => (sent[i]! < bytes.length ? [i] : []))
    if (left.length === 0) return
    const i = left[random.between(0, left.length - 1)]!
    const from = sent[i]!
    const { bytes, ends } = senders[i]!
    // At the end of a packet, so that the next one begins where the memory does, or anywhere.
    const isWhole = random.next() < 0.5
    const to = isWhole ? ends.find((end) => end > from)! : from + random.between(1, random.next() < 0.3 ? 20 : 30_000)
    clients[i]!.send(bytes.subarray(from, to))
    sent[i] = to
    if (random.next() < 0.02) ingest.stall()
    if (random.next() < 0.1) ingest.goOn()
    if (random.next() < 0.3) await new Promise((resolve) => setImmediate(resolve))
  }
}

const keptOf = (readings: readonly KeptReading[], letter: string) =>
  readings
    .filter(({ device }) => device.startsWith(letter))
    .map(({ device, metric, value }) => `${device} ${metric} ${value}`)
const answersOf = ({ packets }: RawMqtt) =>
  packets.filter(({ type }) => type === 4 || type === 5).map(({ type, body }) => `${type} ${body.readUInt16BE(0)}`)

function messageOf({ flags, body }: Packet): { letter: string; topic: string; payload: string } {
  const end = 2 + body.readUInt16BE(0)
  const topic = body.toString('utf8', 2, end)
  return {
    letter: topic.split('/')[1]!.charAt(0),
    topic,
    payload: body.toString('utf8', (flags & 6) === 0 ? end : end + 2),
  }
}

async function subscriber(clientId: string, filter: string): Promise<RawMqtt> {
  const client = await RawMqtt.connected(ingest.address, clientId)
  opened.push(client)
  client.send(packet(0x82, uint16(1), field(filter), Buffer.from([0])))
  await waitFor(() => client.packets.some(({ type }) => type === 9))
  return client
}

async function check(random: Random): Promise<void> {
  const admitted: string[] = []
  ingest = await runIngest({
    async authenticate({ clientId, username, password }) {
      for (let turns = random.between(0, 20); turns > 0; turns--) await new Promise((resolve) => setImmediate(resolve))
      if (username !== undefined) admitted.push(`${clientId} ${username}${password}`)
      return 0 as const
    },
  })
  const copies = await subscriber('copies', 'devices/+/telemetry/#')
  const senders = letters.map((letter) => new Sender(letter, random))
  const clients = await Promise.all(letters.map(() => RawMqtt.open(ingest.address)))
  opened.push(...clients)
  await interleave(random, senders, clients)
  ingest.goOn()
  for (const [i, { answers }] of senders.entries())
    await waitFor(() => answersOf(clients[i]!).length === answers.length, { what: `all answers to ${letters[i]}` })
  // The wills are telemetry too.
  for (const client of clients) client.destroy()
  const wanted = senders.reduce((sum, { readings }) => sum + readings.length, 0)
  await waitFor(() => ingest.service.totals().durableReadings === wanted, { what: `${wanted} readings` })
  const kept = await ingest.readings()
  const unusable = (await ingest.deadLetterRows()).flatMap(readDeadLetters)
  const states = await subscriber('states', 'devices/+/state')
  await waitFor(() => states.packets.filter(({ type }) => type === 3).length === letters.length)
  for (const [i, { letter, readings, deadLetters, answers }] of senders.entries()) {
    expect(keptOf(kept, letter).sort()).toEqual(readings.sort())
    expect(
      unusable
        .map(({ device, payload }) => `${device} ${payload}`)
        .filter((each) => each.startsWith(letter))
        .sort(),
    ).toEqual(deadLetters.sort())
    expect(answersOf(clients[i]!).sort()).toEqual(answers.sort())
    expect(admitted.filter((each) => each.startsWith(letter))).toEqual([
      expect.stringMatching(new RegExp(`^${letter} ${letter}+$`)),
    ])
  }
  for (const client of [copies, states]) {
    for (const each of client.packets.filter(({ type }) => type === 3)) {
      const { letter, topic, payload } = messageOf(each)
      if (topic.endsWith('/state')) expect(payload).toBe(senders[letters.indexOf(letter)]!.retained)
      else expect(payload).toMatch(new RegExp(`^(${letter}+|\\{.*("number":${letter.charCodeAt(0)}|${letter}).*\\})$`))
    }
  }
  expect(copies.packets.length).toBeGreaterThan(100)
}

it.each([1, 2, 3])(
  'what is lent from the memory that all sockets are read into stays with its connection (%i)',
  async () => {
    const random = createRandom()
    try {
      await check(random)
    } catch (error) {
      throw new Error(`with WEIR_TEST_SEED=${random.seed}: ${(error as Error).message}`, { cause: error })
    }
  },
)
