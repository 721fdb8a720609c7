// The pages as strings, over a small API of canned answers: what is escaped, what is said when something is missing, what a browser loads.
import { type FastifyInstance, fastify } from 'fastify'
import { afterEach, expect, test } from 'vitest'
import type {
  AnomalyAnswer,
  DeadLetterDetailAnswer,
  DeviceAnswer,
  LatestAnswer,
  PipelineAnswer,
  ReadingAnswer,
} from '../api/wire.ts'
import { registerPages } from './pages.tsx'

const now = 1_790_000_000_000
const hostile = `"><script>alert(1)</script>&lt;b onclick='x'`
const stage = { total: 10, perSecond: 2, lagMs: 0 }
const pipeline = {
  at: now,
  stages: { received: stage, durable: stage, stored: stage, seen: stage, detected: stage },
  connections: 1,
  doors: { mqtt: 1, gateway: 0 },
  viewers: 0,
  deadLettered: 0,
  refused: 0,
  devices: { total: 1, online: 1 },
  series: 2,
  consumers: [{ group: 'writer', topic: 'readings', waitingChunks: 4 }],
  log: { bytes: 2_048, quotaBytes: 4_096 },
  limits: [{ kind: 'connection-closed', cause: 'keepalive', count: 3 }],
  unknown: { ingest: null, writer: null, detector: null },
} satisfies PipelineAnswer
const unknownStage = { total: null, perSecond: null, lagMs: null }
const anomaly: AnomalyAnswer = {
  id: 'a1',
  device: 'boiler-1',
  metric: hostile,
  observedAt: now - 3_600_000,
  value: 99,
  score: 0.5,
  detector: 'coverage-net/1',
  expected: { low: 60, high: 80 },
  explanation: `99 is above everything ${hostile}`,
  evidence: {},
}
const letter: DeadLetterDetailAnswer = {
  id: '0006000000000000-0000abcd',
  device: 'boiler-1',
  reason: 'malformed-payload',
  detail: `Not JSON ${hostile}`,
  metric: hostile,
  codec: 'json',
  origin: 'devices/boiler-1/telemetry',
  receivedAt: now - 1_000,
  putBack: null,
  payload: Buffer.from(`{"a": </textarea>${hostile}`).toString('base64'),
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
  '/v1/anomalies': { items: [anomaly], next: null },
  '/v1/anomalies/counts': { total: 12, items: [{ device: 'boiler-1', count: 12 }], next: null },
  '/readyz': { status: 'ready', parts: { log: { state: 'failed', detail: 'fsync failed', process: 'ingest' } } },
  '/v1/dead-letters': { items: [letter], next: null },
  '/v1/dead-letters/reasons': { items: [{ reason: 'malformed-payload', count: 7, newestAt: now }] },
  [`/v1/dead-letters/${letter.id}`]: letter,
  [`/v1/dead-letters/${letter.id}/replay`]: { accepted: 1, deadLettered: 0 },
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

const posted: { path: string; body: string }[] = []

async function pages(answers: Canned): Promise<FastifyInstance> {
  const app = fastify()
  apps.push(app)
  posted.length = 0
  const ask = async (path: string, body?: Uint8Array): Promise<unknown> => {
    if (body) posted.push({ path, body: Buffer.from(body).toString() })
    const known = Object.keys(answers).find((each) => path.split('?')[0] === each)
    return known ? answers[known] : { type: '/problems/unknown', title: 'unknown', status: 404, detail: 'unknown' }
  }
  const mqttUrl = () => 'mqtt://127.0.0.1:41883'
  await registerPages(app, { ask, now: () => now, mqttUrl, liveUrl: () => 'ws://127.0.0.1:48082' })
  return app
}

const get = async (app: FastifyInstance, url: string): Promise<{ status: number; html: string }> => {
  const answer = await app.inject({ method: 'GET', url, headers: { accept: 'text/html' } })
  return { status: answer.statusCode, html: answer.body }
}

const letterUrl = `/dead-letters/${letter.id}`
test.each([
  '/pipeline',
  '/dead-letters',
  letterUrl,
  '/',
  '/?search=%22%3E%3Cscript%3Ealert(1)%3C/script%3E',
  '/devices/boiler-1',
  '/fragments/fleet?search=x',
])('hostile names and values stay text: %s', async (url) => {
  const { html } = await get(await pages(usual), url)
  expect(html).not.toContain('<script>alert')
  expect(html).not.toContain('<b onclick')
  // As text and, with its ampersand kept, in attributes: what a script reads back is the name itself.
  if (!url.includes('%3C') && url !== '/pipeline')
    expect(html).toContain('&lt;script>alert(1)&lt;/script>&amp;lt;b onclick=&#39;x&#39;')
})

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

test('what can’t be asked is not called empty, and says what to do', async () => {
  expect((await get(await pages({ ...usual, '/v1/anomalies': { items: [], next: null } }), '/')).html).toContain(
    'Nothing odd has been found yet.',
  )
  const app = await pages({ ...usual, '/v1/anomalies': away, '/v1/dead-letters': away })
  const overview = (await get(app, '/')).html
  expect(overview).not.toContain('Nothing odd')
  expect(overview).toContain('can’t be asked for now')
  expect((await get(app, '/dead-letters')).html).toContain('load the page again in a moment')
  const none = (await get(await pages({ ...usual, '/v1/devices': away }), '/')).html
  expect(none).toContain('this page tries again by itself')
  // Where the script puts the fleet once it can be listed.
  expect(none).toContain('id="fleet"')
})

test('one point is not called "points"', async () => {
  const one = { device: 'boiler-1', metric: hostile, observedAt: [now - 12_000], value: [71.3] }
  const app = await pages({ ...usual, '/v1/series': { ...(usual['/v1/series'] as object), series: [one] } })
  const { html } = await get(app, '/devices/boiler-1')
  expect(html).toContain('1 point, every reading')
  expect(html).toContain('1 point between 71.3 and 71.3')
  expect((await get(await pages(usual), '/devices/boiler-1')).html).toContain('2 points, every reading')
})

test('what is off or on is drawn in steps without scripts too, and what changes by degrees is not', async () => {
  const drawn = async (value: number[]): Promise<string[]> => {
    const one = { device: 'boiler-1', metric: hostile, observedAt: [now - 450_000, now - 300_000, now], value }
    const series = { ...(usual['/v1/series'] as object), from: now - 450_000, series: [one] }
    const { html } = await get(await pages({ ...usual, '/v1/series': series }), '/devices/boiler-1')
    return /class="still">.*?<polyline points="([^"]*)"/s.exec(html)![1]!.split(' ')
  }
  const [start, corner, , ...rest] = await drawn([0, 1, 0])
  expect(corner!.split(',')[1]).toBe(start!.split(',')[1])
  expect(rest).toHaveLength(2)
  expect(await drawn([0, 1, 0.5])).toHaveLength(3)
})

