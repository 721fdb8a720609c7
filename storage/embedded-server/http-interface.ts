// ClickHouse's HTTP interface over the embedded engine: what `@clickhouse/client`, curl and other ClickHouse clients speak. What it does not
// do of the real one is refused with a ClickHouse error, never ignored. Rows that stream out and meet an error end with a broken connection,
// so that nobody takes a part for the whole.
import { createHash, timingSafeEqual } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { promisify } from 'node:util'
import { createGzip, type Gzip, gzip } from 'node:zlib'
import type { Logger } from '../../runtime/logger.ts'
import type { Answer, Engine, Statement, Statistics } from './engine.ts'
import { EngineError, engineErrorFrom, notSupported, statusOfCode } from './engine-error.ts'
import { readStatement } from './request-body.ts'
import { type HttpQuery, parseHttpQuery } from './request-query.ts'
import { insertFromFile } from './spool.ts'
import { mayStream, type SqlShape } from './sql-shape.ts'

export interface HttpInterfaceOptions {
  readonly engine: Engine
  readonly username: string
  readonly password: string
  /** Bodies of inserts are kept here until they are in the table. */
  readonly spoolDirectory: string
  /** Statements that read from here are the writer's own: they run beside people's queries, not among them. */
  readonly localFilesDirectory: string
  /** Of people's queries, where they say nothing themselves. */
  readonly queryDefaults: ReadonlyMap<string, string>
  readonly logger: Logger
}

export type RequestHandler = (request: IncomingMessage, response: ServerResponse) => void

export function createHttpInterface(options: HttpInterfaceOptions): RequestHandler {
  const runningIds = new Set<string>()
  return (request, response) => {
    // Our own paths only; the authority is of no interest.
    const url = new URL(request.url ?? '/', 'http://127.0.0.1')
    if (url.pathname === '/ping') return plain(response, 200, 'Ok.\n')
    if (url.pathname !== '/') return plain(response, 404, `There is no handle ${url.pathname}; use / or /ping\n`)
    void answer(options, runningIds, request, response, url).catch((error: unknown) => {
      // answer() gives every error to the client; what comes here could not be written.
      options.logger.debug({ error: String(error) }, 'an answer could not be written')
      response.destroy()
    })
  }
}

async function answer(
  options: HttpInterfaceOptions,
  runningIds: Set<string>,
  request: IncomingMessage,
  response: ServerResponse,
  url: URL,
): Promise<void> {
  const gone = new AbortController()
  response.once('close', () => {
    if (!response.writableFinished) gone.abort(new EngineError(394, 'QUERY_WAS_CANCELLED', 'The client went away'))
  })
  let queryId: string | undefined
  try {
    const unauthorised = checkCredentials(options, request, url)
    if (unauthorised) throw unauthorised
    const query = parseHttpQuery(request, url)
    if (runningIds.has(query.queryId)) {
      throw new EngineError(
        216,
        'QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING',
        `Query with id = ${query.queryId} is already running`,
      )
    }
    queryId = query.queryId
    runningIds.add(queryId)
    response.setHeader('X-ClickHouse-Query-Id', queryId)
    await execute(options, query, request, response, gone.signal)
  } catch (error) {
    refuse(response, engineErrorFrom(error))
  } finally {
    if (queryId !== undefined) runningIds.delete(queryId)
    // What is left of a refused body would be taken for the next request of the connection.
    if (!request.complete) request.destroy()
  }
}

async function execute(
  options: HttpInterfaceOptions,
  query: HttpQuery,
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): Promise<void> {
  const read = await readStatement(query, request)
  const { shape } = read
  if (shape.kind === '' && request.method === 'GET' && query.sql === undefined) return plain(response, 200, 'Ok.\n')
  checkShape(shape, query)
  const base = {
    database: query.database,
    parameters: query.parameters,
    leavesTraces: leavesTraces(shape),
    signal,
  }
  if (read.data !== undefined) {
    const statistics = await insertFromFile(options, shape.insert!, read.data, {
      ...base,
      lane: 'insert',
      settings: query.settings,
    })
    return finish(response, query, undefined, { ...statistics, bytes: new Uint8Array() })
  }
  const lane = laneOf(shape, read.sql, options.localFilesDirectory)
  const settings = lane === 'query' ? new Map([...options.queryDefaults, ...query.settings]) : query.settings
  const format = shape.format ?? query.defaultFormat
  const statement: Statement = { ...base, sql: read.sql, format, lane, settings }
  if (!query.waitsForEnd && mayStream(shape, format)) return stream(options.engine, statement, query, response)
  const result = await options.engine.run(statement)
  return finish(response, query, shape.kind === 'INSERT' ? undefined : format, result)
}

