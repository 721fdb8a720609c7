// A viewer that was away is told what was found meanwhile: out of memory, out of the table after a restart, or that it can't be had.
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest'
import { encodeAnomaly } from '../../domain/anomaly.ts'
import type { EventLog } from '../../domain/event-log.ts'
import { RetryableError } from '../../runtime/errors.ts'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { LiveViewer } from '../../tests/helpers/live-viewer.ts'
import { SseViewer } from '../../tests/helpers/sse.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import type { ApiService } from '../api-service.ts'
import { everyName } from '../parameters.ts'
import { openWorld, type World } from '../test-world.ts'
import { anomalySchema, liveGapSchema } from '../wire.ts'
import { AnomalyFeed } from './anomaly-feed.ts'
import { Outbox } from './outbox.ts'
import { Viewer } from './viewer.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000
const minuteMicros = 60_000_000
const open: { close(): void }[] = []

beforeAll(async () => {
  world = await openWorld()
}, 60_000)
afterEach(() => {
  for (const each of open.splice(0)) each.close()
})
afterAll(() => world?.close())

async function view(device: string, since?: string, api: ApiService = world.api): Promise<LiveViewer> {
  const { host, port } = api.liveAddress()!
  const more = since === undefined ? '' : `&since=${encodeURIComponent(since)}`
  const viewer = await LiveViewer.open(`ws://${host}:${port}`, `device=${device}&anomalies=true&mode=every${more}`)
  open.push(viewer)
  await viewer.waitForFrame('caught-up')
  return viewer
}

/** A reading, and what was found in it. */
async function find(device: string, id: string): Promise<void> {
  world.clock.micros += 3 * minuteMicros
  const receivedAt = world.clock.micros + 1
  await world.send([{ device, observedAt: start + receivedAt, value: 1 }])
  const anomaly = {
    ...{ tenant: 'default', device, metric: 'temperature', observedAt: start, receivedAt, id },
    ...{ detector: 'coverage-net/1', score: 0.99, value: 1, expectedLow: 2, expectedHigh: 3 },
    ...{ explanation: 'odd', evidence: '{}' },
  }
  await world.log.append('anomalies', 0, encodeAnomaly(anomaly), 1, ++world.clock.micros)
}

const idsOf = (viewer: LiveViewer): unknown[] =>
  viewer.frames.filter(({ type }) => type === 'anomaly').map(({ id }) => id)

/** All that a viewer is told when it comes back: a further one, found now, ends it. */
async function idsAfter(viewer: LiveViewer, device: string): Promise<unknown[]> {
  const last = `last-${world.clock.micros}`
  await find(device, last)
  await waitFor(() => idsOf(viewer).includes(last), { what: () => `the last anomaly; so far ${idsOf(viewer)}` })
  return idsOf(viewer).slice(0, -1)
}

it('comes back and is told once each, of its own devices alone; from now on nothing of before', async () => {
  const first = await view('away')
  await find('away', 'a-1')
  await waitFor(() => idsOf(first).length === 1 && first.told().length === 1)
  const cursor = first.cursor()!
  first.close()
  for (const id of ['a-2', 'a-3']) await find('away', id)
  await find('another', 'b-1')
  // A detector that was killed finds it again.
  await find('away', 'a-3')
  const again = await view('away', cursor)
  // What it had in the last minute before it went it may be told again.
  expect((await idsAfter(again, 'away')).filter((id) => id !== 'a-1')).toEqual(['a-2', 'a-3'])
  const { type: _, ...found } = again.frames.find(({ type }) => type === 'anomaly')!
  expect(anomalySchema.parse(found).device).toBe('away')
  expect(again.frames.filter(({ type }) => type === 'gap')).toEqual([])
  expect(await idsAfter(await view('away'), 'away')).toEqual([])
})

