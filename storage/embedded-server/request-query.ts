// What a request says in its URL and headers: the interface's own parameters, `param_x`, and settings, which is everything else. What ClickHouse would
// do and we don't is refused here, so that nobody takes silence for consent.
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
  /** Answer in gzip of this level; 0: as it is. */
  readonly gzipLevel: number
  readonly waitsForEnd: boolean
  /** The body comes in gzip. */
  readonly isBodyCompressed: boolean
}

/** Of the real interface and not of ours: only as 0 or empty, which is what we do. */
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
  'buffer_size',
  'log_comment',
  'external_table',
  'async_insert',
  'send_progress_in_http_headers',
  'add_http_cors_header',
])
/** Settings that only ClickHouse's own HTTP handler acts on: the engine would take them, and nothing would come of it. */
const refusedPattern = /_structure$|^http_(response|headers|max|native|wait|write)_|^framing$/
const takenElsewhere = new Set([
  'query',
  'database',
  'default_format',
  'query_id',
  'user',
  'password',
  'wait_end_of_query',
  'enable_http_compression',
  'http_zlib_compression_level',
])
const knownHeaders = new Set(['x-clickhouse-user', 'x-clickhouse-key', 'x-clickhouse-database', 'x-clickhouse-format'])
const gzipLevelDefault = 3
const queryIdPattern = /^[\x21-\x7e]{1,256}$/

export function parseHttpQuery(request: IncomingMessage, url: URL): HttpQuery {
  const { headers } = request
  checkRequest(request)
  const asked = url.searchParams
  const settings = new Map<string, string>()
  const parameters = new Map<string, string>()
  const seen = new Set<string>()
  for (const [name, value] of asked) {
    if (seen.has(name)) throw badArgument(`${name} is there twice`)
    seen.add(name)
    if (takenElsewhere.has(name)) continue
    if (refusedNames.has(name) || refusedPattern.test(name)) {
      if (value !== '0' && value !== '') throw notSupported(`The parameter ${name}`)
      continue
    }
    if (name.startsWith('param_')) {
      if (!/^\w+$/.test(name)) throw badArgument(`${name} is not the name of a parameter`)
      parameters.set(name.slice('param_'.length), value)
    } else if (name === 'cancel_http_readonly_queries_on_client_close') {
      if (value === '0') throw notSupported('A query that outlives its client')
    } else if (/^\w+$/.test(name)) settings.set(name, value)
    else throw new EngineError(115, 'UNKNOWN_SETTING', `${JSON.stringify(name)} is neither a parameter nor a setting`)
  }
  // As ClickHouse: what a GET asks for changes nothing.
  if (request.method === 'GET' && (settings.get('readonly') ?? '0') === '0') settings.set('readonly', '2')
  const queryId = asked.get('query_id') || randomUUID()
  if (!queryIdPattern.test(queryId)) throw badArgument('query_id must be 1 to 256 printable characters without blanks')
  const acceptsGzip = /\bgzip\b/.test(header(headers['accept-encoding']) ?? '')
  return {
    sql: asked.get('query') ?? undefined,
    database: asked.get('database') ?? header(headers['x-clickhouse-database']),
    defaultFormat: asked.get('default_format') ?? header(headers['x-clickhouse-format']) ?? 'TabSeparated',
    queryId,
    settings,
    parameters,
    gzipLevel: flag(asked, 'enable_http_compression') && acceptsGzip ? gzipLevel(asked) : 0,
    waitsForEnd: flag(asked, 'wait_end_of_query'),
    isBodyCompressed: headers['content-encoding'] === 'gzip',
  }
}

function checkRequest({ method, headers }: IncomingMessage): void {
  if (method !== 'GET' && method !== 'POST') throw notSupported(`The method ${method}`)
  if (headers['content-type']?.startsWith('multipart/')) throw notSupported('A multipart body (external tables)')
  const encoding = headers['content-encoding']
  if (encoding !== undefined && encoding !== 'gzip' && encoding !== 'identity')
    throw notSupported(`Content-Encoding: ${encoding}`)
  for (const name of Object.keys(headers))
    if (name.startsWith('x-clickhouse-') && !knownHeaders.has(name)) throw notSupported(`The header ${name}`)
}

function flag(asked: URLSearchParams, name: string): boolean {
  const value = asked.get(name) ?? ''
  if (value === '1' || value === 'true') return true
  if (value === '0' || value === 'false' || value === '') return false
  throw badArgument(`${name} must be 0 or 1`)
}

function gzipLevel(asked: URLSearchParams): number {
  const level = Number(asked.get('http_zlib_compression_level') ?? gzipLevelDefault)
  if (!Number.isInteger(level) || level < 1 || level > 9)
    throw badArgument('http_zlib_compression_level must be 1 to 9')
  return level
}

function badArgument(message: string): EngineError {
  return new EngineError(36, 'BAD_ARGUMENTS', message)
}

function header(value: string | readonly string[] | undefined): string | undefined {
  return typeof value === 'string' ? value : value?.[0]
}
