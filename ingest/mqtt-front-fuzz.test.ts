// Mangled packets, seeded: whatever comes in, the process lives, a good client is served, and nothing is left behind.
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { connectPacket, field, packet, publishPacket, RawMqtt, uint16 } from '../tests/helpers/mqtt-raw.ts'
import { createRandom, type Random } from '../tests/helpers/random.ts'
import { type RunningIngest, runIngest } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'

const rounds = 60
const clientsPerRound = 8
const packetsPerClient = 12

let ingest: RunningIngest
const thrown: unknown[] = []
const remember = (error: unknown): void => {
  thrown.push(error)
}

beforeEach(() => {
  process.on('uncaughtException', remember)
  process.on('unhandledRejection', remember)
})
afterEach(async () => {
  await ingest.close()
  process.off('uncaughtException', remember)
  process.off('unhandledRejection', remember)
})

const topics = [
  'devices/f/telemetry',
  'devices/f/commands',
  'devices/f/telemetry/json',
  '__proto__',
  'devices/__proto__/x',
  '$SYS/a',
  '',
]
const filters = ['devices/#', 'devices/+/telemetry', '#', '$SYS/#', 'constructor', 'devices/f/#', '+', '']

/** A packet that a client could send, more or less. */
function plausible(random: Random): Buffer {
  const one = <T>(list: readonly T[]): T => list[random.between(0, list.length - 1)]!
  const id = random.between(0, 5)
  switch (random.between(0, 9)) {
    case 0:
      return connectPacket(one(['f1', 'f2', '', '__proto__', 'x'.repeat(200)]), {
        clean: random.next() < 0.5,
        keepaliveS: id,
      })
    case 1:
    case 2:
    case 3: {
      const payload = one(['{"x":1}', '', '{', random.bytes(random.between(0, 300))])
      return publishPacket({
        topic: one(topics),
        payload,
        qos: random.between(0, 2) as 0 | 1 | 2,
        id,
        dup: random.next() < 0.3,
      })
    }
    case 4:
      return packet(0x82, uint16(id), field(one(filters)), Buffer.from([random.between(0, 3)]))
    case 5:
      return packet(0xa2, uint16(id), field(one(filters)))
    case 6:
      return packet(one([0x40, 0x50, 0x62, 0x70]), uint16(id))
    case 7:
      return Buffer.from([0xc0, 0])
    case 8:
      return Buffer.from([0xe0, 0])
    default:
      return random.bytes(random.between(1, 40))
  }
}

function mangled(random: Random): Buffer {
  const bytes = Buffer.from(plausible(random))
  if (random.next() < 0.6 || bytes.length === 0) return bytes
  for (let i = random.between(1, 3); i > 0; i--) bytes[random.between(0, bytes.length - 1)] = random.between(0, 255)
  return random.next() < 0.2 ? bytes.subarray(0, random.between(1, bytes.length)) : bytes
}

describe.each([{ topicsOpen: false }, { topicsOpen: true }])('mangled packets, $topicsOpen', (settings) => {
  it('leave the process, the good client and the memory as they were', async () => {
    const random = createRandom()
    ingest = await runIngest(settings)
    const good = await RawMqtt.connected(ingest.address, 'good')
    let packets = 0
    let published = 0
    try {
      for (let round = 0; round < rounds; round++) {
        const clients = await Promise.all(Array.from({ length: clientsPerRound }, () => RawMqtt.open(ingest.address)))
        for (const client of clients) {
          if (random.next() < 0.9)
            client.send(connectPacket(`f${random.between(1, 9)}`, { clean: random.next() < 0.7 }))
          const stream = Buffer.concat(Array.from({ length: packetsPerClient }, () => mangled(random)))
          packets += packetsPerClient
          for (let at = 0; at < stream.length; ) {
            const next = at + random.between(1, stream.length)
            client.send(stream.subarray(at, next))
            at = next
          }
        }
        await good.publish('devices/good/telemetry', `{"round":${round}}`, (round % 65_535) + 1)
        published++
        for (const client of clients) client.destroy()
      }
      await waitFor(() => ingest.service.totals().connections === 1)
      expect(good.ended).toBe(false)
      const kept = (await ingest.readings()).filter(({ device }) => device === 'good')
      expect(kept.map(({ value }) => value)).toEqual(Array.from({ length: published }, (_, round) => round))
      expect(await ingest.counted('weir_ingest_held_bytes')).toBe(0)
      expect(await ingest.counted('weir_mqtt_live_filters')).toBe(0)
      expect(thrown).toEqual([])
      expect(packets).toBe(rounds * clientsPerRound * packetsPerClient)
    } catch (error) {
      throw new Error(`with WEIR_TEST_SEED=${random.seed}: ${(error as Error).message}`, { cause: error })
    } finally {
      good.destroy()
    }
  })
})