it('comes back after a restart, over the other door, and is told out of the table', async () => {
  const first = await view('restart')
  await find('restart', 'r-1')
  await waitFor(() => first.told().length === 1)
  const cursor = first.cursor()!
  for (const id of ['r-2', 'r-3', 'r-4']) await find('restart', id)
  await world.settle()
  await waitFor(
    async () => (await world.log.committed('writer', 'anomalies')).get(0) === (await world.log.end('anomalies')).get(0),
  )
  const { api, url } = await world.startApi()
  const again = await view('restart', cursor, api)
  await waitFor(() => idsOf(again).includes('r-4'))
  // A detector that was killed too finds it again.
  await find('restart', 'r-4')
  expect((await idsAfter(again, 'restart')).filter((id) => id !== 'r-1')).toEqual(['r-2', 'r-3', 'r-4'])
  const stream = await SseViewer.open(`${url}/v1/live?device=restart&anomalies=true`, { 'last-event-id': cursor })
  open.push(stream)
  const ids = () =>
    stream.events.filter(({ event }) => event === 'anomaly').map(({ data }) => (data as { id: string }).id)
  await waitFor(() => ['r-2', 'r-3', 'r-4'].every((id) => ids().includes(id)))
  expect(new Set(ids()).size).toBe(ids().length)
})

it('comes back while the table is away: what was found meanwhile is declared, and what is found from now on is told', async () => {
  const first = await view('hidden')
  await find('hidden', 'h-1')
  await waitFor(() => first.told().length === 1)
  const away: ClickHouse['query'] = (sql, options) =>
    /anomalies/.test(sql) ? Promise.reject(new RetryableError('away')) : world.clickhouse.query(sql, options)
  await find('hidden', 'h-2')
  const { api } = await world.startApi({ ...world.clickhouse, query: away })
  const again = await view('hidden', first.cursor()!, api)
  const { type: _, cursor, ...gap } = await again.waitForFrame('gap', undefined, 60_000)
  expect(liveGapSchema.parse(gap)).toMatchObject({ cause: 'anomalies-away' })
  expect(cursor).toBeUndefined()
  await find('hidden', 'h-3')
  await waitFor(() => idsOf(again).includes('h-3'))
})

it('says once that a log is away for long, and follows it when it is there', async () => {
  let refusals = 0
  const log: EventLog = Object.assign(Object.create(world.log), {
    committed: async (...given: Parameters<EventLog['committed']>) => {
      if (++refusals <= 4) throw new RetryableError('the log is away')
      return world.log.committed(...given)
    },
  })
  const said: unknown[] = []
  const logger: Logger = Object.assign(Object.create(silentLogger), { warn: (what: unknown) => said.push(what) })
  const feed = new AnomalyFeed({ log, stored: async () => [], clock: world.clock, logger })
  feed.start()
  await waitFor(() => refusals > 4, { what: 'the log to be asked again and again' })
  await feed.stop()
  expect(said).toEqual([{ cause: 'the log is away' }])
})

it('is told that some can’t be had, when so many are found while it comes back that memory lets them go before its turn', async () => {
  const { clock } = world
  const found = (from: number, count: number) =>
    Array.from({ length: count }, (_, i) => ({
      ...{ topic: 'anomalies', partition: 0, offset: from + i, count: 1, receivedAt: clock.micros + from + i },
      rows: encodeAnomaly({
        ...{ tenant: 'default', device: 'flood', metric: 'v', observedAt: start, receivedAt: start, id: `${from + i}` },
        ...{ detector: 'coverage-net/1', score: 0.99, value: 1, expectedLow: 2, expectedHigh: 3 },
        ...{ explanation: 'odd', evidence: '{}' },
      }),
    }))
  let more: (() => void) | undefined
  const log = {
    committed: async () => new Map(),
    async *tail() {
      yield found(0, 150)
      await new Promise<void>((resolve) => {
        more = resolve
      })
      yield found(150, 450)
    },
  } as unknown as EventLog
  const feed = new AnomalyFeed({ log, clock, logger: silentLogger, stored: async () => [], rememberedMax: 300 })
  feed.start()
  await waitFor(() => more !== undefined)
  const told: string[] = []
  const outbox = new Outbox({
    sizeOf: () => 1,
    write: (frame) => {
      const { id, cause } = JSON.parse(frame.data()) as { id?: string; cause?: string }
      told.push(id ?? cause!)
      return told.length > 1
    },
    end: () => {},
  })
  const since = { position: new Map([[0, 1]]), receivedAt: new Map([[0, clock.micros + minuteMicros]]) }
  feed.watch({ tenant: 'default', device: everyName, metric: everyName }, new Viewer(outbox), since)
  // Its connection is full, with a hundred of them on their way.
  await waitFor(() => told.length === 1)
  more!()
  await feed.stop()
  outbox.onWritable()
  const numbers = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => String(from + i))
  await waitFor(() => told.at(-1) === '599')
  expect(told).toEqual([...numbers(1, 101), 'anomalies-away', ...numbers(300, 600)])
  outbox.leave()
})
