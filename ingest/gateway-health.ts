// `/healthz` and `/readyz` of the process that takes readings in, on the gateway's port: where ingest runs apart there is no api to ask. The same shape
// as the api's, which speaks for every process that it knows.
import type { LogState } from '../domain/event-log.ts'
import { RequestError } from '../runtime/errors.ts'
import type { Health } from '../runtime/service.ts'
import type { Answer, RequestHead } from '../runtime/web-server.ts'
import { problemAnswer } from './gateway-problems.ts'

export type IngestParts = Readonly<Record<'log' | 'mqtt' | 'gateway', Health>>

const json = { 'content-type': 'application/json; charset=utf-8' }

/** undefined: not a question about health. */
export function answerHealth(
  { method, path, query }: Pick<RequestHead, 'method' | 'path' | 'query'>,
  parts: () => IngestParts,
): Answer | undefined {
  if ((method !== 'GET' && method !== 'HEAD') || (path !== '/healthz' && path !== '/readyz')) return undefined
  if (query !== '') {
    const detail = `${path} takes no parameters; there is ?${query.slice(0, 100)}`
    return problemAnswer(new RequestError(400, 'invalid-parameter', 'A parameter is not usable', detail))
  }
  if (path === '/healthz') return { status: 200, headers: json, body: JSON.stringify({ status: 'ok' }) }
  const found = Object.entries(parts())
  const isReady = found.every(([, { state }]) => state === 'ok' || state === 'degraded')
  const body = {
    status: isReady ? 'ready' : 'not-ready',
    parts: Object.fromEntries(found.map(([part, health]) => [part, { ...health, process: 'ingest' }])),
  }
  const headers = isReady ? json : { ...json, 'retry-after': '1' }
  return { status: isReady ? 200 : 503, headers, body: JSON.stringify(body) }
}

export function logHealth(state: LogState): Health {
  return state.state === 'ok' ? { state: 'ok' } : { state: 'failed', detail: state.reason }
}
