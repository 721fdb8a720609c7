// The embedded ClickHouse: an engine and its HTTP interface in a process of their own, so that ingest never shares an event loop or a crash
// with the engine, and everything on the machine that speaks ClickHouse can ask it. Loopback only, behind a generated secret.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { mkdir, readdir, rm, stat } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { availableParallelism, totalmem } from 'node:os'
import { join, resolve } from 'node:path'
import type { Duplex } from 'node:stream'
import { listenError } from '../../runtime/listen-error.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { Health, Service } from '../../runtime/service.ts'
import { newSecret, previousEndpoint, writeEndpoint } from './endpoint.ts'
import { Engine } from './engine.ts'
import { createHttpInterface } from './http-interface.ts'

export interface EmbeddedServerOptions {
  /** The store's own: `<data>/clickhouse`. */
  readonly directory: string
  /** 0: the one of last time if it is free, else any. */
  readonly port: number
  readonly logger: Logger
  readonly memoryBytesMax?: number
  /** For tests: more words for the engine's command line. */
  readonly engineArguments?: readonly string[]
}

export interface EmbeddedServer extends Service {
  address(): { readonly host: string; readonly port: number }
}

const host = '127.0.0.1'
const username = 'weir'
const connectionsMax = 256
/** Statement and parameters may stand in the URL; ClickHouse's own limit. */
const headBytesMax = 1024 ** 2
const lastAnswersMs = 50
const leftoverAgeMs = 10 * 60_000
const mebibyte = 1024 ** 2

/** Threads that the engine's calls take: all statements at once, a cancellation, and files of our own. libuv has 4 unless told at start. */
const threadPoolSize = 16

export function createEmbeddedServer(options: EmbeddedServerOptions): EmbeddedServer {
  const directory = resolve(options.directory)
  const { logger } = options
  const engineDirectory = join(directory, 'engine')
  const localFilesDirectory = join(directory, 'inbox')
  const spoolDirectory = join(directory, 'spool')
  const memoryBytesMax =
    options.memoryBytesMax ?? Math.min(4096 * mebibyte, Math.max(1024 * mebibyte, Math.floor(totalmem() / 4)))
  let engine: Engine | undefined
  let http: Server | undefined
  let sweeper: NodeJS.Timeout | undefined
  let health: Health = { state: 'starting', detail: 'the store has not been opened yet' }

  return {
    name: 'clickhouse',
    async start() {
      const poolSize = Number(process.env.UV_THREADPOOL_SIZE ?? 4)
      if (poolSize < threadPoolSize) {
        logger.warn({ poolSize, threadPoolSize }, 'UV_THREADPOOL_SIZE is too small: slow queries will hold up inserts')
      }
      await mkdir(engineDirectory, { recursive: true, mode: 0o700 })
      const opened = new Engine({
        directory: engineDirectory,
        logger,
        memoryBytesMax,
        engineArguments: options.engineArguments ?? [],
      })
      await opened.open()
      engine = opened
      for (const each of [localFilesDirectory, spoolDirectory]) {
        await mkdir(each, { recursive: true, mode: 0o700 })
        await removeLeftovers(each)
      }
      sweeper = setInterval(() => {
        for (const each of [localFilesDirectory, spoolDirectory])
          removeLeftovers(each).catch((error: Error) => logger.warn({ error: error.message }, 'leftovers stay'))
      }, leftoverAgeMs)
      sweeper.unref()
      const before = await previousEndpoint(directory)
      const password = before?.password ?? newSecret()
      const handle = createHttpInterface({
        engine: opened,
        username,
        password,
        spoolDirectory,
        localFilesDirectory,
        queryDefaults: queryDefaults(memoryBytesMax),
        logger,
      })
      const timeouts = { keepAliveTimeout: 10_000, headersTimeout: 20_000, requestTimeout: 600_000 }
      http = createServer({ ...timeouts, maxHeaderSize: headBytesMax }, handle)
      http.maxConnections = connectionsMax
      http.on('clientError', refuseUnreadable)
      http.on('drop', () => logger.warn({ connectionsMax }, 'the store has all the connections that it may have'))
      await listen(http, options.port, portOf(before?.url))
      const { port } = http.address() as AddressInfo
      const url = `http://${host}:${port}`
      await writeEndpoint(directory, { url, username, password, localFilesDirectory })
      health = { state: 'ok' }
      logger.info({ url }, 'the store is open')
    },
    async drain(deadline) {
      http?.close()
      http?.closeIdleConnections()
      while (engine && engine.statementCount > 0 && !deadline.aborted) await new Promise((go) => setTimeout(go, 20))
    },
    async stop() {
      health = { state: 'failed', detail: 'the store is closed' }
      clearInterval(sweeper)
      const closing = http
      http = undefined
      closing?.close()
      await engine?.close()
      engine = undefined
      // Answers to what was ended are out, or nobody takes them.
      closing?.closeIdleConnections()
      await new Promise<void>((go) => setTimeout(go, lastAnswersMs))
      closing?.closeAllConnections()
    },
    health: () => health,
    address() {
      if (!http) throw new Error('the store is not open')
      return { host, port: (http.address() as AddressInfo).port }
    },
  }
}