function checkShape(shape: SqlShape, query: HttpQuery): void {
  if (shape.kind === '') throw new EngineError(62, 'SYNTAX_ERROR', 'Syntax error: Empty query')
  if (shape.isSeveral) throw new EngineError(62, 'SYNTAX_ERROR', 'Syntax error (Multi-statements are not allowed)')
  if (shape.kind !== 'INSERT' && shape.words.some((word) => word.keyword === 'OUTFILE' && word.depth === 0)) {
    throw new EngineError(358, 'INTO_OUTFILE_NOT_ALLOWED', 'INTO OUTFILE is not allowed')
  }
  if (shape.words.some((word) => word.keyword === 'INFILE')) throw notSupported('FROM INFILE')
  checkReadonly(shape, query.settings.get('readonly') ?? '0')
  // A view may keep its placeholders; everything else must be given all of them.
  if (shape.kind === 'CREATE' || shape.kind === 'ALTER') return
  for (const name of shape.parameters) {
    if (!query.parameters.has(name)) {
      throw new EngineError(456, 'UNKNOWN_QUERY_PARAMETER', `Substitution \`${name}\` is not set`)
    }
  }
}

/**
 * The engine checks the settings of the outer query against `readonly`, and takes those of a subquery as they are: `SETTINGS readonly = 0` in
 * one opens file() and url() (chdb 3.4.0; a contract test has it). So no clause gets past us.
 */
function checkReadonly(shape: SqlShape, readonly: string): void {
  if (readonly === '0' || !(shape.changesReadonly || (readonly === '1' && shape.changesSettings))) return
  throw new EngineError(164, 'READONLY', 'Cannot modify settings in readonly mode: pass them beside the statement')
}

const traceless = new Set(
  'SELECT WITH INSERT SHOW DESCRIBE DESC EXPLAIN EXISTS KILL OPTIMIZE ALTER DROP TRUNCATE RENAME SYSTEM CHECK DELETE UPDATE'.split(
    ' ',
  ),
)

function leavesTraces(shape: SqlShape): boolean {
  if (shape.kind === 'CREATE') {
    return shape.words.some((word) => word.keyword === 'TEMPORARY') || shape.parameters.size > 0
  }
  return !traceless.has(shape.kind)
}

function laneOf(shape: SqlShape, sql: string, localFilesDirectory: string): 'query' | 'insert' {
  if (shape.kind !== 'INSERT') return 'query'
  const isSelect = shape.words.some((word) => word.keyword === 'SELECT')
  return !isSelect || sql.includes(localFilesDirectory) ? 'insert' : 'query'
}

async function stream(engine: Engine, statement: Statement, query: HttpQuery, response: ServerResponse): Promise<void> {
  let compressor: Gzip | undefined
  const begin = (): void => {
    head(response, query, statement.format, undefined)
    if (!query.compresses) return
    response.setHeader('Content-Encoding', 'gzip')
    compressor = createGzip({ level: 3 })
    compressor.pipe(response)
  }
  let hasBegun = false
  await engine.stream(statement, async (bytes, signal) => {
    if (!hasBegun) begin()
    hasBegun = true
    const sink = compressor ?? response
    if (!sink.write(bytes)) await drained(sink, signal)
  })
  if (!hasBegun) begin()
  ;(compressor ?? response).end()
}

function drained(sink: Gzip | ServerResponse, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    // Its client has left while the engine made this block: nothing drains any more, and no event says so a second time.
    if (signal.aborted) {
      reject(signal.reason)
      return
    }
    const go = (): void => {
      signal.removeEventListener('abort', leave)
      resolve()
    }
    const leave = (): void => {
      sink.removeListener('drain', go)
      reject(signal.reason)
    }
    sink.once('drain', go)
    signal.addEventListener('abort', leave, { once: true })
  })
}

async function finish(
  response: ServerResponse,
  query: HttpQuery,
  format: string | undefined,
  result: Answer,
): Promise<void> {
  let bytes = result.bytes
  if (query.compresses && bytes.length > 0) {
    bytes = await promisify(gzip)(bytes, { level: 3 })
    response.setHeader('Content-Encoding', 'gzip')
  }
  head(response, query, format, result)
  response.setHeader('Content-Length', bytes.length)
  response.end(bytes)
}

