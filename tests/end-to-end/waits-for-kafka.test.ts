// Kafka away: everything comes up all the same, says what it waits for, acknowledges nothing, and goes on by itself. At the start, and in the middle.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { silentLogger } from '../../runtime/logger.ts'
import { createAdmin } from '../../stream/log/kafka-client.ts'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { startKafka, type TestKafka } from '../helpers/kafka.ts'
import { packetType, publishPacket, RawMqtt, RawPublisher } from '../helpers/mqtt-raw.ts'
import { readiness } from '../helpers/readiness.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

/** A stop is promised to end within this time; what it may take to finish is set to half of it. */
const endMsMax = 10_000
const stopping = { WEIR_DRAIN_MS: '5000' }
const roles = ['ingest', 'writer', 'detector', 'api'] as const
type Role = (typeof roles)[number]
/** What can't do its job without Kafka. */
const waitingParts: Readonly<Record<Role, readonly string[]>> = {
  ingest: ['log'],
  writer: ['writer'],
  detector: ['anomalies-log', 'detector'],
  api: ['api'],
}

describe('waits for Kafka', () => {
  let kafka: TestKafka
  let weir: WeirProcess
  const root = mkdtempSync(join(tmpdir(), 'weir-test-waits-'))
  beforeAll(async () => {
    kafka = await startKafka()
    await kafka.kill(1)
  }, 180_000)
  afterAll(async () => {
    await kafka?.dispose()
    rmSync(root, { recursive: true, force: true })
  })

  const post = (value: number): Promise<Response> =>
    fetch(`${weir.urls.gateway}/v1/telemetry/gate`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: `{"ts": ${1_700_000_000_000 + value}, "v": ${value}}`,
      signal: AbortSignal.timeout(20_000),
    })
  const valuesOf = async (device: string): Promise<number[]> => {
    const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/readings?device=${device}&from=0`)
    return items.map(({ value }) => value!)
  }

  /** Each in a process of its own; the two that need a store share one. */
  const startAlone = (role: Role, untilListening: readonly string[] = []): Promise<WeirProcess> =>
    startWeir({
      roles: [role],
      data: join(root, role === 'writer' || role === 'api' ? 'store' : role),
      env: {
        WEIR_LOG: 'kafka',
        WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
        WEIR_KAFKA_PREFIX: 'alone.',
        WEIR_KAFKA_SESSION_TIMEOUT: '2s',
        WEIR_HEALTH_PORT: '0',
        ...stopping,
      },
      ...(untilListening.length > 0 && { untilListening }),
    })
  const healthOf = ({ urls }: WeirProcess) => readiness(urls.health!.replace(/\/$/, ''))
  /** Published, and taken in: nothing that is sent behind it is answered before it was looked at. */
  const publishUnacknowledged = async (to: WeirProcess): Promise<RawMqtt> => {
    const device = await RawMqtt.connected(to.mqtt, 'in-hand')
    device.send(publishPacket({ topic: 'devices/in-hand/telemetry', payload: '{"v": 2}', qos: 1, id: 2 }))
    device.send(Buffer.from([0xc0, 0])) // PINGREQ
    expect((await device.next()).type, 'alive, and nothing is acknowledged').toBe(packetType.pingresp)
    return device
  }
  const expectUnacknowledged = async (device: RawMqtt): Promise<void> => {
    await device.closed()
    expect(device.packets.map(({ type }) => type)).toEqual([])
    device.destroy()
  }

  it('at the start: ports listen, /readyz names what is waited for, nothing is acknowledged', async () => {
    weir = await startWeir({
      env: {
        WEIR_LOG: 'kafka',
        WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
        WEIR_KAFKA_SESSION_TIMEOUT: '2s',
        ...stopping,
      },
      untilListening: ['http', 'mqtt', 'gateway'],
    })
    for (const url of [weir.http, weir.urls.gateway!]) {
      const { status, body } = await waitFor(
        async () => {
          const found = await readiness(url)
          return /Kafka/.test(found.body.parts.log?.detail ?? '') && found
        },
        { withinMs: 15_000, what: `${url}/readyz to name Kafka` },
      )
      expect(status).toBe(503)
      expect(body).toMatchObject({ status: 'not-ready', parts: { log: { state: 'failed' } } })
    }
    for (const part of ['writer', 'api'])
      await waitFor(
        async () => {
          const { state, detail } = (await readiness(weir.http)).body.parts[part]!
          expect(state).toBe('starting')
          return detail?.includes('Kafka')
        },
        { withinMs: 20_000, what: `the ${part} to name Kafka` },
      )
    expect((await fetch(`${weir.http}/healthz`)).status).toBe(200)
    expect(await post(0).then(async (answer) => [answer.status, await answer.text()])).toEqual([
      503,
      expect.stringContaining('Kafka'),
    ])
    expect(weir.stdout()).not.toMatch(/^ready$/m)
  }, 90_000)

  it('and when it comes, everything goes on by itself', async () => {
    const device = await RawMqtt.connected(weir.mqtt, 'early')
    device.send(
      publishPacket({ topic: 'devices/early/telemetry', payload: '{"ts": 1700000000000, "v": 1}', qos: 1, id: 1 }),
    )
    device.send(Buffer.from([0xc0, 0])) // PINGREQ, behind the publish
    expect((await device.next()).type, 'alive, and nothing is acknowledged').toBe(packetType.pingresp)
    await kafka.revive(1)
    expect((await device.next()).type).toBe(packetType.puback)
    device.destroy()
    await waitFor(() => /^ready$/m.test(weir.stdout()), { withinMs: 40_000, what: '"ready"' })
    expect((await post(1)).status).toBe(200)
    for (const name of ['early', 'gate'])
      await waitFor(async () => (await valuesOf(name)).join() === '1', {
        withinMs: 20_000,
        what: `the reading of ${name}`,
      })
    expect((await readiness(weir.http)).status).toBe(200)
  }, 120_000)

  it('in the middle: publishes wait without an acknowledgement, the gateway answers 503, and nothing is lost', async () => {
    const acknowledged = new Set<number>()
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'steady',
      window: 50,
      ratePerS: 2_000,
      resend: true,
      message: (index) => ({
        topic: 'devices/steady/telemetry',
        payload: `{"ts":${1_700_000_000_000 + index},"v":${index}}`,
      }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    try {
      publisher.resume()
      await waitFor(() => acknowledged.size > 500, { withinMs: 15_000 })
      await kafka.kill(1)
      await waitFor(async () => (await readiness(weir.http)).status === 503, { withinMs: 20_000, everyMs: 200 })
      const away = await readiness(weir.http)
      expect(away.body.parts.log).toMatchObject({
        state: 'failed',
        detail: expect.stringMatching(/Kafka has not acknowledged .*nothing more is taken/),
      })
      expect((await post(2)).status).toBe(503)
      expect(weir.stderr()).toMatch(/"level":50.*Kafka has not acknowledged partition \d of .*nothing more is taken/)
      const before = acknowledged.size
      await kafka.revive(1)
      await waitFor(() => acknowledged.size > before + 500, { withinMs: 40_000, what: 'acknowledgements again' })
      publisher.pause()
      await publisher.settled(30_000)
      expect(publisher.broken).toBeUndefined()
      await waitFor(async () => (await readiness(weir.http)).status === 200, { withinMs: 30_000, everyMs: 200 })
      expect(weir.stderr()).toMatch(/Kafka acknowledges again; the log takes appends/)
      await waitFor(
        async () => {
          let index = 0
          for await (const { value } of allReadings(weir.http, { device: 'steady', from: '0' }))
            if (value !== index++) throw new Error(`reading ${index - 1} is ${value}`)
          expect(index).toBe(publisher.sent)
          return true
        },
        { withinMs: 30_000, everyMs: 250, what: 'all readings in the table' },
      )
    } finally {
      publisher.stop()
    }
  }, 150_000)

  it('a detector that Kafka refuses (topics that can not work) says so, and goes on when they are mended', async () => {
    const admin = createAdmin({ brokers: kafka.brokers, requestTimeoutMs: 20_000, logger: silentLogger })
    await admin.connect()
    await admin.createTopics({ waitForLeaders: true, topics: [{ topic: 'mended.anomalies', numPartitions: 2 }] })
    const detector = await startWeir({
      roles: ['detector'],
      env: {
        WEIR_LOG: 'kafka',
        WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
        WEIR_KAFKA_PREFIX: 'mended.',
        WEIR_HEALTH_PORT: '0',
      },
      untilListening: ['health'],
    })
    const url = detector.urls.health!.replace(/\/$/, '')
    const part = async () => (await readiness(url)).body.parts['anomalies-log']
    const refused = /mended\.anomalies has 2 partitions and WEIR_PARTITIONS is 4/
    await waitFor(async () => refused.test((await part())?.detail ?? ''), {
      withinMs: 60_000,
      everyMs: 200,
      what: '/readyz to name the topic',
    })
    expect(await part()).toMatchObject({ state: 'failed' })
    expect(detector.stderr()).toMatch(refused)
    const { serve } = detector.pids()
    // Made anew by whoever looks next.
    await admin.deleteTopics({ topics: ['mended.anomalies'] })
    await admin.disconnect()
    await waitFor(async () => (await readiness(url)).status === 200 && (await part())?.state === 'ok', {
      withinMs: 60_000,
      everyMs: 200,
      what: 'it to go on',
    })
    expect(detector.pids().serve, 'without a restart').toBe(serve)
    await detector.stop()
  }, 180_000)

  it('told to stop while it is away: it ends in order and in time, and acknowledges nothing of what it could not keep', async () => {
    await kafka.kill(1)
    const device = await publishUnacknowledged(weir)
    const posted = post(3).then(
      ({ status }) => status,
      () => 'cut off',
    )
    await weir.stop(endMsMax)
    await expectUnacknowledged(device)
    expect([503, 'cut off']).toContain(await posted)
    expect(weir.stderr(), 'others have time of their own').not.toMatch(/did not end in time/)
  }, 120_000)

  it('each role alone, without Kafka from the start: each part that waits says for what, and a stop ends in time', async () => {
    const started = await Promise.all(roles.map((role) => startAlone(role, ['health'])))
    for (const [i, each] of started.entries()) {
      await waitFor(
        async () => {
          const { status, body } = await healthOf(each)
          const waiting = Object.entries(body.parts).filter(([, { state }]) => state !== 'ok')
          expect([status, waiting.map(([part]) => part).sort()]).toEqual([503, waitingParts[roles[i]!]])
          return waiting.every(([, { detail }]) => detail?.includes(kafka.brokers[0]!))
        },
        { withinMs: 60_000, everyMs: 200, what: () => `${roles[i]} to name Kafka; it logged ${each.stderr()}` },
      )
      expect(each.stdout()).not.toMatch(/^ready$/m)
    }
    await Promise.all(started.map((each) => each.stop(endMsMax)))
    await kafka.revive(1)
  }, 180_000)

  it('and while Kafka is frozen, which breaks nothing and answers nothing', async () => {
    const started = await Promise.all(roles.map((role) => startAlone(role)))
    const [ingest] = started as [WeirProcess]
    const before = await RawMqtt.connected(ingest.mqtt, 'in-hand')
    await before.publish('devices/in-hand/telemetry', '{"v": 1}')
    before.destroy()
    process.kill(kafka.pid(1), 'SIGSTOP')
    try {
      const device = await publishUnacknowledged(ingest)
      await Promise.all(started.map((each) => each.stop(endMsMax)))
      await expectUnacknowledged(device)
    } finally {
      process.kill(kafka.pid(1), 'SIGCONT')
    }
  }, 180_000)

  it('and while it is frozen from the start', async () => {
    process.kill(kafka.pid(1), 'SIGSTOP')
    try {
      const started = await Promise.all(roles.map((role) => startAlone(role, ['health'])))
      await Promise.all(started.map((each) => each.stop(endMsMax)))
    } finally {
      process.kill(kafka.pid(1), 'SIGCONT')
    }
  }, 180_000)
})