/** On two cores a second thread costs whoever takes readings its caches, however low its priority: p99 of acknowledgements 3.8 times instead of 1.2. */
const queryThreadsMax = Math.min(4, Math.max(1, Math.floor(availableParallelism() / 2)))

/** People's queries: few threads, below everything else's priority, and an end. They may say otherwise themselves. */
function queryDefaults(memoryBytesMax: number): ReadonlyMap<string, string> {
  const defaults = new Map([
    ['max_threads', String(queryThreadsMax)],
    ['max_execution_time', '60'],
    // As many as run at once fit, and inserts fit beside them.
    ['max_memory_usage', String(Math.floor(memoryBytesMax / 5))],
    ['max_bytes_before_external_group_by', String(Math.floor(memoryBytesMax / 10))],
    ['max_bytes_before_external_sort', String(Math.floor(memoryBytesMax / 10))],
    // Answers that can't be streamed are held whole, here and at the client.
    ['max_result_bytes', String(256 * mebibyte)],
  ])
  if (mayRaiseNice()) defaults.set('os_threads_nice_value_query', '19')
  return defaults
}

/** The engine sets a thread's priority down and up again, and up needs CAP_SYS_NICE (bit 23): without it, threads would stay slow for inserts. */
function mayRaiseNice(): boolean {
  try {
    const bits = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
    return bits !== undefined && (BigInt(`0x${bits}`) & (1n << 23n)) !== 0n
  } catch {
    return false
  }
}

/** Files of processes that were killed; their rows are still in the log. A writer may be about to hand over a young one. */
async function removeLeftovers(directory: string): Promise<void> {
  for (const name of await readdir(directory)) {
    const file = join(directory, name)
    // Its owner may be done with it meanwhile.
    const found = await stat(file).catch(() => undefined)
    if (found && Date.now() - found.mtimeMs > leftoverAgeMs) await rm(file, { force: true })
  }
}

/** What is no request gets no statement run, and an answer that says why. */
function refuseUnreadable(error: NodeJS.ErrnoException, socket: Duplex): void {
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy()
    return
  }
  const isTooLong = error.code === 'HPE_HEADER_OVERFLOW'
  const status = isTooLong ? '431 Request Header Fields Too Large' : '400 Bad Request'
  const why = isTooLong
    ? `URL and headers are longer than ${headBytesMax} bytes: send the statement as the body`
    : error.message
  const text = `Code: 36. DB::Exception: The request can't be read: ${why}. (BAD_ARGUMENTS)\n`
  const head = `HTTP/1.1 ${status}\r\nConnection: close\r\nX-ClickHouse-Exception-Code: 36\r\n`
  socket.end(
    `${head}Content-Type: text/plain; charset=UTF-8\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  )
}

function portOf(url: string | undefined): number {
  return url === undefined ? 0 : Number(new URL(url).port)
}

async function listen(server: Server, wanted: number, last: number): Promise<void> {
  const ports = wanted !== 0 ? [wanted] : last !== 0 ? [last, 0] : [0]
  for (const [place, port] of ports.entries()) {
    try {
      server.listen(port, host)
      await once(server, 'listening')
      return
    } catch (error) {
      const isTaken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
      if (isTaken && place + 1 < ports.length) continue
      throw listenError(error as NodeJS.ErrnoException, {
        what: 'ClickHouse',
        host,
        port,
        option: 'WEIR_CLICKHOUSE_PORT',
      })
    }
  }
}
