// What all routes have in common, and those that say how things stand.
import { connect, createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import { createApiService } from './api-service.ts'
import { deadLetterOf, openWorld, type World } from './test-world.ts'
import {
  type DeadLettersAnswer,
  type DeviceDetailAnswer,
  type DevicesAnswer,
  deadLetterDetailSchema,
  deadLetterReasonsSchema,
  deadLettersSchema,
  deviceDetailSchema,
  devicesSchema,
  pipelineSchema,
  problemSchema,
  readySchema,
} from './wire.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000

beforeAll(async () => {
  world = await openWorld()
  const devices = ['Boiler-1', 'boiler-2', 'fan@north', 'pump.1:a_b']
  await world.send(
    devices.flatMap((device) => [
      { device, metric: 'b', observedAt: start, value: 1 },
      { device, metric: 'a', observedAt: start, value: 'on' },
    ]),
  )
  await world.settle()
})
afterAll(() => world?.close())

describe('a request that is wrong', () => {
  it.each([
    ['/v1/readings?devise=a', 'devise'],
    ['/healthz?device=a', 'device'],
    ['/readyz?device=a', 'device'],
    ['/metrics?device=a', 'device'],
    ['/openapi.json?device=a', 'device'],
    ['/docs?device=a', 'device'],
    ['/v1/readings?device=a&device=b%20c', 'device'],
    ['/v1/readings?device=a**', 'device'],
    ['/v1/readings?device=', 'device'],
    [`/v1/readings?device=${'x'.repeat(129)}`, 'device'],
    ['/v1/readings?metric=', 'metric'],
    ['/v1/readings?metric=a%00b', 'metric'],
    ['/v1/readings?from=yesterday', 'from'],
    ['/v1/readings?from=-5', 'from'],
    ['/v1/readings?from=1969-12-31T23:59:59Z', 'from'],
    ['/v1/readings?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z', 'from'],
    ['/v1/readings?to=2026-02-30T00:00:00Z', 'to'],
    ['/v1/readings?from=now&from=now', 'from'],
    ['/v1/readings?limit=0', 'limit'],
    ['/v1/readings?limit=50001', 'limit'],
    ['/v1/readings?limit=1.5', 'limit'],
    ['/v1/readings?limit=1e3', 'limit'],
    ['/v1/readings?limit=', 'limit'],
    ['/v1/readings?limit=5&limit=6', 'limit'],
    ['/v1/readings?order=up', 'order'],
    ['/v1/readings?after=rubbish', 'after'],
    ['/v1/readings?after=', 'after'],
    [`/v1/readings?after=${Buffer.from('["latest","a","b"]').toString('base64url')}`, 'after'],
    [`/v1/readings?after=${Buffer.from('["readings-asc","a","b","c",1,2]').toString('base64url')}`, 'after'],
    [`/v1/readings?${'device=a&'.repeat(101)}`, 'device'],
    ['/v1/latest?from=now', 'from'],
    ['/v1/latest?limit=50001', 'limit'],
    ['/v1/latest?after=%F0', 'after'],
    ['/v1/devices?limit=1001', 'limit'],
    ['/v1/devices?device=a', 'device'],
    ['/v1/devices?after=nothing', 'after'],
    ['/v1/devices/boiler-2?verbose=true', 'verbose'],
    ['/v1/series?resolution=7m', 'resolution'],
    ['/v1/series?points=0', 'points'],
    ['/v1/series?points=10001', 'points'],
    ['/v1/series?timeZone=Mars/Olympus', 'timeZone'],
    ['/v1/series?timeZone=%2B02:00', 'timeZone'],
    ['/v1/series?shape=round', 'shape'],
    ['/v1/series?shape=lttb&resolution=1h', 'shape'],
    ['/v1/live?mode=all', 'mode'],
    ['/v1/live?anomalies=yes', 'anomalies'],
    ['/v1/live?since=rubbish', 'since'],
    ['/v1/live?limit=5', 'limit'],
    ['/v1/dead-letters?limit=1001', 'limit'],
    ['/v1/pipeline?x=1', 'x'],
  ])('%s is told which parameter, and why', async (path, parameter) => {
    const { status, headers, body } = await world.get(path)
    expect([status, body]).toEqual([400, expect.anything()])
    expect(headers.get('content-type')).toContain('application/problem+json')
    const problem = problemSchema.parse(body)
    expect(problem).toMatchObject({ type: '/problems/invalid-parameter', status: 400 })
    expect(problem.errors!.map(({ path }) => path.split('.')[0])).toContain(parameter)
    expect(problem.detail).toContain(parameter)
  })

  it('gets 404 for a route that is not there, without its path being run as anything', async () => {
    for (const path of [
      '/v1/nothing',
      '/v2/readings',
      '/v1/readings/',
      '/v1/devices/a/b',
      '/%2e%2e/etc/passwd',
      '/v1//readings',
    ]) {
      expect(await world.problem(path)).toMatchObject({ status: 404, type: '/problems/unknown-route' })
    }
  })

  it('gets 405 and what is allowed for a method that is not', async () => {
    const response = await fetch(`${world.url}/v1/readings`, {
      method: 'POST',
      body: '{}',
      headers: { 'content-type': 'application/json' },
    })
    expect([response.status, response.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
    expect(problemSchema.parse(await response.json())).toMatchObject({ type: '/problems/method-not-allowed' })
  })

  it('gets a problem too when it is hardly HTTP', async () => {
    const answers = ['GARBAGE\r\n\r\n', `GET /${'x'.repeat(80_000)} HTTP/1.1\r\nHost: a\r\n\r\n`].map(
      (bytes) =>
        new Promise<string>((resolve, reject) => {
          let text = ''
          const socket = connect(Number(new URL(world.url).port), '127.0.0.1', () => socket.write(bytes))
          socket.on('data', (data) => {
            text += data
          })
          socket.on('end', () => resolve(text))
          socket.on('error', reject)
        }),
    )
    const [garbage, long] = await Promise.all(answers)
    expect(garbage).toMatch(/^HTTP\/1.1 400 [\s\S]*application\/problem\+json[\s\S]*"\/problems\/bad-request"/)
    expect(long).toMatch(/^HTTP\/1.1 431 [\s\S]*application\/problem\+json/)
  })

  it('gets a problem for a path that is not UTF-8', async () => {
    expect((await world.get('/v1/devices/%ff')).status).toBeGreaterThanOrEqual(400)
    expect((await world.problem('/v1/devices/%ff')).status).toBeLessThan(500)
  })
})

describe('devices', () => {
  it('are listed by name, with their metrics', async () => {
    const { body } = await world.get<DevicesAnswer>('/v1/devices')
    devicesSchema.parse(body)
    expect(body.items.map(({ device }) => device)).toEqual(['Boiler-1', 'boiler-2', 'fan@north', 'pump.1:a_b'])
    expect(body.items[0]).toMatchObject({ metrics: ['a', 'b'], online: true })
    expect(body.next).toBeNull()
  })

  it('are paged and searched', async () => {
    const first = await world.get<DevicesAnswer>('/v1/devices?limit=1&search=BOILER')
    expect(first.body.items.map(({ device }) => device)).toEqual(['Boiler-1'])
    const second = await world.get<DevicesAnswer>(`/v1/devices?limit=1&search=BOILER&after=${first.body.next}`)
    expect(second.body).toMatchObject({ items: [{ device: 'boiler-2' }], next: null })
  })

  it('are asked for one by one', async () => {
    const { body } = await world.get<DeviceDetailAnswer>('/v1/devices/fan@north')
    deviceDetailSchema.parse(body)
    expect(body.latest).toEqual([
      { metric: 'a', observedAt: start / 1000, receivedAt: expect.any(Number), text: 'on' },
      { metric: 'b', observedAt: start / 1000, receivedAt: expect.any(Number), value: 1 },
    ])
    for (const name of ['nobody', 'a%20b', '%2e%2e%2fetc', 'x'.repeat(3_000)]) {
      expect(await world.problem(`/v1/devices/${name}`)).toMatchObject({
        status: 404,
        type: '/problems/unknown-device',
      })
    }
  })

  it('are offline once they were silent for a minute and three usual intervals', async () => {
    const onlineOf = async (device: string) =>
      (await world.get<DeviceDetailAnswer>(`/v1/devices/${device}`)).body.online
    for (let i = 0; i < 10; i++) {
      await world.send([{ device: 'slow', observedAt: start + i, value: i }])
      world.clock.micros += 100_000_000
    }
    await world.settle()
    expect([await onlineOf('slow'), await onlineOf('boiler-2')]).toEqual([true, false])
    world.clock.micros += 150_000_000
    expect(await onlineOf('slow')).toBe(true)
    world.clock.micros += 100_000_000
    expect(await onlineOf('slow')).toBe(false)
  })
})

describe('dead letters', () => {
  it('are listed newest first, filtered and paged, and shown with their bytes', async () => {
    const letters = [
      deadLetterOf(start + 1, { payload: Buffer.from([0, 255, 10]) }),
      deadLetterOf(start + 2, { reason: 'invalid-value', metric: 'x' }),
      deadLetterOf(start + 3, { device: 'other' }),
    ]
    for (const letter of letters) await world.sendDeadLetter(letter)
    await world.settle()
    const idsOf = async (query: string) => {
      const { body } = await world.get<DeadLettersAnswer>(`/v1/dead-letters?${query}`)
      deadLettersSchema.parse(body)
      return { ids: body.items.map(({ id }) => id), next: body.next }
    }
    const [a, b, c] = letters.map(({ id }) => id)
    expect(await idsOf('')).toEqual({ ids: [c, b, a], next: null })
    expect((await idsOf('device=boiler-1')).ids).toEqual([b, a])
    expect((await idsOf('reason=invalid-value&reason=nothing')).ids).toEqual([b])
    const first = await idsOf('limit=2')
    expect(await idsOf(`limit=2&after=${first.next}`)).toEqual({ ids: [a], next: null })
    const { body } = await world.get(`/v1/dead-letters/${a}`)
    expect(deadLetterDetailSchema.parse(body)).toMatchObject({
      id: a,
      payload: Buffer.from([0, 255, 10]).toString('base64'),
    })
    const reasons = await world.get<{ items: unknown[] }>('/v1/dead-letters/reasons')
    expect(deadLetterReasonsSchema.parse(reasons.body).items).toEqual([
      { reason: 'malformed-payload', count: 2, newestAt: (start + 3) / 1000 },
      { reason: 'invalid-value', count: 1, newestAt: (start + 2) / 1000 },
    ])
    const ofOne = await world.get<{ items: unknown[] }>('/v1/dead-letters/reasons?device=other')
    expect(ofOne.body.items).toEqual([{ reason: 'malformed-payload', count: 1, newestAt: (start + 3) / 1000 }])
    expect(await world.problem('/v1/dead-letters/nothing')).toMatchObject({
      status: 404,
      type: '/problems/unknown-dead-letter',
    })
  })
})

describe('what operators ask', () => {
  it('/healthz is alive', async () => {
    expect((await world.get('/healthz')).body).toEqual({ status: 'ok' })
  })

  it('/readyz says each part, and 503 while one fails or is not heard of', async () => {
    const instruments = await createInstruments('ingest').snapshot()
    const ingest = {
      process: 'ingest',
      at: world.clock.micros / 1000,
      parts: { log: { state: 'ok' as const } },
      instruments,
    }
    const stall = {
      ...ingest,
      parts: { log: { state: 'failed' as const, detail: 'fsync failed' }, mqtt: { state: 'ok' as const } },
    }
    world.statuses = [ingest]
    const ready = await world.get('/readyz')
    expect([ready.status, readySchema.parse(ready.body).status]).toEqual([200, 'ready'])
    world.statuses = [stall]
    const stalled = await world.get('/readyz')
    expect(stalled.status).toBe(503)
    expect(readySchema.parse(stalled.body).parts).toEqual({
      log: { state: 'failed', detail: 'fsync failed', process: 'ingest' },
      mqtt: { state: 'ok', process: 'ingest' },
    })
    world.statuses = [{ ...ingest, at: ingest.at - 60_000 }]
    expect((await world.get('/readyz')).status).toBe(503)
  })

  it('/metrics has the instruments of all processes', async () => {
    const snapshots = ['ingest', 'serve'].map(async (process) => {
      const instruments = createInstruments(process)
      instruments.counter('weir_test_total', 'A test').inc(3)
      return { process, at: 0, parts: {}, instruments: await instruments.snapshot() }
    })
    world.statuses = await Promise.all(snapshots)
    const { headers, body } = await world.get<string>('/metrics')
    expect(headers.get('content-type')).toContain('text/plain; version=0.0.4')
    expect(body).toContain('weir_test_total{process="ingest"} 3')
    expect(body).toContain('weir_test_total{process="serve"} 3')
    const parts = { log: { state: 'ok' }, writer: { state: 'degraded' }, mqtt: { state: 'failed' } } as const
    world.statuses = [{ process: 'ingest', at: world.clock.micros / 1000, parts, instruments: [] }]
    const { body: told } = await world.get<string>('/metrics')
    expect(told.split('\n').filter((line) => line.startsWith('weir_part_up'))).toEqual([
      'weir_part_up{part="log"} 1',
      'weir_part_up{part="writer"} 0.5',
      'weir_part_up{part="mqtt"} 0',
    ])
  })

  it('/v1/pipeline has each stage with its rate', async () => {
    const at = world.clock.micros / 1000
    const ingest = {
      receivedReadings: 100,
      durableReadings: 90,
      deadLettered: 1,
      refused: 2,
      connections: 3,
      durableLagMs: 4,
    }
    const stored = { storedReadings: 80, storedDeadLetters: 1, storedLagMs: 5, lagChunks: 1 }
    const status = { process: 'ingest', at, parts: {}, instruments: [], ingest, stored }
    world.statuses = [status]
    await world.get('/v1/pipeline')
    world.clock.micros += 2_000_000
    const later = { ...ingest, receivedReadings: 300, durableReadings: 290 }
    world.statuses = [{ ...status, at: at + 2_000, ingest: later }]
    const { body } = await world.get('/v1/pipeline')
    expect(pipelineSchema.parse(body)).toMatchObject({
      stages: {
        received: { total: 300, perSecond: 100 },
        durable: { total: 290, perSecond: 100, lagMs: 4 },
        stored: { total: 80, perSecond: 0, lagMs: 5 },
      },
      ...{ connections: 3, deadLettered: 1, refused: 2 },
    })
    world.statuses = []
  })

  it('/v1/pipeline adds up what several processes of a role say, and leaves out those that are silent', async () => {
    const totals = { deadLettered: 1, refused: 2, connections: 3, durableLagMs: 4 }
    const status = (process: string, readings: number, age = 0) => ({
      ...{ process, at: world.clock.micros / 1000 - age, parts: {}, instruments: [] },
      ingest: { ...totals, receivedReadings: readings, durableReadings: readings },
    })
    world.statuses = [status('a/ingest', 1_000_000), status('b/ingest', 10)]
    await world.get('/v1/pipeline')
    world.clock.micros += 2_000_000
    world.statuses = [status('a/ingest', 1_000_200), status('b/ingest', 50), status('c/ingest', 7, 60_000)]
    const { body } = await world.get('/v1/pipeline')
    expect(pipelineSchema.parse(body)).toMatchObject({
      stages: { received: { total: 1_000_250, perSecond: 120 }, durable: { total: 1_000_250, lagMs: 4 } },
      ...{ connections: 6, deadLettered: 2, refused: 4 },
      unknown: { ingest: 'The process c/ingest has said nothing for 60 s.' },
    })
    world.statuses = []
  })

  it('/v1/pipeline says null, and why, where it does not know', async () => {
    const { body } = await world.get('/v1/pipeline')
    const nothing = { total: null, perSecond: null, lagMs: null }
    const answer = pipelineSchema.parse(body)
    expect(answer).toMatchObject({
      stages: { received: nothing, durable: nothing, stored: nothing, detected: nothing, seen: { lagMs: 0 } },
      ...{ connections: null, doors: null, deadLettered: null, refused: null, log: null, limits: [] },
    })
    expect(answer.unknown.ingest).toContain('does not run together with this api')
    // What the log itself says is known whoever runs the roles.
    expect(answer.consumers).toContainEqual({ group: 'writer', topic: 'readings', waitingChunks: 0 })

    const instruments = createInstruments('ingest')
    instruments.counter('weir_mqtt_connections_closed_total', 'Closed', ['cause']).inc({ cause: 'keepalive' }, 3)
    instruments.gauge('weir_mqtt_connections', 'MQTT', () => 5)
    instruments.gauge('weir_gateway_sockets', 'Sockets', () => 2)
    const at = world.clock.micros / 1000
    const ingest = {
      receivedReadings: 9,
      durableReadings: 9,
      deadLettered: 0,
      refused: 0,
      connections: 7,
      durableLagMs: 0,
    }
    const status = { process: 'ingest', at, parts: {}, instruments: await instruments.snapshot(), ingest }
    world.statuses = [status]
    expect(pipelineSchema.parse((await world.get('/v1/pipeline')).body)).toMatchObject({
      doors: { mqtt: 5, gateway: 2 },
      limits: [{ kind: 'connection-closed', cause: 'keepalive', count: 3 }],
      unknown: { ingest: null },
    })
    // What a process said a minute ago is not how things are.
    world.statuses = [{ ...status, at: at - 60_000 }]
    const old = pipelineSchema.parse((await world.get('/v1/pipeline')).body)
    expect(old.stages.received.total).toBeNull()
    expect(old.unknown.ingest).toBe('The process ingest has said nothing for 60 s.')
    world.statuses = []
  })

  it('/openapi.json describes every route, and /docs shows it without anything from elsewhere', async () => {
    const { body } = await world.get<{
      openapi: string
      paths: Record<string, unknown>
      components: { schemas: object }
    }>('/openapi.json')
    expect(body.openapi).toMatch(/^3\.1\./)
    for (const path of [
      '/v1/devices',
      '/v1/devices/{device}',
      '/v1/latest',
      '/v1/readings',
      '/v1/series',
      '/v1/live',
      '/readyz',
    ]) {
      expect(Object.keys(body.paths)).toContain(path)
    }
    expect(body.components.schemas).toHaveProperty('Reading')
    const docs = await world.get<string>('/docs')
    expect(docs.body).toContain('GET /v1/readings')
    // The way back to the pages.
    expect(docs.body).toContain('<a href="/">')
    expect(docs.body).not.toMatch(/<script|https?:\/\/|style="/)
    const policy = docs.headers.get('content-security-policy')!
    expect(policy).toContain("script-src 'self'")
    expect(policy).not.toMatch(/unsafe|\*|upgrade-insecure/)
  })
})

describe('the service', () => {
  it('says which setting names the port when the port is taken', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await new Promise((listening) => other.once('listening', listening))
    const httpPort = (other.address() as { port: number }).port
    const { log, clickhouse, clock } = world
    const service = createApiService({
      ...{ config: { host: '127.0.0.1', httpPort }, log, clickhouse, clock, logger: silentLogger },
      ...{ status: { all: async () => [] }, instruments: createInstruments('api') },
    })
    await expect(service.start()).rejects.toThrow(new RegExp(`${httpPort} .*WEIR_HTTP_PORT`))
    await service.stop()
    await new Promise((closed) => other.close(closed))
  })
})