const contentTypes: readonly (readonly [RegExp, string])[] = [
  [
    /^(JSON|JSONCompact|JSONStrings|JSONColumns\w*|JSONObjectEachRow|JSONCompactColumns|JSONCompactStrings)$/,
    'application/json; charset=UTF-8',
  ],
  [/^(JSON|NDJSON)/, 'application/x-ndjson; charset=UTF-8'],
  [/^CSV/, 'text/csv; charset=UTF-8; header=present'],
  [/^(TabSeparated|TSV)/, 'text/tab-separated-values; charset=UTF-8'],
  [/^(Native|RowBinary|Parquet|Arrow|ORC|Avro|MsgPack|Protobuf|CapnProto|BSON|RawBLOB)/, 'application/octet-stream'],
]

function head(
  response: ServerResponse,
  query: HttpQuery,
  format: string | undefined,
  statistics: Statistics | undefined,
): void {
  response.statusCode = 200
  if (format !== undefined) response.setHeader('X-ClickHouse-Format', format)
  const type = contentTypes.find(([pattern]) => format !== undefined && pattern.test(format))?.[1]
  response.setHeader('Content-Type', type ?? 'text/plain; charset=UTF-8')
  response.setHeader('X-ClickHouse-Query-Id', query.queryId)
  response.setHeader('X-ClickHouse-Timezone', 'UTC')
  // What the engine does not say (rows read and written) is left out; a streamed answer begins before any of it is known.
  if (!statistics) return
  const summary = {
    result_rows: String(statistics.resultRows),
    result_bytes: String(statistics.resultBytes),
    elapsed_ns: String(Math.round(statistics.elapsedSeconds * 1e9)),
  }
  response.setHeader('X-ClickHouse-Summary', JSON.stringify(summary))
}

function refuse(response: ServerResponse, error: Error): void {
  if (response.headersSent) {
    response.destroy()
    return
  }
  const code = error instanceof EngineError ? error.code : 1002
  for (const name of ['Content-Encoding', 'X-ClickHouse-Format', 'X-ClickHouse-Summary']) response.removeHeader(name)
  response.setHeader('X-ClickHouse-Exception-Code', code)
  const status = statusOfCode(code)
  if (status === 401) response.setHeader('WWW-Authenticate', 'Basic realm="ClickHouse"')
  // A body that was not read to its end can't be followed by another request.
  if (!response.req.complete) response.setHeader('Connection', 'close')
  plain(response, status, `${error.message}\n`)
}

function plain(response: ServerResponse, status: number, text: string): void {
  response.statusCode = status
  response.setHeader('Content-Type', 'text/plain; charset=UTF-8')
  response.setHeader('Content-Length', Buffer.byteLength(text))
  response.end(text)
}

function checkCredentials(
  expected: { readonly username: string; readonly password: string },
  request: IncomingMessage,
  url: URL,
): EngineError | undefined {
  const basic = /^Basic\s+(\S+)$/i.exec(request.headers.authorization ?? '')
  let [username, password] = [url.searchParams.get('user'), url.searchParams.get('password')]
  const headerUser = request.headers['x-clickhouse-user']
  if (headerUser !== undefined)
    [username, password] = [String(headerUser), String(request.headers['x-clickhouse-key'] ?? '')]
  else if (basic) {
    const text = Buffer.from(basic[1]!, 'base64').toString('utf8')
    const colon = text.indexOf(':')
    ;[username, password] = [text.slice(0, Math.max(colon, 0)), text.slice(colon + 1)]
  }
  if (username === null && password === null) {
    return new EngineError(194, 'REQUIRED_PASSWORD', 'A user name and a password are needed: they are in endpoint.json')
  }
  const isUser = isSame(username ?? 'default', expected.username)
  const isKey = isSame(password ?? '', expected.password)
  if (isUser && isKey) return undefined
  return new EngineError(
    516,
    'AUTHENTICATION_FAILED',
    `${username ?? 'default'}: Authentication failed: password is incorrect, or there is no user with such name`,
  )
}

/** In a time that says nothing about either. */
function isSame(given: string, expected: string): boolean {
  return timingSafeEqual(digest(given), digest(expected))
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest()
}
