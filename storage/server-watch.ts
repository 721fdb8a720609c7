// A ClickHouse server elsewhere as a part of ours: asked every few seconds whether it is there, lets us in and is what the configuration says. It
// may come late and go: then /readyz says why, one log line says it once, and everybody who needs it waits. Its name is the one that the embedded
// server has.
import { setTimeout as delay } from 'node:timers/promises'
import { isLoopback } from '../runtime/config.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import { clickHouseCode, isUntrusted, RejectedError } from './classify-error.ts'
import type { ClickHouse, ClickHouseEndpoint } from './open-clickhouse.ts'

export interface ServerWatchOptions {
  readonly clickhouse: ClickHouse
  readonly endpoint: Pick<ClickHouseEndpoint, 'url' | 'username' | 'cluster'>
  readonly logger: Logger
  readonly everyMs?: number
}

/** The oldest whose documentation has everything that we say to it. */
const oldestVersion = [24, 3] as const
const everyMsDefault = 3_000
/** While it is away: doubled from the first to the last. */
const againMs = { first: 250, last: 5_000 } as const
const answerMsMax = 10_000
/** UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED */
const refusedCodes = new Set([192, 193, 194, 516])

interface Found {
  readonly version: string
  readonly clusters: readonly string[]
  readonly macros: readonly string[]
}

interface Trouble {
  /** One line is logged for as long as this stays the same. */
  readonly kind: string
  readonly sentence: string
  /** It does not pass by itself. */
  readonly needsPerson: boolean
}

export function createServerWatch({ clickhouse, endpoint, logger, everyMs }: ServerWatchOptions): Service {
  const ending = new AbortController()
  let watching: Promise<void> = Promise.resolve()
  let health: Health = { state: 'starting', detail: `ClickHouse at ${endpoint.url} has not answered yet` }
  let saidKind: string | undefined
  let awaySince: number | undefined
  let looksInVain = 0

  async function look(): Promise<void> {
    let trouble: Trouble | undefined
    let version = ''
    try {
      const found = await ask(clickhouse, ending.signal)
      version = found.version
      trouble = troubleOfServer(found, endpoint)
    } catch (error) {
      if (ending.signal.aborted) return
      trouble = troubleOfError(error as Error, endpoint)
    }
    if (trouble) beAway(trouble)
    else beThere(version)
  }

  function beAway({ kind, sentence, needsPerson }: Trouble): void {
    awaySince ??= performance.now()
    health = { state: 'failed', detail: sentence }
    if (kind === saidKind) return
    saidKind = kind
    const fields = { url: endpoint.url }
    if (needsPerson) logger.error(fields, sentence)
    else logger.warn(fields, `${sentence}: readings wait in the log`)
  }

  function beThere(version: string): void {
    const { url, cluster } = endpoint
    if (health.state !== 'ok') {
      const awayMs = awaySince === undefined ? undefined : Math.round(performance.now() - awaySince)
      logger.info({ url, version, ...(cluster && { cluster }), ...(awayMs && { awayMs }) }, 'the store answers')
    }
    health = { state: 'ok' }
    saidKind = undefined
    awaySince = undefined
  }

  return {
    name: 'clickhouse',
    async start() {
      const { protocol, hostname } = new URL(endpoint.url)
      if (protocol === 'http:' && !isLoopback(hostname.replace(/^\[|\]$/g, '')))
        logger.warn(
          { url: endpoint.url },
          'password and readings go to the store in the clear: https:// keeps them secret',
        )
      watching = (async () => {
        while (!ending.signal.aborted) {
          await look()
          looksInVain = health.state === 'ok' ? 0 : looksInVain + 1
          const waitMs =
            looksInVain === 0
              ? (everyMs ?? everyMsDefault)
              : Math.min(againMs.last, againMs.first * 2 ** Math.min(looksInVain - 1, 10))
          await delay(waitMs, undefined, { signal: ending.signal }).catch(() => {})
        }
      })()
    },
    async drain() {},
    async stop() {
      ending.abort()
      await watching
    },
    health: () => health,
  }
}

async function ask(clickhouse: ClickHouse, stop: AbortSignal): Promise<Found> {
  const asking = new AbortController()
  const end = (): void => asking.abort()
  const timer = setTimeout(end, answerMsMax)
  stop.addEventListener('abort', end, { once: true })
  try {
    const sql = `SELECT version() AS version, (SELECT groupUniqArray(cluster) FROM system.clusters) AS clusters,
      (SELECT groupUniqArray(macro) FROM system.macros) AS macros`
    const { rows } = await clickhouse.query<Found>(sql, { database: 'default', signal: asking.signal })
    return rows[0]!
  } finally {
    clearTimeout(timer)
    stop.removeEventListener('abort', end)
  }
}

function troubleOfServer({ version, clusters, macros }: Found, { url, cluster }: ServerWatchOptions['endpoint']) {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  const [oldestMajor, oldestMinor] = oldestVersion
  const trouble = (kind: string, sentence: string): Trouble => ({ kind, sentence, needsPerson: true })
  if (major < oldestMajor || (major === oldestMajor && minor < oldestMinor))
    return trouble('version', `ClickHouse at ${url} is ${version}: Weir needs ${oldestVersion.join('.')} or newer`)
  if (cluster === undefined) return undefined
  if (!clusters.includes(cluster)) {
    const known = clusters.length === 0 ? 'it knows none' : `it knows ${clusters.join(', ')}`
    return trouble('cluster', `ClickHouse at ${url} knows no cluster ${cluster} (WEIR_CLICKHOUSE_CLUSTER); ${known}`)
  }
  const missing = ['shard', 'replica'].filter((macro) => !macros.includes(macro))
  if (missing.length === 0) return undefined
  return trouble('macros', `ClickHouse at ${url} has no macro ${missing.join(' and ')}, which replicated tables need`)
}

function troubleOfError(error: Error, { url, username }: ServerWatchOptions['endpoint']): Trouble {
  const code = clickHouseCode(error)
  if (code !== undefined && refusedCodes.has(code)) {
    const sentence = `ClickHouse at ${url} does not let in the user ${username} (${code}): set WEIR_CLICKHOUSE_USER and WEIR_CLICKHOUSE_PASSWORD to what it knows`
    return { kind: 'refused', sentence, needsPerson: true }
  }
  if (isUntrusted(error)) {
    const why = (error.cause as Error | undefined)?.message ?? error.message
    const sentence = `The certificate of ClickHouse at ${url} is not trusted (${why}): set WEIR_CLICKHOUSE_CA to the PEM file of the authority that signed it`
    return { kind: 'untrusted', sentence, needsPerson: true }
  }
  const kind = code === undefined ? 'away' : `code ${code}`
  return { kind, sentence: `ClickHouse at ${url}: ${error.message}`, needsPerson: error instanceof RejectedError }
}
