// The first promise: what was acknowledged is there, once, as it was sent, whatever is killed and whenever. Twenty rounds on one data directory,
// with garbage behind the log's end in half of those that killed its process.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { appendGarbage, segmentFiles, writeGarbageAtEnd } from '../helpers/log-files.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirPart, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

/** A round of Kafka waits for sessions to end; each kind of process dies in it all the same. */
const rounds = isOnKafka ? 4 : 20
const firstAt = 1_700_000_000_000
const caughtUpMsMax = 60_000

/** What message `index` of a device says; any other value is an invented one. */
const valueAt = (device: number, index: number): number => ((index * 7_919 + device * 104_729) % 1_000_003) / 100

interface Fleet {
  readonly name: string
  readonly number: number
  readonly publisher: RawPublisher
  readonly acknowledged: Set<number>
}

describe('survives kill -9', () => {
  const random = createRandom()
  const publishers: RawPublisher[] = []
  afterAll(() => {
    for (const publisher of publishers) publisher.stop()
  })

  const startFleet = (
    current: () => WeirProcess,
    { number, clock, resend, ratePerS }: { number: number; clock: boolean; resend: boolean; ratePerS: number },
  ): Fleet => {
    const name = `${clock ? 'clock' : 'clockless'}-${number}`
    const acknowledged = new Set<number>()
    const publisher = new RawPublisher({
      address: () => current().mqtt,
      clientId: name,
      window: 100,
      ratePerS,
      resend,
      message: (index) => ({
        topic: `devices/${name}/telemetry`,
        payload: clock ? `{"ts":${firstAt + index},"values":{"v":${valueAt(number, index)}}}` : `{"index":${index}}`,
      }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    publishers.push(publisher)
    return { name, number, publisher, acknowledged }
  }

  /** Every acknowledged reading once, with its value; no other but those that were sent and are not known to have been kept. */
  const check = async (
    weir: WeirProcess,
    { name, number, publisher, acknowledged }: Fleet,
    from = 0,
  ): Promise<void> => {
    let last = from - 1
    let kept = 0
    for await (const item of allReadings(weir.http, { device: name, metric: 'v', from: String(firstAt + from) })) {
      const index = item.observedAt - firstAt
      if (index <= last) throw new Error(`${name}: reading ${index} comes after ${last}: twice, or out of order`)
      if (index >= publisher.sent) throw new Error(`${name}: reading ${index} was never sent`)
      if (item.value !== valueAt(number, index))
        throw new Error(`${name}: reading ${index} is ${item.value}, ${valueAt(number, index)} was sent`)
      if (acknowledged.has(index)) kept++
      last = index
    }
    const expected = from === 0 ? acknowledged.size : [...acknowledged].filter((index) => index >= from).length
    if (kept !== expected)
      throw new Error(`${name}: of ${expected} acknowledged readings ${kept} are there (from ${from})`)
  }

  /**
   * A resend after the other side forgot may be a second reading: a device without a clock has no better identity.
   * But none is missing, and none that was sent once is there twice.
   */
  const checkClockless = async (weir: WeirProcess, { name, publisher, acknowledged }: Fleet): Promise<void> => {
    const found = new Map<number, number>()
    for await (const { value } of allReadings(weir.http, { device: name, from: 'now-1d' }))
      found.set(value!, (found.get(value!) ?? 0) + 1)
    for (const index of acknowledged) if (!found.has(index)) throw new Error(`${name}: reading ${index} is missing`)
    for (const [index, times] of found) {
      const sent = publisher.timesSent.get(index) ?? 1
      if (index >= publisher.sent) throw new Error(`${name}: reading ${index} was never sent`)
      if (times > sent) throw new Error(`${name}: reading ${index} was sent ${sent} times and is there ${times} times`)
    }
  }

  it(`of any process, ${rounds} times (seed ${random.seed})`, async () => {
    let weir = await startWeir()
    const { data } = weir
    const clocked = [
      startFleet(() => weir, { number: 0, clock: true, resend: true, ratePerS: 10_000 }),
      startFleet(() => weir, { number: 1, clock: true, resend: true, ratePerS: 2_000 }),
      startFleet(() => weir, { number: 2, clock: true, resend: false, ratePerS: 10_000 }),
      startFleet(() => weir, { number: 3, clock: true, resend: false, ratePerS: 2_000 }),
    ]
    const clockless = startFleet(() => weir, { number: 4, clock: false, resend: true, ratePerS: 200 })
    const all = [...clocked, clockless]
    const victims = random.shuffle(
      Array.from({ length: rounds }, (_, i) => (['ingest', 'serve', 'clickhouse', 'all'] as const)[i % 4]!),
    )
    // Half of the rounds in which the log's own process dies.
    const garbage = random.shuffle(victims.map((_, i) => i).filter((i) => killsIngest(victims[i]!)))
    const garbled = new Set(garbage.slice(0, Math.ceil(garbage.length / 2)))
    for (const [round, victim] of victims.entries()) {
      const from = all.map(({ publisher }) => publisher.sent)
      for (const { publisher } of all) publisher.resume()
      await pause(random.between(200, 1_800))
      await weir.kill(victim)
      if (killsIngest(victim)) {
        // The others must not outlive the first process: the next start needs the directory.
        await waitFor(() => weir.pids().serve === undefined && weir.pids().clickhouse === undefined, {
          what: 'the other processes to end',
        })
        // A broker's files are its own.
        if (garbled.has(round) && !isOnKafka) writeGarbage(data)
        weir = await startWeir({ data })
      }
      await pause(random.between(200, 800))
      for (const { publisher } of all) publisher.pause()
      for (const { publisher } of all) await publisher.settled()
      await waitFor(
        async () => {
          for (const [i, fleet] of clocked.entries()) await check(weir, fleet, from[i])
          return true
        },
        { withinMs: caughtUpMsMax, everyMs: 200, what: `all acknowledged readings of round ${round}, ${victim}` },
      )
      expect(all.map(({ publisher }) => publisher.broken)).toEqual(all.map(() => undefined))
    }
    for (const fleet of clocked) await check(weir, fleet)
    await checkClockless(weir, clockless)
    for (const { acknowledged } of all) expect(acknowledged.size).toBeGreaterThan(rounds)
    expect((await runWeir(['verify', '--data', data])).code).toBe(0)
    await weir.stop()
  }, 1_200_000)

  const writeGarbage = (data: string): void => {
    const file = segmentFiles(data).at(-1)!
    const bytes = random.bytes(random.between(1, 5_000))
    if (random.next() < 0.5) writeGarbageAtEnd(file, bytes)
    else appendGarbage(file, bytes)
  }
})

function killsIngest(victim: WeirPart | 'all'): boolean {
  return victim === 'ingest' || victim === 'all'
}