test('nothing heard of yet: the first steps, with the address that devices publish to', async () => {
  const { html } = await get(await pages({ ...usual, '/v1/devices': { items: [], next: null } }), '/')
  expect(html).toContain('mosquitto_pub -h 127.0.0.1 -p 41883 -q 1 -t devices/boiler-1/telemetry')
  expect(html).toContain('mqtt://127.0.0.1:41883')
})

test('bound to every address, the page names the one that it was reached by', async () => {
  const app = fastify()
  apps.push(app)
  await registerPages(app, {
    ask: async () => ({ items: [], next: null }),
    mqttUrl: () => 'mqtt://0.0.0.0:41883',
    gatewayUrl: () => 'http://0.0.0.0:41881',
  })
  const reached = await app.inject({ url: '/', headers: { host: 'weir.example:8080' } })
  expect(reached.body).toContain('mosquitto_pub -h weir.example -p 41883')
  expect(reached.body).toContain('http://weir.example:41881/v1/telemetry/boiler-1')
  const hostile = await app.inject({ url: '/', headers: { host: '"><script>alert(1)</script>' } })
  expect(hostile.body).not.toContain('<script>alert')
})

test('where a token is asked for, what a page says to type has one, and each page can be left', async () => {
  const app = fastify()
  apps.push(app)
  const empty = { items: [], next: null }
  const ask = async (path: string): Promise<unknown> =>
    path.startsWith('/v1/devices/') ? { type: '/problems/unknown-device', title: '', status: 404, detail: '' } : empty
  await registerPages(app, { ask, mqttUrl: () => 'mqtt://127.0.0.1:41883', needsToken: true })
  const first = await get(app, '/')
  expect(first.html).toContain('mqtt://fleet:$FLEET@127.0.0.1:41883')
  expect(first.html).toContain('action="/logout"')
  const unknown = await get(app, '/devices/boiler-2')
  expect(unknown.status).toBe(404)
  expect(unknown.html).toContain('weir device add boiler-2')
  expect(unknown.html).toContain('-u boiler-2 -P')
  expect(unknown.html).not.toContain('does not have to be registered')
  expect((await get(app, '/login')).html).not.toContain('action="/logout"')
  expect((await get(await pages(usual), '/')).html).not.toContain('action="/logout"')
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
  const modules = ['format.js', 'page.js', 'live.js', 'view.js', 'chart.js', 'series.js', 'found.js', 'stages.js'].map(
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

test('what is not known is a dash with why, never 0', async () => {
  const why = 'The role ingest does not run together with this api, or has not said anything yet.'
  const answers: Canned = {
    ...usual,
    '/v1/pipeline': {
      ...pipeline,
      stages: { ...pipeline.stages, received: unknownStage, durable: unknownStage },
      ...{ connections: null, doors: null, deadLettered: null, refused: null, log: null, limits: [] },
      unknown: { ...pipeline.unknown, ingest: why },
    },
    '/v1/anomalies/counts': away,
  }
  const app = await pages(answers)
  const numberOf = (html: string, name: string) => new RegExp(`data-number="${name}">([^<]*)`).exec(html)?.[1]
  const overview = await get(app, '/')
  for (const name of ['rate', 'connections', 'deadLettered', 'anomalies'])
    expect([name, numberOf(overview.html, name)]).toEqual([name, '–'])
  const { html } = await get(app, '/pipeline')
  for (const name of ['rate', 'mqtt', 'gateway', 'refused', 'deadLettered', 'log'])
    expect([name, numberOf(html, name)]).toEqual([name, '–'])
  expect(html).toMatch(/data-stage="received" data-state="unknown"/)
  expect(html).toContain(why)
  expect(html).toContain(`Not known here. ${why}`)
})

test('the pipeline page has stages, limits, dead letters, readers and parts without scripts', async () => {
  const { status, html } = await get(await pages(usual), '/pipeline')
  expect(status).toBe(200)
  for (const stage of ['received', 'durable', 'stored', 'detected', 'seen'])
    expect(html).toContain(`data-stage="${stage}"`)
  expect(html).toContain('MQTT connection closed')
  expect(html).toContain('keepalive')
  expect(html).toContain('/dead-letters?reason=malformed-payload')
  expect(html).toContain('failed: fsync failed')
  expect(html).toContain('2 KiB')
  expect((await get(await pages({}), '/pipeline')).status).toBe(200)
})

test('the live port reaches the page by the name that the page was reached by, and its policy', async () => {
  const app = await pages(usual)
  const reached = async (host: string) => {
    const { headers, body } = await app.inject({ url: '/pipeline', headers: { host } })
    return [
      /data-live="([^"]*)"/.exec(body)?.[1],
      /connect-src ([^;]*)/.exec(String(headers['content-security-policy']))?.[1],
    ]
  }
  expect(await reached('weir.example:8080')).toEqual(['ws://weir.example:48082', "'self' ws://weir.example:48082"])
  expect(await reached('[::1]:8080')).toEqual(['ws://[::1]:48082', "'self' ws://[::1]:48082"])
  expect((await reached(`x;script-src'unsafe-inline'`))[1]).toBe("'self' ws://127.0.0.1:48082")
})

test('a device of many metrics keeps its range when all are drawn, and all when the range changes', async () => {
  const latest = Array.from({ length: 13 }, (_, i) => ({ metric: `m${i}`, observedAt: now, receivedAt: now, value: i }))
  const app = await pages({ ...usual, '/v1/devices/boiler-1': { ...boiler, latest } })
  const some = (await get(app, '/devices/boiler-1?from=1000&to=2000')).html
  expect(some).toContain('href="?from=1000&amp;to=2000&amp;metrics=all"')
  expect(some).toContain('href="?range=6h"')
  const all = (await get(app, '/devices/boiler-1?range=1h&metrics=all')).html
  expect(all).toContain('href="?range=6h&amp;metrics=all"')
})

test('a dead letter is shown as text and byte by byte, and given out as it is', async () => {
  const app = await pages(usual)
  const { html } = await get(app, letterUrl)
  expect(html).toContain('000000  7b 22 61 22 3a 20 3c 2f  74 65 78 74 61 72 65 61  |{&#34;a&#34;: &lt;/textarea|')
  const bytes = await app.inject(`${letterUrl}/bytes`)
  expect(bytes.headers['content-disposition']).toBe(`attachment; filename="dead-letter-${letter.id}.bin"`)
  expect(bytes.rawPayload.toString('base64')).toBe(letter.payload)
  expect((await app.inject(`${letterUrl}/base64`)).body).toBe(letter.payload)
  expect((await get(app, '/dead-letters/none')).status).toBe(404)
  const binary = await pages({ ...usual, [`/v1/dead-letters/${letter.id}`]: { ...letter, payload: 'AP8B' } })
  expect((await get(binary, letterUrl)).html).toContain('These bytes are no text.')
})

test('a dead letter is put back by a form', async () => {
  const app = await pages(usual)
  const send = (form: Record<string, string>) =>
    app.inject({
      method: 'POST',
      url: `${letterUrl}/put-back`,
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: new URLSearchParams(form).toString(),
    })
  const kept = await send({ as: 'kept' })
  expect([kept.statusCode, kept.headers.location]).toEqual([303, `${letterUrl}?accepted=1&deadLettered=0`])
  await send({ as: 'mended', encoding: 'text', payload: '{"a": 1}\r\n{"a": 2}' })
  await send({ as: 'mended', encoding: 'base64', payload: 'eyJh\r\nIjoxfQ==' })
  expect(posted.map(({ body }) => body)).toEqual(['', '{"a": 1}\n{"a": 2}', '{"a":1}'])
  const wrong = await send({ as: 'mended', encoding: 'base64', payload: 'no <base64>' })
  expect(wrong.statusCode).toBe(422)
  // What was written is still there.
  expect(wrong.body).toContain('no &lt;base64')
  expect(posted.length).toBe(3)
  expect((await get(app, kept.headers.location as string)).html).toContain(
    'Put back: 1 accepted, 0 dead-lettered again.',
  )
})
