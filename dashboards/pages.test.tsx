// The pages as strings, over a small API of canned answers: what is escaped, what is said when something is missing, what a browser loads.
import { type FastifyInstance, fastify } from 'fastify'
import { afterEach, expect, test } from 'vitest'
import type { DeviceAnswer, LatestAnswer, ReadingAnswer } from '../api/wire.ts'
import { registerPages } from './pages.tsx'

const now = 1_790_000_000_000
const hostile = `"><script>alert(1)</script>&lt;b onclick='x'`
const stage = { total: 10, perSecond: 2, lagMs: 0 }
const pipeline = {
  at: now,
  stages: { received: stage, durable: stage, stored: stage, seen: stage },
  connections: 1,
  viewers: 0,
  deadLettered: 0,
  refused: 0,
  devices: { total: 1, online: 1 },
  series: 2,
}
const boiler: DeviceAnswer = {
  device: 'boiler-1',
  firstReceivedAt: now - 60_000,
  lastReceivedAt: now - 12_000,
  metrics: [hostile, 'state'],
  online: true,
}
const readings: ReadingAnswer[] = [
  { device: 'boiler-1', metric: hostile, observedAt: now - 12_000, receivedAt: now - 12_000, value: 71.3 },
  { device: 'boiler-1', metric: 'state', observedAt: now - 12_000, receivedAt: now - 12_000, text: hostile },
]

/** Answers by the beginning of the path; anything else is a problem. */
type Canned = Readonly<Record<string, unknown>>
const usual: Canned = {
  '/v1/pipeline': pipeline,
  '/v1/devices/boiler-1': { ...boiler, latest: readings.map(({ device: _, ...reading }) => reading) },
  '/v1/devices': { items: [boiler], next: null },
  '/v1/latest': { items: readings, next: null } satisfies LatestAnswer,
  '/v1/readings': { items: readings, next: null },
  '/v1/series': {
    from: now - 900_000,
    to: now,
    resolution: 'raw',
    source: 'raw',
    timeZone: 'UTC',
    series: [{ device: 'boiler-1', metric: hostile, observedAt: [now - 30_000, now - 12_000], value: [70, 71.3] }],
  },
}
const away = { type: '/problems/store-away', title: 'away', status: 503, detail: 'the store does not answer' }

const apps: FastifyInstance[] = []
afterEach(async () => {
  for (const app of apps.splice(0)) await app.close()
})

async function pages(answers: Canned): Promise<FastifyInstance> {
  const app = fastify()
  apps.push(app)
  const ask = async (path: string): Promise<unknown> => {
    const known = Object.keys(answers).find((each) => path.split('?')[0] === each)
    return known ? answers[known] : { type: '/problems/unknown', title: 'unknown', status: 404, detail: 'unknown' }
  }
  await registerPages(app, { ask, now: () => now, mqttUrl: () => 'mqtt://127.0.0.1:41883' })
  return app
}

const get = async (app: FastifyInstance, url: string): Promise<{ status: number; html: string }> => {
  const answer = await app.inject({ method: 'GET', url, headers: { accept: 'text/html' } })
  return { status: answer.statusCode, html: answer.body }
}

test.each(['/', '/?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E', '/devices/boiler-1', '/fragments/fleet?search=x'])(
  'hostile names and values stay text: %s',
  async (url) => {
    const { html } = await get(await pages(usual), url)
    expect(html).not.toContain('<script>alert')
    expect(html).not.toContain('<b onclick')
    // As text and, with its ampersand kept, in attributes: what a script reads back is the name itself.
    if (!url.includes('%3C')) expect(html).toContain('&lt;script>alert(1)&lt;/script>&amp;lt;b onclick=&#39;x&#39;')
  },
)

