// A port for whoever watches one `weir start`, whatever its roles: alive, ready (with the state of each part), and instruments, of this first process
// and its children; /status has all of it for the api of the same deployment (peers.ts). Listens before anything else starts and until everything
// has stopped, so that a start that waits says what for.
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Clock } from './clock.ts'
import { renderInstruments } from './instruments.ts'
import { listenError } from './listen-error.ts'
import type { AgedStatus } from './peers.ts'
import { readinessOf, renderPartsUp } from './readiness.ts'
import type { Service } from './service.ts'
import type { StatusBoard } from './status.ts'

export interface HealthServerOptions {
  readonly host: string
  readonly port: number
  readonly status: StatusBoard
  readonly clock: Clock
}

export interface HealthServer extends Service {
  url(): string
}

interface Answer {
  readonly code: number
  readonly type: string
  readonly body: string
}

/** Those who watch are few. */
const connectionsMax = 64
const requestMsMax = 5_000
/** A connection on which nothing moves for so long is ended. */
const idleMsMax = 10_000
const json = 'application/json; charset=utf-8'

export function createHealthServer({ host, port, status, clock }: HealthServerOptions): HealthServer {
  let server: Server | undefined
  let bound = port
  let trouble: string | undefined

  async function answer(path: string): Promise<Answer> {
    if (path === '/healthz') return { code: 200, type: json, body: '{"status":"ok"}' }
    if (!['/readyz', '/metrics', '/status'].includes(path)) {
      const detail = `There is no ${path.slice(0, 100)} here: /healthz, /readyz, /metrics and /status are.`
      const problem = { type: '/problems/not-found', title: 'Not found', status: 404, detail }
      return { code: 404, type: 'application/problem+json', body: JSON.stringify(problem) }
    }
    const statuses = await status.all()
    const nowMs = clock.nowMicros() / 1000
    if (path === '/status') {
      const aged = statuses.map(({ at, ...status }): AgedStatus => ({ ...status, ageMs: Math.max(0, nowMs - at) }))
      return { code: 200, type: json, body: JSON.stringify(aged) }
    }
    const readiness = readinessOf(statuses, nowMs)
    if (path === '/readyz')
      return { code: readiness.status === 'ready' ? 200 : 503, type: json, body: JSON.stringify(readiness) }
    const body = renderInstruments(statuses.map(({ instruments }) => instruments)) + renderPartsUp(readiness.parts)
    return { code: 200, type: 'text/plain; version=0.0.4; charset=utf-8', body }
  }

  return {
    name: 'health',

    async start() {
      const created = createServer(
        { requestTimeout: requestMsMax, headersTimeout: requestMsMax, connectionsCheckingInterval: 1_000 },
        (request, response) => {
          trouble = undefined
          const isRead = request.method === 'GET' || request.method === 'HEAD'
          if (!isRead) {
            response.writeHead(405, { allow: 'GET, HEAD', connection: 'close' }).end()
            return
          }
          const [path, query] = splitUrl(request.url ?? '/')
          const answered = query === '' ? answer(path) : Promise.resolve(withoutParameters(path, query))
          answered.catch(failed).then(({ code, type, body }) => {
            response.writeHead(code, { 'content-type': type, 'cache-control': 'no-store' }).end(body)
          })
        },
      )
      created.maxConnections = connectionsMax
      // One that takes no answers must not keep its place from those who watch.
      created.setTimeout(idleMsMax)
      server = created
      await new Promise<void>((done, fail) => {
        // Once it listens, that one connection could not be taken (no descriptor is free) is no reason to end: it says so, and the next may be.
        created.on('error', (error) => {
          trouble = error.message
          fail(listenError(error, { what: 'The health', host, port, option: 'WEIR_HEALTH_PORT' }))
        })
        created.listen({ host, port, exclusive: true }, done)
      })
      bound = (created.address() as AddressInfo).port
    },

    /** Says "not ready" until the end. */
    async drain() {},

    async stop() {
      server?.close()
      server?.closeAllConnections()
      server = undefined
    },

    health: () =>
      trouble === undefined
        ? { state: 'ok' }
        : { state: 'degraded', detail: `The health port had trouble: ${trouble}` },
    url: () => `http://${host.includes(':') ? `[${host}]` : host}:${bound}`,
  }
}

function splitUrl(url: string): readonly [path: string, query: string] {
  const at = url.indexOf('?')
  return at < 0 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)]
}

/** A fault of ours: whoever watches hears of it, and may ask again. */
function failed({ message }: Error): Answer {
  const detail = `The state of the processes could not be put together: ${message.slice(0, 200)}. Ask again; the log of weir start may say more.`
  const problem = { type: '/problems/internal-error', title: 'Something failed on our side', status: 500, detail }
  return { code: 500, type: 'application/problem+json', body: JSON.stringify(problem) }
}

/** As every other route of Weir: what would do nothing is refused, not ignored. */
function withoutParameters(path: string, query: string): Answer {
  const detail = `${path.slice(0, 100)} takes no parameters; there is ?${query.slice(0, 100)}`
  const problem = { type: '/problems/invalid-parameter', title: 'A parameter is not usable', status: 400, detail }
  return { code: 400, type: 'application/problem+json', body: JSON.stringify(problem) }
}
