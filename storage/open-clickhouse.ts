// The connection to ClickHouse, embedded or not: the official client over HTTP, and the only file that knows it. Finds the server late, and
// again after it came back elsewhere; every error that leaves here is classified.
import type { Readable } from 'node:stream'
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { RetryableError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import { classifyError } from './classify-error.ts'
import type { Layout } from './ddl.ts'

export interface ClickHouseEndpoint {
  readonly url: string
  readonly username: string
  readonly password: string
  /** Where the tables are; `weir` unless said otherwise. */
  readonly database?: string
  /** Its name where the tables are spread over several servers. */
  readonly cluster?: string
  /** PEM of the authority that signed the server's certificate, instead of the system's. */
  readonly certificateAuthority?: string
  /** What is sent and what comes back goes in gzip. */
  readonly compresses?: boolean
  /** A directory that the server can read too: rows are handed over as a file there. */
  readonly localFilesDirectory?: string
}

export interface QueryOptions {
  /** Bound to `{name:Type}` by the server, never spliced. */
  readonly parameters?: Readonly<Record<string, unknown>>
  readonly settings?: Readonly<Record<string, string | number>>
  /** Outside of our database, which may not be there; for `query` and `command`. */
  readonly database?: 'default'
  /** Ends the statement, in the server too. */
  readonly signal?: AbortSignal
}

export interface QueryStatistics {
  readonly elapsedSeconds: number
  readonly rowsRead: number
  readonly bytesRead: number
}

export interface Column {
  readonly name: string
  readonly type: string
}

export interface ClickHouse {
  /**
   * All rows at once. 64-bit integers are JavaScript numbers (an instant is asked for with `toUnixTimestamp64Micro`); one beyond 2^53 in a
   * column of its own is a RangeError, never a wrong number. NaN and infinities are null.
   */
  query<Row>(
    sql: string,
    options?: QueryOptions,
  ): Promise<{ readonly rows: Row[]; readonly columns: readonly Column[]; readonly statistics: QueryStatistics }>
  /** Rows as they come, some at a time; an error in the middle throws. */
  stream<Row>(sql: string, options?: QueryOptions): AsyncIterable<Row[]>
  /** The bytes of an answer as they come, in the format that the statement names; a failure in the middle breaks the stream. */
  read(sql: string, options?: QueryOptions): Promise<Readable>
  /** A statement without an answer. */
  command(sql: string, options?: QueryOptions): Promise<void>
  /** `INSERT … FORMAT x` with its data; resolves once they are in the table. Never waits behind queries. */
  insert(sql: string, data: Readable | undefined, options?: QueryOptions): Promise<void>
  /** Where the server can read files of ours; undefined when it is elsewhere. */
  localFilesDirectory(): Promise<string | undefined>
  /** How its tables lie: in which database, on one server or on a cluster. */
  layout(): Promise<Layout>
  /** Rejects with a RetryableError when the server does not answer. */
  ping(): Promise<void>
  close(): Promise<void>
}

interface Connection {
  readonly endpoint: ClickHouseEndpoint
  readonly queries: ClickHouseClient
  readonly inserts: ClickHouseClient
  /** In no database of ours. */
  readonly outside: ClickHouseClient
}

const databaseDefault = 'weir'
const requestTimeoutMs = 180_000
/** 64-bit integers as numbers: quoted, each reader would have to know which columns to convert. */
const numbers = { output_format_json_quote_64bit_integers: 0, output_format_json_quote_denormals: 0 } as const
/** A server says that a question failed by its status, not inside an answer that has begun and may pass for whole. */
const wholeAnswers = { wait_end_of_query: 1, http_write_exception_in_output_format: 0 } as const
/** A Distributed table takes an insert only once the shards have; a subquery sees the rows of all of them. */
const clusterSettings = {
  insert_distributed_sync: 1,
  distributed_product_mode: 'global',
  distributed_ddl_task_timeout: '60',
} as const

export function openClickHouse(
  endpoint: () => Promise<ClickHouseEndpoint>,
  { logger }: { readonly logger: Logger },
): ClickHouse {
  let current: Promise<Connection> | undefined
  let isClosed = false

  function connect(): Promise<Connection> {
    if (isClosed) throw new RetryableError('The connection to the store is closed')
    current ??= endpoint().then((found) => {
      const { database = databaseDefault } = found
      return {
        endpoint: found,
        queries: openClient(found, database, 16),
        inserts: openClient(found, database, 4),
        outside: openClient(found, 'default', 1),
      }
    })
    return current
  }

  /** Each statement goes through here: a server that can't be reached is looked for anew by the next one. */
  async function use<Result>(work: (connection: Connection) => Promise<Result>): Promise<Result> {
    const connecting = connect()
    try {
      return await work(await connecting)
    } catch (error) {
      const classified = classifyError(error)
      if (classified instanceof RetryableError && current === connecting) {
        await rediscover(connecting)
      }
      throw classified
    }
  }

  async function rediscover(failed: Promise<Connection>): Promise<void> {
    const [before, now] = await Promise.all([failed.catch(() => undefined), endpoint().catch(() => undefined)])
    if (before && now && JSON.stringify(before.endpoint) === JSON.stringify(now)) return
    if (current !== failed) return
    current = undefined
    if (!before) return
    logger.info({ url: now?.url }, 'the store is somewhere else now')
    // Statements under way on the old one fail on their own: its process is gone.
    void closeAll(before)
  }

  return {
    query<Row>(sql: string, options: QueryOptions = {}) {
      return use(async (connection) => {
        const client = clientFor(connection, options)
        const result = await client.query({ query: sql, format: 'JSON', ...clientOptions(options, wholeAnswers) })
        const answer = await result.json<Row>()
        const columns = answer.meta ?? []
        checkNumbers(columns, answer.data)
        const { elapsed = 0, rows_read = 0, bytes_read = 0 } = answer.statistics ?? {}
        return {
          rows: answer.data,
          columns,
          statistics: { elapsedSeconds: elapsed, rowsRead: Number(rows_read), bytesRead: Number(bytes_read) },
        }
      })
    },

    async *stream<Row>(sql: string, options: QueryOptions = {}) {
      const result = await use(({ queries }) =>
        queries.query({ query: sql, format: 'JSONEachRow', ...clientOptions(options) }),
      )
      try {
        for await (const rows of result.stream<Row>()) yield rows.map((row) => row.json() as Row)
      } catch (error) {
        throw classifyError(error)
      } finally {
        result.close()
      }
    },

    read(sql, options = {}) {
      return use(async ({ queries }) => {
        const { stream } = await queries.exec({
          query: sql,
          decompress_response_stream: true,
          ...clientOptions(options, { http_write_exception_in_output_format: 0 }),
        })
        return stream
      })
    },

    command(sql, options = {}) {
      return use(async (connection) => {
        await clientFor(connection, options).command({ query: sql, ...clientOptions(options) })
      })
    },

    insert(sql, data, options = {}) {
      return use(async ({ inserts }) => {
        if (data === undefined) {
          checkAnswered(await inserts.command({ query: sql, ...clientOptions(options) }))
          return
        }
        const answer = await inserts.exec({ query: sql, values: data, ...clientOptions(options) })
        for await (const _ of answer.stream);
        checkAnswered(answer)
      })
    },

    async localFilesDirectory() {
      return use(async ({ endpoint: found }) => found.localFilesDirectory)
    },

    async layout() {
      return use(async ({ endpoint: { database = databaseDefault, cluster } }) => ({ database, cluster }))
    },

    ping() {
      return use(async ({ queries }) => {
        const result = await queries.ping()
        if (!result.success) throw result.error
      })
    },

    async close() {
      if (isClosed) return
      isClosed = true
      const connection = await current?.catch(() => undefined)
      if (connection) await closeAll(connection)
    },
  }
}

function openClient(endpoint: ClickHouseEndpoint, database: string, connectionsMax: number): ClickHouseClient {
  const { certificateAuthority, cluster, compresses = false } = endpoint
  return createClient({
    url: endpoint.url,
    username: endpoint.username,
    password: endpoint.password,
    database,
    application: 'weir',
    ...(certificateAuthority !== undefined && { tls: { ca_cert: Buffer.from(certificateAuthority) } }),
    ...(compresses && { compression: { request: { codec: 'gzip' as const, level: 1 }, response: true } }),
    ...(cluster !== undefined && { clickhouse_settings: clusterSettings }),
    request_timeout: requestTimeoutMs,
    max_open_connections: connectionsMax,
    // Errors are thrown; who catches them logs them.
    log: { level: ClickHouseLogLevel.OFF },
    // Below the server's own, so that a request never goes into a connection that is being closed.
    keep_alive: { enabled: true, idle_socket_ttl: 2_500 },
  })
}

/** Something between us and the store may answer 200 in its place (a maintenance page): rows count as stored only when the store says so. */
function checkAnswered({
  response_headers: headers,
}: {
  readonly response_headers: Readonly<Record<string, unknown>>
}): void {
  if (headers['x-clickhouse-query-id'] === undefined)
    throw new RetryableError('What answered to an insert is not ClickHouse: nothing counts as stored')
}

function clientFor({ queries, outside }: Connection, { database }: QueryOptions): ClickHouseClient {
  return database === 'default' ? outside : queries
}

async function closeAll({ queries, inserts, outside }: Connection): Promise<void> {
  await Promise.allSettled([queries.close(), inserts.close(), outside.close()])
}

function clientOptions(
  { parameters, settings, signal }: QueryOptions,
  more: Readonly<Record<string, string | number>> = {},
): {
  query_params?: Record<string, unknown>
  clickhouse_settings: Record<string, string | number>
  abort_signal?: AbortSignal
} {
  return {
    clickhouse_settings: { ...numbers, ...more, ...settings },
    ...(parameters && { query_params: { ...parameters } }),
    ...(signal && { abort_signal: signal }),
  }
}

/** JSON has one kind of number: an integer that it can't hold arrives as another one. */
function checkNumbers(columns: readonly Column[], rows: readonly unknown[]): void {
  const wide = columns.filter(({ type }) => /^(Nullable\()?U?Int(64|128|256)\b/.test(type))
  if (wide.length === 0) return
  for (const row of rows as readonly Record<string, unknown>[]) {
    for (const { name } of wide) {
      const value = row[name]
      if (typeof value === 'number' && !Number.isSafeInteger(value)) {
        throw new RangeError(
          `${name} is ${value}, which a JavaScript number can't hold exactly: ask for toString(${name})`,
        )
      }
    }
  }
}
