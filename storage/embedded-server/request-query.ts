// What a request says in its URL and headers: the interface's own parameters, `param_x`, and settings, which is everything else.
import { randomUUID } from 'node:crypto'
import type { IncomingMessage } from 'node:http'
import { EngineError, notSupported } from './engine-error.ts'

export interface HttpQuery {
  /** From `query=`; the body goes behind it. */
  readonly sql: string | undefined
  readonly database: string | undefined
  readonly defaultFormat: string
  readonly queryId: string
  readonly settings: ReadonlyMap<string, string>
  readonly parameters: ReadonlyMap<string, string>
  /** Answer in gzip. */
  readonly compresses: boolean
  readonly waitsForEnd: boolean
  /** The body comes in gzip. */
  readonly isBodyCompressed: boolean
}

/** Of the real interface, and not of ours. */
const refusedNames = new Set([
  'session_id',
  'session_timeout',
  'session_check',
  'close_session',
  'role',
  'quota_key',
  'stacktrace',
  'client_protocol_version',
  'compress',
  'decompress',
  'send_progress_in_http_headers',
  'http_write_exception_in_output_format',
  'log_comment',
  'external_table',
])
const takenElsewhere = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'user',
  'password',
  'wait_end_of_query',
  'buffer_size',
  'enable_http_compression',
  'http_zlib_compression_level',
  // Always so here.
  'cancel_http_readonly_queries_on_client_close',
])

export function parseHttpQuery(request: IncomingMessage, url: URL): HttpQuery {
  const { headers } = request
  if (request.method !== 'GET' && request.method !== 'POST') throw notSupported(`The method ${request.method}`)
  if (headers['content-type']?.startsWith('multipart/')) throw notSupported('A multipart body (external tables)')
  const bodyEncoding = headers['content-encoding']
  if (bodyEncoding !== undefined && bodyEncoding !== 'gzip') throw notSupported(`Content-Encoding: ${bodyEncoding}`)
  const settings = new Map<string, string>()
  const parameters = new Map<string, string>()
  for (const [name, value] of url.searchParams) {
    if (takenElsewhere.has(name)) continue
    if (refusedNames.has(name) || name.endsWith('_structure')) {
      if (value !== '0' && value !== '') throw notSupported(`The parameter ${name}`)
      continue
    }
    if (name.startsWith('param_')) {
      if (!/^\w+$/.test(name)) throw new EngineError(36, 'BAD_ARGUMENTS', `${name} is not the name of a parameter`)
      parameters.set(name.slice('param_'.length), value)
    } else settings.set(name, value)
  }
  // As ClickHouse: what a GET asks for changes nothing.
  if (request.method === 'GET' && (settings.get('readonly') ?? '0') === '0') settings.set('readonly', '2')
  const asked = url.searchParams
  return {
    sql: asked.get('query') ?? undefined,
    database: asked.get('database') ?? header(headers['x-clickhouse-database']),
    defaultFormat: asked.get('default_format') ?? header(headers['x-clickhouse-format']) ?? 'TabSeparated',
    queryId: asked.get('query_id') || randomUUID(),
    settings,
    parameters,
    compresses:
      asked.get('enable_http_compression') === '1' && /\bgzip\b/.test(header(headers['accept-encoding']) ?? ''),
    waitsForEnd: asked.get('wait_end_of_query') === '1',
    isBodyCompressed: bodyEncoding === 'gzip',
  }
}

function header(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.[0]
}
