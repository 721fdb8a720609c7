// Hundreds of viewers who all ask for years at once: others are answered meanwhile, and each gets everything once.
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { LiveViewer } from '../../tests/helpers/live-viewer.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { openWorld, type World } from '../test-world.ts'
import { pagesMax } from './table-pages.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000
const viewersCount = 120
const readingsCount = 3_000
const open: LiveViewer[] = []

beforeAll(async () => {
  world = await openWorld()
  await world.send(
    Array.from({ length: readingsCount }, (_, i) => ({ device: 'years', observedAt: start + i * 1000, value: i })),
  )
  await world.settle()
}, 120_000)
afterAll(async () => {
  for (const viewer of open) viewer.close()
  await world?.close()
})

it('a question in the meantime is not behind them', async () => {
  const pages = { inFlight: 0, most: 0, done: 0 }
  const counted: ClickHouse['query'] = async (sql, options) => {
    // The pages of viewers have no end but the last instant that there is.
    if (Number(options?.parameters?.to) < Number.MAX_SAFE_INTEGER - 1) return world.clickhouse.query(sql, options)
    pages.most = Math.max(pages.most, ++pages.inFlight)
    try {
      return await world.clickhouse.query(sql, options)
    } finally {
      pages.inFlight--
      pages.done++
    }
  }
  const { api, url } = await world.startApi({ ...world.clickhouse, query: counted })
  const { host, port } = api.liveAddress()!
  open.push(
    ...(await Promise.all(
      Array.from({ length: viewersCount }, () =>
        LiveViewer.open(`ws://${host}:${port}`, `device=years&mode=every&since=${start / 1000}`),
      ),
    )),
  )
  await waitFor(() => pages.inFlight > 0, { what: 'the first page' })
  const before = pages.done
  const answer = await fetch(`${url}/v1/readings?device=years&limit=10&to=now`)
  const meanwhile = pages.done - before
  expect(answer.status).toBe(200)
  expect(((await answer.json()) as { items: unknown[] }).items).toHaveLength(10)
  // Each viewer takes two: all but a few are yet to come.
  expect(meanwhile, 'pages that viewers were given before the question was answered').toBeLessThan(viewersCount / 3)
  await Promise.all(open.map((viewer) => viewer.waitForFrame('caught-up', undefined, 90_000)))
  expect(pages.most).toBe(pagesMax)
  const all = Array.from({ length: readingsCount }, (_, i) => i)
  for (const viewer of open) expect(viewer.told().map(({ value }) => value)).toEqual(all)
}, 180_000)
