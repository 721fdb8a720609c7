// `/healthz` and `/readyz` of the process that takes readings in, on the gateway's port: where ingest runs apart there is no api to ask. The same shape
// as the api's, which speaks for every process that it knows.
import type { LogState } from '../domain/event-log.ts'
import type { Health } from '../runtime/service.ts'
import type { Answer } from '../runtime/web-server.ts'

export type IngestParts = Readonly<Record<'log' | 'mqtt' | 'gateway', Health>>

const json = { 'content-type': 'application/json; charset=utf-8' }

/** undefined: not a question about health. */
export function answerHealth(method: string, path: string, parts: () => IngestParts): Answer | undefined {
  if (method !== 'GET' && method !== 'HEAD') return undefined
  if (path === '/healthz') return { status: 200, headers: json, body: JSON.stringify({ status: 'ok' }) }
  if (path !== '/readyz') return undefined
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
