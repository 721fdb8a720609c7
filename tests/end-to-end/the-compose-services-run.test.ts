// docker-compose.yml without Docker: each Weir service by its own command and environment, from the image's own files, as nobody, with nothing changed
// but addresses, ports and volumes; against a real Kafka with the compose file's settings. The ClickHouse server is the embedded engine standing
// alone: it speaks the same protocol, and a real server can't be had here.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, counterOf, type ReadingItem } from '../helpers/ask.ts'
import { type ClickHouseProcess, startClickHouse } from '../helpers/clickhouse-process.ts'
import { type ComposeService, readCompose, weirImage } from '../helpers/compose.ts'
import { buildImage, type Container, type TestImage } from '../helpers/image.ts'
import { freePorts, kafkaMissing, startKafka, type TestKafka } from '../helpers/kafka.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { projectDirectory } from '../helpers/spawn-weir.ts'
import { waitFor } from '../helpers/wait-for.ts'

const missing = kafkaMissing()
const roleServices = ['ingest', 'writer', 'detector', 'api'] as const
type ServiceName = (typeof roleServices)[number] | 'demo'
const adminToken = 'the-admin-of-this-deployment'

describe.skipIf(missing)(`the compose services run${missing ? ` (skipped: ${missing})` : ''}`, () => {
  let kafka: TestKafka
  let clickhouse: ClickHouseProcess
  let image: TestImage
  let services: Readonly<Record<string, ComposeService>>
  const environments = new Map<string, Record<string, string>>()
  let variables: Readonly<Record<string, string>>
  /** Of boiler-1, once it has to say who it is. */
  let credentials: { username: string; password: string } | undefined
  const containers = new Map<ServiceName, Container>()
  let mqtt: { host: string; port: number }
  let http: string
  let gateway: string

  /** What each service is given, with the variables as they are now. */
  const configure = (): void => {
    services = readCompose(variables).services
    const { username, password } = JSON.parse(readFileSync(join(clickhouse.data, 'clickhouse/endpoint.json'), 'utf8'))
    for (const [name, { image: of, environment = {} }] of Object.entries(services)) {
      if (!weirImage.test(of)) continue
      const given = Object.entries(environment).map(([key, value]) => [key, reached(value)])
      environments.set(name, {
        ...Object.fromEntries(given),
        WEIR_DATA: image.volume(name),
        WEIR_DEVICES: join(image.volume('registry'), 'devices.ndjson'),
        ...(name !== 'demo' && {
          WEIR_HOST: '127.0.0.1',
          WEIR_HEALTH_PORT: String(healthPorts.get(name)),
          WEIR_CLICKHOUSE_USER: username,
          WEIR_CLICKHOUSE_PASSWORD: password,
        }),
      })
    }
  }
  const up = (name: ServiceName): void => {
    containers.set(name, image.run(containerCommand(name), environments.get(name)!))
  }
  const containerCommand = (name: ServiceName): string[] => services[name]!.command!.map(reached)
  /** Names of services are addresses in their network. */
  const reached = (text: string): string =>
    text
      .replace(/\bkafka:9092\b/, kafka.brokers.join(','))
      .replace('http://clickhouse:8123', clickhouse.url())
      .replace(/http:\/\/(ingest|writer|detector):8083/g, (_url, name) => healthUrl(name))
      .replace(/:\/\/(ingest|api):/, '://127.0.0.1:')

  const isHealthy = async (name: ServiceName): Promise<{ code: number | null; output: string }> => {
    const [kind, program, main, ...words] = services[name]!.healthcheck!.test!
    expect([kind, program, main]).toEqual(['CMD', 'node', '/app/dist/main.js'])
    const asked = image.run(words, environments.get(name)!)
    const { code } = await asked.exited
    return { code, output: asked.output() }
  }
  const healthy = (name: ServiceName): Promise<unknown> =>
    waitFor(async () => (await isHealthy(name)).code === 0, {
      withinMs: 90_000,
      everyMs: 250,
      what: () => `${name} to be healthy; it said: ${containers.get(name)?.output().slice(-3_000)}`,
    })
  const healthPorts = new Map<string, number>()
  const healthUrl = (name: string): string => `http://127.0.0.1:${healthPorts.get(name)}`

  beforeAll(async () => {
    const [mqttPort, gatewayPort, httpPort, livePort, ...more] = await freePorts(4 + roleServices.length)
    for (const [at, name] of roleServices.entries()) healthPorts.set(name, more[at]!)
    variables = {
      WEIR_CLICKHOUSE_PASSWORD: 'from .env',
      WEIR_MQTT_PORT: String(mqttPort),
      WEIR_GATEWAY_PORT: String(gatewayPort),
      WEIR_HTTP_PORT: String(httpPort),
      WEIR_LIVE_PORT: String(livePort),
    }
    services = readCompose(variables).services
    kafka = await startKafka({ properties: kafkaProperties(services.kafka!) })
    clickhouse = await startClickHouse()
    image = buildImage()
    configure()
    mqtt = { host: '127.0.0.1', port: mqttPort! }
    http = `http://127.0.0.1:${httpPort}`
    gateway = `http://127.0.0.1:${gatewayPort}`
  }, 300_000)
  afterAll(async () => {
    image?.dispose()
    await clickhouse?.dispose()
    await kafka?.dispose()
  }, 60_000)

  const publish = async (metric: string, value: number): Promise<void> => {
    const device = await RawMqtt.connected(mqtt, 'boiler-1', credentials)
    await device.publish('devices/boiler-1/telemetry', `{"ts": ${1_700_000_000_000 + value}, "${metric}": ${value}}`)
    device.destroy()
  }
  const asAdmin = (): Record<string, string> => (credentials ? { authorization: `Bearer ${adminToken}` } : {})
  const askAsAdmin = async <Answer>(path: string): Promise<Answer> => {
    const answer = await fetch(`${http}${path}`, { headers: asAdmin(), signal: AbortSignal.timeout(30_000) })
    if (!answer.ok) throw new Error(`${path} answered ${answer.status}: ${await answer.text()}`)
    return (await answer.json()) as Answer
  }
  const stored = async (metric: string): Promise<number[]> => {
    const path = `/v1/readings?device=boiler-1&metric=${metric}&from=0`
    return (await askAsAdmin<{ items: ReadingItem[] }>(path)).items.map(({ value }) => Number(value))
  }
  /** A publish that is cut off in the middle; resolves with the id of its dead letter. */
  const publishPoison = async (metric: string): Promise<string> => {
    const path = '/v1/dead-letters?device=boiler-1'
    const ids = async (): Promise<string[]> =>
      (await askAsAdmin<{ items: { id: string }[] }>(path)).items.map(({ id }) => id)
    const before = new Set(await ids())
    const device = await RawMqtt.connected(mqtt, 'boiler-1', credentials)
    await device.publish('devices/boiler-1/telemetry', `{"${metric}": `)
    device.destroy()
    return waitFor(async () => (await ids()).find((id) => !before.has(id)), {
      withinMs: 30_000,
      what: 'the dead letter',
    })
  }
  const replayUrl = (letter: string): string => `${http}/v1/dead-letters/${encodeURIComponent(letter)}/replay`

  it('each comes up by its own command, and its own health check says so', async () => {
    for (const name of roleServices) up(name)
    for (const name of roleServices) await healthy(name)
  }, 180_000)

  it('a reading goes the whole way, to the API and the page', async () => {
    await publish('temperature', 71)
    await waitFor(async () => (await stored('temperature')).join() === '71', { withinMs: 20_000, what: 'the reading' })
    const page = await waitFor(
      async () => {
        const text = await (await fetch(`${http}/`)).text()
        return text.includes('boiler-1') && text
      },
      { withinMs: 20_000, what: 'the page' },
    )
    expect(page).toContain('</html>')
    // The path strip counts what ingest and writer, elsewhere, have done.
    const stages = async (): Promise<Record<string, { total: number }>> =>
      (await ask<{ stages: Record<string, { total: number }> }>(`${http}/v1/pipeline`)).stages
    await waitFor(async () => Object.values(await stages()).every(({ total }) => total >= 1), {
      withinMs: 20_000,
      what: 'each stage to have counted it',
    })
    const ready = await ask<{ parts: Record<string, { state: string }> }>(`${http}/readyz`)
    expect(Object.keys(ready.parts)).toEqual(expect.arrayContaining(['mqtt', 'log', 'writer', 'detector', 'api']))
  }, 60_000)

  it('each tells its numbers on its own health port', async () => {
    expect(await counterOf(healthUrl('ingest'), 'weir_part_up', { part: 'log' })).toBe(1)
    expect(await counterOf(healthUrl('writer'), 'weir_part_up', { part: 'writer' })).toBe(1)
    await waitFor(async () => (await counterOf(healthUrl('detector'), 'weir_detector_readings')) > 0, {
      withinMs: 20_000,
      what: 'the detector to have looked',
    })
  }, 60_000)

  it('what docs/deploy.md tells to watch is told', async () => {
    const guide = readFileSync(join(projectDirectory, 'docs/deploy.md'), 'utf8')
    const watching = guide.slice(guide.indexOf('\n## Watching'), guide.indexOf('\n## When something is away'))
    const wanted = new Set([...watching.matchAll(/`((?:weir|process)_\w+)/g)].map(([, name]) => name!))
    // Of the embedded log alone.
    for (const name of ['weir_log_bytes', 'weir_log_quota_bytes']) expect(wanted.delete(name), name).toBe(true)
    expect(wanted.size).toBeGreaterThan(10)
    const texts = await Promise.all(
      roleServices.map(async (name) => (await fetch(`${healthUrl(name)}/metrics`)).text()),
    )
    const told = new Set(texts.flatMap((text) => [...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!)))
    expect([...wanted].filter((name) => !told.has(name))).toEqual([])
  }, 60_000)

  it('a writer that was killed is started again, and what waited is stored once', async () => {
    containers.get('writer')!.kill('SIGKILL')
    await containers.get('writer')!.exited
    for (const value of [1, 2, 3]) await publish('pressure', value)
    up('writer')
    await waitFor(async () => (await stored('pressure')).join() === '1,2,3', { withinMs: 60_000, what: 'the three' })
  }, 120_000)

  it('a dead letter is put back through the ingest elsewhere', async () => {
    const letter = await publishPoison('flow')
    const mended = await fetch(replayUrl(letter), { method: 'POST', body: '{"ts": 1700000000000, "flow": 5}' })
    expect(mended.status, await mended.text()).toBeLessThan(300)
    await waitFor(async () => (await stored('flow')).join() === '5', { withinMs: 20_000, what: 'the mended reading' })
  }, 60_000)

  it('the demo is the one that npm start has, anomalies included', async () => {
    up('demo')
    const fleet = async (): Promise<string[]> =>
      (await ask<{ items: { device: string }[] }>(`${http}/v1/devices`)).items.map(({ device }) => device)
    await waitFor(
      async () => (await fleet()).filter((each) => /^(nyc-taxi|office-hvac|server-5f5533)$/.test(each)).length === 3,
      { withinMs: 60_000, what: 'the fleet' },
    )
    const found = await waitFor(
      async () => {
        const { items } = await ask<{ items: { device: string }[] }>(`${http}/v1/anomalies?from=0`)
        return items.length > 0 && items
      },
      { withinMs: 90_000, what: () => `anomalies; ${containers.get('detector')?.output().slice(-2_000)}` },
    )
    expect(['nyc-taxi', 'office-hvac', 'server-5f5533']).toContain(found[0]!.device)
  }, 180_000)

  it('with WEIR_AUTH=required: the api registers devices, ingest knows them, and nobody else gets in', async () => {
    const recreated = ['demo', 'ingest', 'api'] as const
    for (const name of recreated) containers.get(name)!.kill('SIGTERM')
    for (const name of recreated) expect((await containers.get(name)!.exited).code).toBe(0)
    variables = { ...variables, WEIR_AUTH: 'required', WEIR_ADMIN_TOKEN: adminToken }
    configure()
    const restartedAt = Date.now()
    for (const name of recreated) up(name)
    for (const name of ['ingest', 'api'] as const) await healthy(name)
    const headers = (token?: string): Record<string, string> => ({
      'content-type': 'application/json',
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    })
    const post = (token?: string): Promise<Response> =>
      fetch(`${gateway}/v1/telemetry/boiler-1`, { method: 'POST', body: '{"level": 3}', headers: headers(token) })
    const asked = (path: string, token?: string, method = 'GET'): Promise<Response> =>
      fetch(`${http}${path}`, { method, headers: headers(token) })
    const latest = async (device: string): Promise<ReadingItem[]> =>
      ((await (await asked(`/v1/latest?device=${device}`, adminToken)).json()) as { items: ReadingItem[] }).items
    const addToken = async (): Promise<{ id: string; token: string }> => {
      const made = await asked('/v1/devices/boiler-1/tokens', adminToken, 'POST')
      expect(made.status).toBe(201)
      return (await made.json()) as { id: string; token: string }
    }
    expect([(await post()).status, (await post(adminToken)).status]).toEqual([401, 401])
    const { id, token } = await addToken()
    // In the file that both see.
    await waitFor(async () => (await post(token)).status === 200, { what: 'ingest to know the device' })
    await waitFor(async () => (await latest('boiler-1')).some(({ metric }) => metric === 'level'))
    expect([(await asked('/v1/latest', token)).status, (await asked('/v1/latest')).status]).toEqual([403, 401])
    await expect(publish('temperature', 72)).rejects.toThrow(/code 5/)
    credentials = { username: 'boiler-1', password: token }
    await publish('temperature', 73)
    // The demo shows the admin token, and sends on.
    await waitFor(async () => (await latest('nyc-taxi')).some(({ receivedAt }) => receivedAt > restartedAt), {
      what: () => `readings of the demo; ${containers.get('demo')!.output().slice(-2_000)}`,
    })
    // One token more, so that the device goes on when the first is revoked.
    const second = await addToken()
    expect((await asked(`/v1/devices/boiler-1/tokens/${id}`, adminToken, 'DELETE')).status).toBe(204)
    await waitFor(async () => (await post(token)).status === 401, { what: 'the revoked token to be refused' })
    credentials = { username: 'boiler-1', password: second.token }
    await publish('temperature', 74)
  }, 180_000)

  it('… and a dead letter is put back through it by whoever may: the admin, nobody else', async () => {
    const letter = await publishPoison('depth')
    const put = (headers: Record<string, string>): Promise<Response> =>
      fetch(replayUrl(letter), { method: 'POST', body: '{"ts": 1700000000000, "depth": 6}', headers })
    expect((await put({})).status).toBe(401)
    expect((await put({ authorization: `Bearer ${credentials!.password}` })).status).toBe(403)
    expect(await stored('depth')).toEqual([])
    const mended = await put(asAdmin())
    expect(mended.status, await mended.text()).toBeLessThan(300)
    await waitFor(async () => (await stored('depth')).join() === '6', { withinMs: 20_000, what: 'the mended reading' })
    // By the command line in the container, as docs/deploy.md has it.
    const poison = await publishPoison('depth')
    const words = ['dead-letters', 'show', poison]
    const shown = image.run(words, { ...environments.get('api')!, WEIR_HOST: '127.0.0.1' })
    expect((await shown.exited).code, shown.output()).toBe(0)
    expect(shown.output()).toContain('payload (10 bytes): {"depth": ')
  }, 120_000)

  it('says what is not well: without its store, the writer', async () => {
    await clickhouse.kill()
    const { output } = await waitFor(
      async () => {
        const asked = await isHealthy('writer')
        return asked.code === 1 && asked
      },
      { withinMs: 60_000, what: 'the writer to say so' },
    )
    expect(output).toMatch(/clickhouse: failed: ClickHouse at http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/)
    // The process of the API asks by itself: a question that it had just been answered is good for a few seconds.
    await waitFor(async () => (await fetch(`${http}/readyz`)).status === 503, {
      withinMs: 30_000,
      what: 'the API to say that it is not ready',
    })
    // Devices are acknowledged all the same.
    await publish('pressure', 4)
    expect((await isHealthy('ingest')).code).toBe(0)
    expect((await isHealthy('detector')).output, 'it asks the table nothing').not.toMatch(/clickhouse/)
  }, 90_000)

  it('each ends in order within its grace period', async () => {
    for (const name of ['demo', ...roleServices] as const) {
      const container = containers.get(name)!
      const graceMs = Number(/^(\d+)s$/.exec(services[name]!.stop_grace_period!)![1]) * 1_000
      const began = performance.now()
      container.kill('SIGTERM')
      const { code, signal } = await container.exited
      expect({ name, code, signal }, container.output().slice(-2_000)).toEqual({ name, code: 0, signal: null })
      expect(performance.now() - began).toBeLessThan(graceMs)
    }
  }, 120_000)
})

/** As the image makes them: KAFKA_BROKER_SESSION_TIMEOUT_MS is broker.session.timeout.ms. Where it listens and keeps its disks is the test's. */
function kafkaProperties({ environment = {} }: ComposeService): Record<string, string> {
  const own = /LISTENER|LOG_DIRS|NODE_ID|QUORUM|HEAP|ROLES|SEGMENT_BYTES/
  return Object.fromEntries(
    Object.entries(environment)
      .filter(([name]) => name.startsWith('KAFKA_') && !own.test(name))
      .map(([name, value]) => [name.slice('KAFKA_'.length).toLowerCase().replaceAll('_', '.'), value]),
  )
}
