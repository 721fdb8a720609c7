// A broker that is frozen: it breaks no connection and answers nothing. What takes readings in holds its memory bound while devices push at every door,
// says what it waits for, acknowledges nothing, goes on by itself, and every acknowledged reading is there.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { startKafka, type TestKafka } from '../helpers/kafka.ts'
import { type MemoryWatch, PressingFleet, pressed, warmUp } from '../helpers/pressing-fleet.ts'
import { readiness } from '../helpers/readiness.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const { budgetMiB, stalledMarginMiB, catchingUpMarginMiB, texts, mqttDevices, window } = pressed

describe('a stalled Kafka pushes back', () => {
  let kafka: TestKafka
  let weir: WeirProcess
  let fleet: PressingFleet | undefined
  let memory: MemoryWatch | undefined
  beforeAll(async () => {
    kafka = await startKafka()
    weir = await startWeir({
      env: {
        WEIR_LOG: 'kafka',
        WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
        WEIR_KAFKA_PREFIX: 'stalled.',
        // What is sent again while nobody answers must not pile up either.
        WEIR_KAFKA_REQUEST_TIMEOUT: '3s',
        WEIR_INGEST_MEMORY: `${budgetMiB}MiB`,
      },
    })
  }, 180_000)
  afterAll(async () => {
    fleet?.stop()
    memory?.end()
    await kafka?.dispose()
  })

  it('and ingest holds its bound, says so, goes on by itself, and keeps its word', async () => {
    const { warm, beforeMiB, ...watched } = await warmUp(weir)
    memory = watched.memory
    process.kill(kafka.pid(1), 'SIGSTOP')
    let acknowledged = 0
    let stalledMiB = 0
    try {
      fleet = new PressingFleet({
        weir: () => weir,
        name: 'pressing',
        devices: { mqtt: mqttDevices, http: 4, sockets: 8 },
        window,
        texts,
      })
      const { body } = await waitFor(
        async () => {
          const found = await readiness(weir.urls.gateway!)
          return found.status === 503 && found
        },
        { withinMs: 60_000, everyMs: 200, what: '/readyz to say that the log is stalled' },
      )
      expect(body.parts.log).toMatchObject({
        state: 'failed',
        detail: expect.stringMatching(
          /^Kafka has not acknowledged partition \d of stalled\.readings for \d+ s .*nothing more is taken/,
        ),
      })
      // The log's request timeout and its 2 s, several times: each time everything is sent again.
      const until = performance.now() + 20_000
      await waitFor(() => performance.now() > until, { withinMs: 60_000, everyMs: 200 })
      acknowledged = fleet.acknowledged
      expect(acknowledged, 'acknowledged while nothing can be durable').toBe(0)
      stalledMiB = memory.mostMiB
    } finally {
      process.kill(kafka.pid(1), 'SIGCONT')
    }
    await waitFor(() => fleet!.acknowledged > 1_000, { withinMs: 120_000, what: 'acknowledgements again' })
    await fleet.settled()
    memory.end()
    const [before, stalled, most] = [beforeMiB, stalledMiB, memory.mostMiB].map(Math.round)
    console.log(`ingest grew from ${before} MiB to ${stalled} while Kafka was stalled, and to ${most} at most`)
    expect(stalledMiB - beforeMiB).toBeLessThan(2 * budgetMiB + stalledMarginMiB)
    expect(memory.mostMiB - beforeMiB).toBeLessThan(2 * budgetMiB + catchingUpMarginMiB)
    await waitFor(async () => (await readiness(weir.urls.gateway!)).status === 200, { withinMs: 60_000, everyMs: 200 })
    const lines = (words: RegExp): number =>
      weir
        .stderr()
        .split('\n')
        .filter((line) => words.test(line)).length
    expect(lines(/"level":50.*Kafka has not acknowledged partition/), weir.stderr()).toBe(1)
    expect(lines(/Kafka acknowledges again; the log takes appends/)).toBe(1)
    await warm.allStored(weir.http, 120_000)
    await fleet.allStored(weir.http, 240_000)
    fleet.stop()
    await weir.stop()
  }, 600_000)
})
