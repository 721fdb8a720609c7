// The pages that people see, rendered on the server from the public API's answers. Registered into the API's own server, so that pages and API
// share one address.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { DeviceDetailAnswer } from '../api/wire.ts'
import { type Ask, type Questions, questionsTo } from './ask.ts'
import { type Assets, registerAssets } from './assets.ts'
import { registerDeadLetterPages } from './dead-letter-pages.tsx'
import { chartsMax, DeviceAway, DevicePage, foundMax, type TextHistory, UnknownDevice } from './device.tsx'
import { defaultRange, type RangeQuery, rangeFromQuery, type ShownRange } from './device-range.ts'
import { FirstSteps } from './first-steps.tsx'
import { type FleetQuery, loadFleet } from './fleet.ts'
import { FleetTable } from './fleet-table.tsx'
import { Notice } from './layout.tsx'
import { Login } from './login.tsx'
import { Overview } from './overview.tsx'
import { PipelinePage } from './pipeline.tsx'
import { createRateHistory } from './rate-history.ts'
import { pageSender, type SendPage } from './security.ts'

export interface PagesOptions {
  readonly ask: Ask
  readonly now?: () => number
  /** Where devices publish, `mqtt://host:port`; without it, the page's own host and port 1883. */
  readonly mqttUrl?: () => string | undefined
  readonly gatewayUrl?: () => string | undefined
  /** Where live viewers connect over WebSocket, `ws://host:port`; without it, pages live on server-sent events. */
  readonly liveUrl?: () => string | undefined
  /** Devices show a token. */
  readonly needsToken?: boolean
}

/** Points that the first paint draws; the browser asks again for its own width. */
const firstPaintPoints = 400
const textRowsMax = 10
const anomaliesMax = 200
/** Of which the overview's few, each of another device, are chosen. */
const foundAskedMax = 50
const dayMs = 86_400_000
const textMetricsMax = 8
const hidden = { schema: { hide: true } as object }

export async function registerPages(app: FastifyInstance, options: PagesOptions): Promise<void> {
  const { ask, now = Date.now, needsToken = false } = options
  const { mqttUrl = () => undefined, gatewayUrl = () => undefined, liveUrl = () => undefined } = options
  const questions = questionsTo(ask)
  const files = registerAssets(app)
  const rates = createRateHistory(questions)
  app.addHook('onReady', async () => rates.start())
  app.addHook('onClose', async () => rates.stop())

  const mqttAddress = (hostname: string): URL => {
    return reachedBy(hostname, new URL(mqttUrl() ?? 'mqtt://0.0.0.0:1883'))
  }

  const gatewayAddress = (hostname: string): string | undefined => {
    const told = gatewayUrl()
    return told === undefined ? undefined : reachedBy(hostname, new URL(told)).origin
  }

  const liveOf = (request: FastifyRequest): string | undefined => liveAddress(liveUrl(), request.hostname)
  const assetsFor = (request: FastifyRequest): Assets => ({ ...files, live: liveOf(request), signedIn: needsToken })
  const sendPage = pageSender(liveOf)

  app.get('/', hidden, async (request, reply) => {
    const query = fleetQuery(request.query)
    const at = now()
    const assets = assetsFor(request)
    const day = { from: Math.floor(at / dayMs) * dayMs, to: at + dayMs, limit: 1 }
    const [pipeline, fleet, today, found] = await Promise.all([
      questions.pipeline(),
      loadFleet(questions, query, at),
      questions.anomalyCounts(day),
      questions.anomalies({ order: 'desc', limit: foundAskedMax }),
    ])
    const nothingYet = !('ok' in fleet) && fleet.rows.length === 0 && query.search === '' && query.after === ''
    if (nothingYet) {
      const where = { mqtt: mqttAddress(request.hostname), gateway: gatewayAddress(request.hostname) }
      return sendPage(reply, await (<FirstSteps assets={assets} {...where} needsToken={needsToken} />))
    }
    const page = (
      <Overview
        assets={assets}
        pipeline={pipeline}
        fleet={fleet}
        query={query}
        rates={rates}
        anomaliesToday={today.ok ? today.value.total : undefined}
        found={found.ok ? found.value.items : undefined}
        now={at}
      />
    )
    return sendPage(reply, await page)
  })

  app.get('/login', hidden, async (request, reply) => {
    const { next = '/', wrong } = request.query as { next?: unknown; wrong?: unknown }
    const page = (
      <Login
        assets={{ ...assetsFor(request), signedIn: false }}
        next={String(next).slice(0, 2_048)}
        wrong={wrong !== undefined}
      />
    )
    return sendPage(reply, await page, wrong === undefined ? 200 : 401)
  })

  app.get('/fragments/fleet', hidden, async (request, reply) => {
    const query = fleetQuery(request.query)
    const at = now()
    const fleet = await loadFleet(questions, query, at)
    if ('ok' in fleet)
      return sendPage(reply, await (<Notice title="The fleet can't be listed now" detail={fleet.detail} />), 503)
    return sendPage(reply, await (<FleetTable fleet={fleet} query={query} now={at} />))
  })

  app.get('/pipeline', hidden, async (request, reply) => {
    const [pipeline, ready, reasons] = await Promise.all([
      questions.pipeline(),
      questions.ready(),
      questions.deadLetterReasons(),
    ])
    const shown = { pipeline, ready, reasons, rates, now: now() }
    return sendPage(reply, await (<PipelinePage assets={assetsFor(request)} {...shown} />))
  })

  app.get<{ Params: { device: string } }>('/devices/:device', hidden, (request, reply) =>
    answerDevice({
      questions,
      assets: assetsFor(request),
      send: sendPage,
      reply,
      name: request.params.device,
      query: request.query,
      now: now(),
      mqtt: mqttAddress(request.hostname),
      needsToken,
    }),
  )
  app.get('/devices', hidden, (_request, reply) => reply.redirect('/', 302))

  registerDeadLetterPages(app, { questions, assetsFor, send: sendPage, now })
}