test('an unknown device is a page that helps, even under a hostile name', async () => {
  const app = await pages(usual)
  const unknown = await get(app, '/devices/boiler-2')
  expect(unknown.status).toBe(404)
  expect(unknown.html).toContain('devices/boiler-2/telemetry')
  const impossible = await get(app, `/devices/${encodeURIComponent('<script>alert(1)</script>')}`)
  expect(impossible.status).toBe(404)
  expect(impossible.html).not.toContain('<script>alert')
  expect(impossible.html).toContain('It could not be one either')
})

test('with the store away, both pages say so and keep what is live', async () => {
  const app = await pages({ ...usual, '/v1/series': away, '/v1/readings': away })
  const overview = await get(app, '/')
  expect(overview.status).toBe(200)
  expect(overview.html).toContain('The store is away')
  expect(overview.html).toContain('71.3')
  const device = await get(app, '/devices/boiler-1')
  expect(device.status).toBe(200)
  expect(device.html).toContain('The store is away')
  expect(device.html).toContain('71.3')
})

test('nothing heard of yet: the first steps, with the address that devices publish to', async () => {
  const { html } = await get(await pages({ ...usual, '/v1/devices': { items: [], next: null } }), '/')
  expect(html).toContain('mosquitto_pub -h 127.0.0.1 -p 41883 -q 1 -t devices/boiler-1/telemetry')
  expect(html).toContain('mqtt://127.0.0.1:41883')
})

test('bound to every address, the page names the one that it was reached by', async () => {
  const app = fastify()
  apps.push(app)
  await registerPages(app, { ask: async () => ({ items: [], next: null }), mqttUrl: () => 'mqtt://0.0.0.0:41883' })
  const reached = await app.inject({ url: '/', headers: { host: 'weir.example:8080' } })
  expect(reached.body).toContain('mosquitto_pub -h weir.example -p 41883')
  const hostile = await app.inject({ url: '/', headers: { host: '"><script>alert(1)</script>' } })
  expect(hostile.body).not.toContain('<script>alert')
})

test('a range without readings offers the one that has the newest', async () => {
  const answers = {
    ...usual,
    '/v1/series': { ...(usual['/v1/series'] as object), series: [] },
    '/v1/devices/boiler-1': {
      ...boiler,
      latest: [{ metric: 'temperature', observedAt: now - 5 * 3_600_000, receivedAt: now, value: 1 }],
    },
  }
  const { html } = await get(await pages(answers), '/devices/boiler-1?range=15m')
  expect(html).toContain('No readings in this range.')
  expect(html).toContain('?range=6h')
})

test('nothing inline, nothing from elsewhere, and no more than 120 KB of script and style', async () => {
  const app = await pages(usual)
  const answer = await app.inject('/devices/boiler-1')
  expect(answer.headers['content-security-policy']).toContain("script-src 'self'")
  expect(answer.body).not.toMatch(/ style="| on\w+="|<style|<script>/)
  const loaded = [...answer.body.matchAll(/(?:src|href)="(\/assets\/[^"]+)"/g)].map(([, url]) => url!)
  expect(loaded.length).toBeGreaterThan(3)
  const directory = loaded[0]!.slice(0, loaded[0]!.lastIndexOf('/'))
  const modules = ['format.js', 'page.js', 'live.js', 'view.js', 'chart.js', 'series.js'].map(
    (name) => `${directory}/${name}`,
  )
  let bytes = 0
  for (const url of new Set([...loaded, ...modules])) {
    const asset = await app.inject({ url, headers: { 'accept-encoding': 'gzip' } })
    expect(asset.statusCode, url).toBe(200)
    expect(asset.headers['cache-control']).toContain('immutable')
    bytes += asset.rawPayload.length
  }
  expect(bytes).toBeLessThan(120 * 1024)
})

test('an asset of another version is not kept under its name', async () => {
  const app = await pages(usual)
  const asset = await app.inject('/assets/000000000000/weir.css')
  expect(asset.headers['cache-control']).toBe('no-store')
  expect((await app.inject('/assets/000000000000/..%2Fpages.tsx')).statusCode).toBe(404)
})
