// Three brokers, two copies needed, and devices at every door: one broker killed, the rest goes on; a second one killed, nothing is acknowledged and it
// is said; one of them back, everything goes on by itself. Every acknowledged reading is in the table, once.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startKafka, type TestKafka } from '../helpers/kafka.ts'
import { MemoryWatch, PressingFleet, residentMiB } from '../helpers/pressing-fleet.ts'
import { readiness } from '../helpers/readiness.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const budgetMiB = 16
/** As for a stalled Kafka: garbage not collected yet, and what the sockets were read ahead by. */
const marginMiB = 96
const clusterMsMax = 120_000

describe('a lost quorum acknowledges nothing', () => {
  let kafka: TestKafka
  let weir: WeirProcess
  let fleet: PressingFleet
  let pressing: PressingFleet | undefined
  let env: Record<string, string>
  let memory: MemoryWatch | undefined
  beforeAll(async () => {
    kafka = await startKafka({ nodes: 3 })
    env = {
      WEIR_LOG: 'kafka',
      WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
      WEIR_KAFKA_PREFIX: 'quorum.',
      WEIR_KAFKA_REQUEST_TIMEOUT: '6s',
      WEIR_INGEST_MEMORY: `${budgetMiB}MiB`,
    }
    weir = await startWeir({ env })
    // Enough devices that each partition has some.
    fleet = new PressingFleet({
      weir: () => weir,
      name: 'steady',
      devices: { mqtt: 12, http: 3, sockets: 3 },
      window: 100,
      ratePerS: 50,
    })
  }, 300_000)
  afterAll(async () => {
    memory?.end()
    fleet?.stop()
    pressing?.stop()
    await kafka?.dispose()
  })

  const goesOn = async (what: string): Promise<void> => {
    const before = fleet.acknowledgedEach()
    await waitFor(() => fleet.acknowledgedEach().every((count, i) => count > before[i]! + 20), {
      withinMs: clusterMsMax,
      what: `acknowledgements for every device ${what}`,
    })
  }
  const ready = (status: number): Promise<unknown> =>
    waitFor(async () => (await readiness(weir.urls.gateway!)).status === status, {
      withinMs: clusterMsMax,
      everyMs: 200,
      what: `/readyz to answer ${status}`,
    })

  it('with all three brokers everybody is acknowledged', () => goesOn('at the start'), clusterMsMax + 30_000)

  it('one broker is killed: its partitions wait for another leader and go on, within the memory bound', async () => {
    const beforeMiB = residentMiB(weir.pid)
    memory = new MemoryWatch(weir.pid)
    await kafka.kill(1)
    await goesOn('without one broker')
    expect(weir.stderr()).toMatch(/"level":40.*Kafka does not acknowledge; sending again/)
    await ready(200)
    memory.end()
    expect(memory.mostMiB - beforeMiB).toBeLessThan(2 * budgetMiB + marginMiB)
  }, 240_000)

  it('a second one is killed: nothing is acknowledged, operators are told, and memory stays within its bound', async () => {
    const beforeMiB = residentMiB(weir.pid)
    memory = new MemoryWatch(weir.pid)
    await kafka.kill(2)
    // From now on others push as hard as they can: 20 MiB each of MQTT.
    const devices = { mqtt: 12, http: 4, sockets: 8 }
    pressing = new PressingFleet({ weir: () => weir, name: 'pressing', devices, window: 2_500, texts: 8 })
    await ready(503)
    expect((await readiness(weir.urls.gateway!)).body.parts.log).toMatchObject({
      state: 'failed',
      detail: expect.stringMatching(
        /^Kafka has not acknowledged partition \d of quorum\.readings for \d+ s .*nothing more is taken/,
      ),
    })
    expect(weir.stderr()).toMatch(/"level":50.*Kafka has not acknowledged partition/)
    // Acknowledged before the quorum was lost, and on its way to us still.
    const acknowledged = fleet.acknowledged
    const refused = await fetch(`${weir.urls.gateway}/v1/telemetry/late`, { method: 'POST', body: '{"v": 1}' })
    expect([refused.status, await refused.text()]).toEqual([503, expect.stringContaining('Kafka')])
    const until = performance.now() + 5_000
    await waitFor(() => performance.now() > until, { everyMs: 100 })
    expect(fleet.acknowledged, 'acknowledged with one copy').toBe(acknowledged)
    expect(pressing.acknowledged).toBe(0)
    memory.end()
    expect(memory.mostMiB - beforeMiB).toBeLessThan(2 * budgetMiB + marginMiB)
  }, 240_000)

  it('one of them is back: everything goes on by itself, and every acknowledged reading is there, once', async () => {
    await kafka.revive(2)
    await goesOn('with two brokers')
    await ready(200)
    await waitFor(() => pressing!.acknowledged > 1_000, { withinMs: clusterMsMax, what: 'those who press' })
    await Promise.all([fleet.settled(), pressing!.settled()])
    for (const each of [fleet, pressing!]) await each.allStored(weir.http, clusterMsMax)
    const verified = await runWeir(['verify', '--data', weir.data], { env })
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
    await kafka.revive(1)
    await weir.stop()
  }, 400_000)
})