/** Bound to every address: the one that this page was reached by works, from where it was reached. */
function reachedBy(hostname: string, told: URL): URL {
  const reached = `${told.protocol}//${hostname}${told.port && `:${told.port}`}`
  return /^(0\.0\.0\.0|\[::\])$/.test(told.hostname) && URL.canParse(reached) ? new URL(reached) : told
}

/** By the name that the page itself was reached by: that one works from where it was reached. */
function liveAddress(told: string | undefined, hostname: string): string | undefined {
  if (told === undefined || !URL.canParse(told)) return undefined
  const { protocol, port, host } = new URL(told)
  const isHost = /^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])$/.test(hostname)
  return `${protocol}//${isHost ? `${hostname}:${port}` : host}`
}

interface DeviceRequest {
  readonly questions: Questions
  readonly assets: Assets
  readonly send: SendPage
  readonly reply: FastifyReply
  readonly name: string
  readonly query: unknown
  readonly now: number
  readonly mqtt: URL
  readonly needsToken: boolean
}

async function answerDevice({
  questions,
  assets,
  send,
  reply,
  name,
  query,
  now,
  mqtt,
  needsToken,
}: DeviceRequest): Promise<FastifyReply> {
  const isName = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,128}$/.test(name)
  const known = isName ? await questions.device(name) : { ok: false as const, status: 404, detail: '' }
  if (!known.ok) {
    if (known.status === 404) {
      const unknown = { name, isName, mqtt, needsToken }
      return send(reply, await (<UnknownDevice assets={assets} {...unknown} />), 404)
    }
    return send(reply, await (<DeviceAway assets={assets} name={name} detail={known.detail} />), 503)
  }
  const device = known.value
  const asked = query as RangeQuery & { metrics?: string }
  const range = rangeFromQuery(asked, now) ?? (await defaultRange(questions, device, now))
  const numeric = device.latest.filter(({ value }) => value !== undefined).map(({ metric }) => metric)
  const metrics = asked.metrics === 'all' ? numeric : numeric.slice(0, chartsMax)
  const [series, anomalies, found, texts] = await Promise.all([
    loadSeries(questions, device, metrics, range),
    questions.anomalies({ device: device.device, from: range.from, to: range.to, order: 'desc', limit: anomaliesMax }),
    questions.anomalies({ device: device.device, order: 'desc', limit: foundMax }),
    loadTexts(questions, device),
  ])
  const page = (
    <DevicePage
      assets={assets}
      device={device}
      range={range}
      series={series}
      anomalies={anomalies.ok ? anomalies.value.items : []}
      found={found.ok ? found.value.items : []}
      metrics={metrics}
      metricsLeft={numeric.length - metrics.length}
      drawsAll={asked.metrics === 'all'}
      texts={texts}
      now={now}
    />
  )
  return send(reply, await page)
}

function loadSeries(
  questions: Questions,
  device: DeviceDetailAnswer,
  metrics: readonly string[],
  range: ShownRange,
): ReturnType<Questions['series']> {
  const { from, to } = range
  if (metrics.length === 0) {
    return Promise.resolve({
      ok: true,
      value: { from, to, resolution: 'raw', source: 'raw', timeZone: 'UTC', series: [] },
    })
  }
  return questions.series({ device: device.device, metric: metrics, from, to, points: firstPaintPoints })
}

async function loadTexts(questions: Questions, device: DeviceDetailAnswer): Promise<TextHistory[]> {
  const metrics = device.latest.filter(({ text }) => text !== undefined).slice(0, textMetricsMax)
  return Promise.all(
    metrics.map(async (latest) => {
      const answer = await questions.readings({
        device: device.device,
        metric: latest.metric,
        order: 'desc',
        limit: textRowsMax,
      })
      const items = answer.ok ? answer.value.items.filter(({ text }) => text !== undefined) : []
      return { metric: latest.metric, items: items.length > 0 ? items : [{ ...latest, device: device.device }] }
    }),
  )
}

function fleetQuery(query: unknown): FleetQuery {
  const { search = '', after = '' } = query as { search?: unknown; after?: unknown }
  return { search: String(search).slice(0, 128), after: String(after).slice(0, 1024) }
}
