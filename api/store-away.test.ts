// While the table can't be asked: what memory knows is answered, the rest says so, and all of it mends itself.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RetryableError } from '../runtime/errors.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import { SseViewer } from '../tests/helpers/sse.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createApiService } from './api-service.ts'
import { openWorld, type World } from './test-world.ts'
import { type Problem, problemSchema, type ReadingsAnswer, readingsSchema } from './wire.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000

beforeAll(async () => {
  world = await openWorld()
  await world.send([{ device: 'boiler', observedAt: start, value: 1 }])
  await world.settle()
})
afterAll(() => world?.close())

function breakable(): ClickHouse & { error: Error | undefined } {
  const store: ClickHouse & { error: Error | undefined } = {
    ...world.clickhouse,
    error: undefined,
    query: ((sql, options) =>
      store.error ? Promise.reject(store.error) : world.clickhouse.query(sql, options)) as ClickHouse['query'],
    stream: async function* (sql, options) {
      if (store.error) throw store.error
      yield* world.clickhouse.stream(sql, options)
    } as ClickHouse['stream'],
  }
  return store
}

async function ask(
  url: string,
): Promise<{ readonly status: number; readonly retryAfter: string | null; readonly body: unknown }> {
  const response = await fetch(url)
  return { status: response.status, retryAfter: response.headers.get('retry-after'), body: await response.json() }
}

describe('without the store', () => {
  it('latest values, devices and live go on; history says 503 and when to try again', async () => {
    const store = breakable()
    const { api, url } = await world.startApi(store)
    store.error = new RetryableError('The store can’t be reached: connect ECONNREFUSED 127.0.0.1:1')
    const viewer = await SseViewer.open(`${url}/v1/live?mode=every&device=boiler`)
    await viewer.waitForEvent('caught-up')
    await world.send([{ device: 'boiler', observedAt: start + 1, value: 2 }])
    await waitFor(() => viewer.readings().length === 1)
    const latest = await ask(`${url}/v1/latest`)
    expect(readingsSchema.parse(latest.body).items[0]).toMatchObject({ value: 2 })
    expect((await ask(`${url}/v1/devices/boiler`)).status).toBe(200)
    for (const path of ['/v1/readings', '/v1/series', '/v1/dead-letters']) {
      const { status, retryAfter, body } = await ask(url + path)
      expect([status, retryAfter]).toEqual([503, '1'])
      const problem = problemSchema.parse(body)
      expect(problem.type).toBe('/problems/store-away')
      expect(JSON.stringify(problem)).not.toContain('ECONNREFUSED')
    }
    store.error = undefined
    await world.settle()
    expect(((await ask(`${url}/v1/readings`)).body as ReadingsAnswer).items).toHaveLength(2)
    viewer.close()
    await api.stop()
  })

  it('a start waits for the table before it answers what is newest, and goes on by itself', async () => {
    const store = breakable()
    store.error = new RetryableError('the store has not started yet')
    const { log, clock } = world
    const service = createApiService({
      ...{ config: { host: '127.0.0.1', httpPort: 0 }, log, clickhouse: store, clock, logger: silentLogger },
      ...{ status: { all: async () => [] }, instruments: createInstruments('api') },
    })
    await service.start()
    const { host, port } = service.httpAddress()
    const url = `http://${host}:${port}`
    for (const path of ['/v1/latest', '/v1/devices', '/v1/devices/boiler']) {
      const { status, retryAfter, body } = await ask(url + path)
      expect([status, retryAfter, (body as Problem).type]).toEqual([503, '1', '/problems/starting'])
    }
    expect(service.health().state).toBe('starting')
    store.error = undefined
    await waitFor(() => service.health().state === 'ok')
    expect(((await ask(`${url}/v1/latest`)).body as ReadingsAnswer).items).toHaveLength(1)
    await service.stop()
  })

  it('and before the tables are made, it is the same', async () => {
    const store = breakable()
    const { api, url } = await world.startApi(store)
    store.query = () => world.clickhouse.query('SELECT * FROM weir_test_nothing.readings')
    const { status, body } = await ask(`${url}/v1/readings`)
    expect([status, problemSchema.parse(body).type]).toEqual([503, '/problems/store-away'])
    await api.stop()
  })

  it('an error that nobody expected is a 500 without its insides', async () => {
    const store = breakable()
    const { api, url } = await world.startApi(store)
    store.error = new TypeError('secret insides at /home/x.ts:1')
    const { status, body } = await ask(`${url}/v1/readings`)
    expect([status, problemSchema.parse(body).type]).toEqual([500, '/problems/internal-error'])
    expect(JSON.stringify(body)).not.toContain('secret')
    await api.stop()
  })

  it('a question that the store ended at its limit says what to ask instead', async () => {
    const store = breakable()
    const { api, url } = await world.startApi(store)
    // As the store really says it.
    store.query = (_sql, options) =>
      world.clickhouse.query('SELECT sum(sleepEachRow(0.01)) FROM numbers(1000) SETTINGS max_block_size = 1', {
        ...options,
        parameters: {},
        settings: { max_execution_time: 1 },
      })
    const { status, body } = await ask(`${url}/v1/readings`)
    expect([status, problemSchema.parse(body).type]).toEqual([503, '/problems/question-too-costly'])
    await api.stop()
  })

  it('a question that finds all places of the store held by others says so, and is answered once one is free', async () => {
    const { api, url } = await world.startApi(world.clickhouse)
    const leaving = new AbortController()
    const others = Array.from({ length: 4 }, () =>
      world.clickhouse
        .query('SELECT sum(sleepEachRow(0.05)) AS held FROM numbers(1200) SETTINGS max_block_size = 1', {
          signal: leaving.signal,
        })
        .catch(() => 'ended'),
    )
    // Until all four have begun.
    const found = await waitFor(
      async () => {
        const answer = await ask(`${url}/v1/readings`)
        return answer.status === 503 && answer
      },
      { withinMs: 40_000 },
    )
    expect([found.retryAfter, problemSchema.parse(found.body).type]).toEqual(['5', '/problems/store-busy'])
    expect(problemSchema.parse(found.body).detail).toMatch(/held by others.*ask again/s)
    expect((await ask(`${url}/v1/latest`)).status).toBe(200)
    leaving.abort()
    expect(await Promise.all(others)).toEqual(Array(4).fill('ended'))
    await waitFor(async () => (await ask(`${url}/v1/readings`)).status === 200)
    await api.stop()
  })

  it('a question ends in the store when its asker goes away', async () => {
    const running = async () => {
      const { rows } = await world.clickhouse.query<{ n: number }>(
        "SELECT count() AS n FROM system.processes WHERE query LIKE '%sleepEachRow(0.02)%' AND query NOT LIKE '%system.processes%'",
      )
      return rows[0]!.n
    }
    const store = breakable()
    const { api, url } = await world.startApi(store)
    store.query = (_sql, options) =>
      world.clickhouse.query('SELECT sum(sleepEachRow(0.02)) FROM numbers(1500) SETTINGS max_block_size = 1', {
        ...(options?.signal && { signal: options.signal }),
      })
    const asker = new AbortController()
    const answer = fetch(`${url}/v1/readings`, { signal: asker.signal }).catch(() => 'gone')
    await waitFor(async () => (await running()) === 1)
    asker.abort()
    expect(await answer).toBe('gone')
    await waitFor(async () => (await running()) === 0)
    await api.stop()
  })
})
