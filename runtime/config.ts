// Every option of Weir, in one schema: default, meaning, unit, rule. Nothing else reads the environment. The table in README.md is generated
// from here (`npm run docs`), and a test holds the two together.
import { readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import * as zlib from 'node:zlib'
import { z } from 'zod'
import { ConfigError } from './errors.ts'
import { nearestName } from './nearest-name.ts'

export const roles = ['ingest', 'writer', 'detector', 'api'] as const
export type Role = (typeof roles)[number]

const port = z.coerce.number('must be a port number').int().min(0).max(65_535)
const flag = z.union(
  [z.boolean(), z.enum(['true', 'false']).transform((text) => text === 'true')],
  'must be true or false',
)
const whole = (min: number, max: number) => z.coerce.number('must be a whole number').int().min(min).max(max)

const sizeUnits: Record<string, number> = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3, TiB: 1024 ** 4 }
const size = z.union([z.number().int().positive(), z.string()]).transform((given, context) => {
  const match = /^(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB)?$/.exec(String(given))
  if (match) return Math.floor(Number(match[1]) * sizeUnits[match[2] ?? 'B']!)
  context.addIssue('must be a size such as 512MiB or 10GiB')
  return z.NEVER
})
const durationUnits: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 }
const duration = z.union([z.number().int().positive(), z.string()]).transform((given, context) => {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h|d|w)$/.exec(String(given))
  if (match) return Math.round(Number(match[1]) * durationUnits[match[2]!]!)
  context.addIssue('must be a duration such as 500ms, 30s, 12h or 90d')
  return z.NEVER
})
const roleList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((names, context) => {
    const found: Role[] = []
    for (const name of names.map((each) => each.trim()).filter(Boolean)) {
      if (roles.includes(name as Role)) found.push(name as Role)
      else context.addIssue(`has no role "${name}"; the roles are ${roles.join(', ')}`)
    }
    if (found.length === 0) context.addIssue(`needs at least one of ${roles.join(', ')}`)
    return found
  })

const brokerList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const brokers = given.map((each) => each.trim()).filter(Boolean)
    for (const broker of brokers)
      if (!/^[^\s:/]+:\d{1,5}$|^\[[\da-fA-F:]+\]:\d{1,5}$/.test(broker))
        context.addIssue(`has "${broker}", which is not host:port`)
    if (brokers.length === 0) context.addIssue('needs at least one host:port')
    return brokers
  })
const nameList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const names = given.map((each) => each.trim().toLowerCase()).filter(Boolean)
    for (const name of names)
      if (!/^[\w.-]{1,253}$|^[\da-f:]{2,45}$/.test(name))
        context.addIssue(`has "${name}", which is not the name of a host (without a port)`)
    return names
  })
/** Where the table lives: `embedded`, or the address of a server, as written. Who we are there has options of its own, which are never shown. */
const clickhouseAddress = z.string().transform((given, context) => {
  if (given === 'embedded' || (clickhousePattern.test(given) && URL.canParse(given))) return given.replace(/\/$/, '')
  const issue = given.includes('@')
    ? 'must not hold a user or a password: set WEIR_CLICKHOUSE_USER and WEIR_CLICKHOUSE_PASSWORD'
    : 'must be embedded, or http://host:port or https://host:port, with /database behind it if you like'
  context.addIssue(issue)
  return z.NEVER
})
const clickhousePattern = /^https?:\/\/(?:\[[\da-fA-F:]+\]|[^\s/:@?#[\]]+):\d{1,5}(?:\/[A-Za-z_]\w{0,62})?\/?$/
const urlList = z
  .union([z.array(z.string()), z.string().transform((text) => text.split(','))])
  .transform((given, context) => {
    const urls = given.map((each) => each.trim().replace(/\/+$/, '')).filter(Boolean)
    for (const url of urls)
      if (!/^https?:\/\/[^/@]+$/.test(url) || !URL.canParse(url))
        context.addIssue(`has "${url}", which is not http://host:port`)
    return urls
  })
/** Absolute, because children run elsewhere. */
const file = z
  .string()
  .min(1)
  .transform((path) => resolve(path))

interface Option<Schema extends z.ZodType> {
  readonly schema: Schema
  /** As a person would write it; undefined: there is none, and the option may stay unset. */
  readonly fallback: string | undefined
  readonly meaning: string
}
const option = <Schema extends z.ZodType>(
  schema: Schema,
  fallback: string | undefined,
  meaning: string,
): Option<Schema> => ({
  schema,
  fallback,
  meaning,
})

/** Camel case here and in the file; `WEIR_` and upper case in the environment. */
export const options = {
  data: option(
    z
      .string()
      .min(1)
      .transform((path) => resolve(path)),
    './data',
    'Directory that holds everything Weir keeps',
  ),
  roles: option(roleList, roles.join(','), 'What this process and its children do'),
  host: option(z.string().min(1), '127.0.0.1', 'Address that all ports are bound to'),
  publishedHost: option(
    z.string().min(1).optional(),
    undefined,
    'Address that a container’s ports are published at, where it is not `WEIR_HOST`: what counts for who can reach them',
  ),
  mqttPort: option(port, '1883', 'MQTT; 0 picks a free port, as for every port'),
  mqttTlsPort: option(port.optional(), undefined, 'MQTT over TLS (8883 is usual); unset: not opened'),
  gatewayPort: option(port, '8081', 'Intake over HTTP and WebSocket, and MQTT over WebSocket'),
  httpPort: option(port, '8080', 'REST API and dashboards'),
  livePort: option(port, '8082', 'Live viewers over WebSocket'),
  auth: option(
    z.enum(['open', 'required'], 'must be open or required').optional(),
    undefined,
    'Who may send and look: `open` (everybody; on loopback only, and the default there) or `required` (who has a token)',
  ),
  adminToken: option(
    z
      .string()
      .regex(/^[\x21-\x7e]{16,256}$/, 'must be 16 to 256 characters, none of them a space')
      .optional(),
    undefined,
    'What viewers and programs show where `WEIR_AUTH` is required: pages, REST, live',
  ),
  tlsCert: option(
    file.optional(),
    undefined,
    'PEM file of the certificate for `WEIR_MQTT_TLS_PORT`, with those between',
  ),
  tlsKey: option(file.optional(), undefined, 'PEM file of its key'),
  tlsClientCa: option(
    file.optional(),
    undefined,
    'PEM file of the authority whose certificates registered devices may show instead of a token (CN: the device)',
  ),
  devices: option(file.optional(), undefined, 'File of devices and the hashes of their tokens; else in `WEIR_DATA`'),
  hostNames: option(
    nameList.optional(),
    undefined,
    'Further names that browsers may reach Weir by, `weir.example,10.0.0.7`, beside loopback’s and `WEIR_HOST`',
  ),
  rateLimitReadingsPerS: option(
    z.coerce.number('must be a number').min(0.1).max(1_000_000).optional(),
    undefined,
    'Readings a second that a device may send in the long run; unset: no limit',
  ),
  healthPort: option(
    port.optional(),
    undefined,
    '`/healthz`, `/readyz` and `/metrics` of this process and its children, whatever their roles; unset: not opened',
  ),
  gatewayUrl: option(
    z
      .url({ protocol: /^https?$/, error: 'must be http://host:port' })
      .transform((url) => url.replace(/\/+$/, ''))
      .optional(),
    undefined,
    'Where the API reaches the gateway of an ingest elsewhere, to put dead letters back',
  ),
  peers: option(
    urlList.optional(),
    undefined,
    'Health ports of the other processes of a deployment, `http://host:port,…`: the API then speaks for them too',
  ),
  mqttTopicsOpen: option(flag, 'false', 'Any MQTT topic may be published and subscribed, as in a general broker'),
  log: option(z.enum(['embedded', 'kafka']), 'embedded', 'Where acknowledged readings are kept first'),
  partitions: option(whole(1, 64), '4', 'Partitions of the log; fixed once the log exists'),
  logQuota: option(size, '10GiB', 'Most bytes the log may take; at the quota nothing more is acknowledged'),
  retentionLog: option(
    duration,
    '24h',
    'Age at which stored readings leave the log, never before they are in the table; on Kafka what topics are made with, which waits for nobody',
  ),
  kafkaBrokers: option(brokerList.optional(), undefined, 'Brokers to begin with, `host:port,host:port`'),
  kafkaPrefix: option(
    z.string().regex(/^[\w.-]{0,100}$/, 'must be letters, digits, dots, dashes and underscores, 100 at most'),
    'weir.',
    'Before the names of Kafka topics and groups',
  ),
  kafkaCompression: option(
    z.enum(['none', 'gzip', 'zstd']),
    'none',
    'Of what is sent to Kafka; `zstd` needs Node 22.15 or newer',
  ),
  kafkaSessionTimeout: option(duration, '10s', 'A reader that Kafka has not heard of for so long loses its partitions'),
  kafkaRequestTimeout: option(
    duration,
    '30s',
    'A request without an answer is sent again: well above the brokers’ session timeout',
  ),
  kafkaTls: option(flag, 'false', 'TLS to the brokers; on by itself where a file for it is given'),
  kafkaTlsCa: option(
    file.optional(),
    undefined,
    'PEM file of the authority that signed the brokers’ certificates; else the system’s',
  ),
  kafkaTlsCert: option(file.optional(), undefined, 'PEM file of our own certificate, where brokers ask for one'),
  kafkaTlsKey: option(file.optional(), undefined, 'PEM file of its key'),
  kafkaSasl: option(
    z.enum(['plain', 'scram-sha-256', 'scram-sha-512', 'oauthbearer']).optional(),
    undefined,
    'How we prove to brokers who we are',
  ),
  kafkaUsername: option(z.string().min(1).optional(), undefined, 'For `plain` and `scram-…`'),
  kafkaPassword: option(z.string().min(1).optional(), undefined, 'For `plain` and `scram-…`'),
  kafkaTokenFile: option(
    file.optional(),
    undefined,
    'File that holds the token for `oauthbearer`; read again for each connection',
  ),
  clickhouse: option(
    clickhouseAddress,
    'embedded',
    'Where the table lives: `embedded`, or a ClickHouse server, `https://host:port`',
  ),
  clickhouseUser: option(z.string().min(1), 'default', 'Who we are to a ClickHouse server'),
  clickhousePassword: option(z.string().min(1).optional(), undefined, 'Its password'),
  clickhouseDatabase: option(
    z.string().regex(/^[A-Za-z_]\w{0,62}$/, 'must be letters, digits and underscores, 63 at most, no digit first'),
    'weir',
    'Database on a ClickHouse server; made where it is missing',
  ),
  clickhouseCluster: option(
    z
      .string()
      .regex(/^[\w.-]{1,100}$/, 'must be letters, digits, dots, dashes and underscores')
      .optional(),
    undefined,
    'Cluster of ClickHouse servers that the tables are spread and copied over; unset: one server',
  ),
  clickhouseCa: option(
    file.optional(),
    undefined,
    'PEM file of the authority that signed the ClickHouse server’s certificate; else the system’s',
  ),
  clickhouseCompression: option(z.enum(['none', 'gzip']), 'none', 'Of what goes to a ClickHouse server and back'),
  clickhousePort: option(port, '0', 'Port of the embedded ClickHouse on loopback'),
  retentionRaw: option(
    duration
      .pipe(
        z
          .number()
          .min(3_600_000, 'must be at least 1h')
          .max(50 * 365 * 86_400_000, 'must be at most 18250d'),
      )
      .optional(),
    undefined,
    "Age, by the device's time, at which raw readings leave the table (within hours); unset: never",
  ),
  ingestMemory: option(size, '64MiB', 'Most bytes of unacknowledged publishes over all connections'),
  mqttConnectionsMax: option(whole(1, 1_000_000), '20000', 'Most MQTT connections at once'),
  detectorTier: option(
    z.coerce.number().pipe(z.union([z.literal(0), z.literal(1), z.literal(2)], 'must be 0, 1 or 2')),
    '1',
    'What detection looks at: 0 the value, 1 also the level (4.5 KB a series), 2 also hour of the day and shape (10.6 KB)',
  ),
  detectorScoreMin: option(
    z.coerce.number('must be a number').min(0.001).max(1),
    '0.035',
    'Least score of an anomaly that is told; 0.035 is about one false one in 10,000 readings, whatever the tier',
  ),
  detectorSeries: option(
    whole(128, 10_000_000),
    '20000',
    'Most series whose normal detection holds in memory; ten times as many more are kept on disk',
  ),
  logLevel: option(z.enum(['error', 'warn', 'info', 'debug', 'silent']), 'info', 'Least level that is logged'),
  hungTimeout: option(
    duration.refine((ms) => ms >= 3_000, 'must be at least 3s'),
    '60s',
    'A process of ours that says nothing for so long is ended and started again; set it high to look at one with a debugger',
  ),
  drainMs: option(whole(100, 600_000), '8000', 'Milliseconds a stop may take to finish what was taken'),
} as const

type Options = typeof options
export type Config = { readonly [Name in keyof Options]: z.output<Options[Name]['schema']> }

/** Never repeated in a message. */
const secrets: ReadonlySet<string> = new Set(['adminToken', 'clickhousePassword', 'kafkaPassword'])

export function environmentName(name: string): string {
  return `WEIR_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** `httpPort` → `http-port`. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
}

export interface ConfigSources {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Path of a JSON file. */
  readonly file?: string | undefined
  /** From the command line; wins over the environment, which wins over the file. */
  readonly flags?: Readonly<Record<string, unknown>>
  /** `start`: rules that only matter to what listens hold too. */
  readonly purpose?: 'start' | 'command'
}

/** Reads and checks everything before anything opens. Throws one ConfigError that lists all problems, unknown names too. */
export function readConfig({ environment, file, flags = {}, purpose = 'start' }: ConfigSources): Config {
  const problems: string[] = []
  const fromFile = file === undefined ? {} : readFile(file, problems)
  const known = Object.keys(options)
  const byEnvironmentName = new Map(known.map((name) => [environmentName(name), name]))
  for (const name of Object.keys(fromFile))
    if (!known.includes(name)) problems.push(`${file}: ${unknownName(name, known)}`)
  for (const name of Object.keys(environment)) {
    // WEIR_TEST_… and WEIR_INTERNAL_… are not options: the first drive the test suite, the second tie our own processes together.
    if (!name.startsWith('WEIR_') || /^WEIR_(TEST|INTERNAL)_/.test(name) || byEnvironmentName.has(name)) continue
    problems.push(unknownName(name, [...byEnvironmentName.keys()]))
  }
  const config: Record<string, unknown> = {}
  for (const name of known) {
    const { schema, fallback } = options[name as keyof Options]
    const inEnvironment = environment[environmentName(name)]
    const [given, origin] =
      flags[name] !== undefined
        ? [flags[name], `--${flagName(name)}`]
        : inEnvironment !== undefined && inEnvironment !== ''
          ? [inEnvironment, environmentName(name)]
          : fromFile[name] !== undefined
            ? [fromFile[name], `${file}: ${name}`]
            : [fallback, name]
    const parsed = schema.safeParse(given)
    if (parsed.success) config[name] = parsed.data
    else
      for (const issue of parsed.error.issues)
        problems.push(`${origin}${secrets.has(name) ? '' : ` is ${shown(name, given)}:`} ${issue.message}`)
  }
  problems.push(...checkTogether(config as Partial<Config>))
  if (purpose === 'start') problems.push(...checkAccess(config as Partial<Config>))
  if (problems.length > 0) throw new ConfigError(problems)
  return config as Config
}

/** As given, without what is nobody's business. */
function shown(name: string, given: unknown): string {
  return secrets.has(name) ? '…' : JSON.stringify(given).replace(/\/\/.*@/, '//…@')
}

/** Rules over more than one option, for those that are usable by themselves. */
function checkTogether(config: Partial<Config>): string[] {
  const problems: string[] = []
  const taken = new Map<number, string>()
  const ports = [
    'mqttPort',
    'mqttTlsPort',
    'gatewayPort',
    'httpPort',
    'livePort',
    'healthPort',
    'clickhousePort',
  ] as const
  for (const name of ports) {
    const number = config[name]
    if (!number) continue
    const other = taken.get(number)
    if (other)
      problems.push(
        `${environmentName(name)} and ${environmentName(other)} are both ${number}: give each a port of its own`,
      )
    taken.set(number, name)
  }
  if ((config.tlsCert === undefined) !== (config.tlsKey === undefined))
    problems.push('WEIR_TLS_CERT and WEIR_TLS_KEY belong together: set both')
  if (config.mqttTlsPort !== undefined && config.tlsCert === undefined)
    problems.push('WEIR_MQTT_TLS_PORT is set: set WEIR_TLS_CERT and WEIR_TLS_KEY too')
  problems.push(...checkKafka(config), ...checkClickHouse(config))
  if (config.logQuota !== undefined && config.logQuota < 256 * 1024 ** 2)
    problems.push('WEIR_LOG_QUOTA must be at least 256MiB (four segments)')
  return problems
}

/** What others can reach is never open, and what is closed must have a key. */
function checkAccess(config: Partial<Config>): string[] {
  const { host, publishedHost, auth, adminToken, roles: configured = [] } = config
  // What can't be used by itself was reported already.
  if (host === undefined || !('auth' in config)) return []
  const [name, address] = publishedHost === undefined ? ['HOST', host] : ['PUBLISHED_HOST', publishedHost]
  const reached = isLoopback(address) ? '' : `WEIR_${name} is ${address}, which others can reach: `
  if (!requiresAuth({ auth, host, publishedHost })) {
    const what = `set WEIR_AUTH=required and WEIR_ADMIN_TOKEN, or WEIR_${name}=127.0.0.1`
    return reached === '' ? [] : [`${reached}WEIR_AUTH=open is without authentication for everybody; ${what}`]
  }
  if (!('adminToken' in config) || adminToken !== undefined || !configured.includes('api')) return []
  const how = 'set WEIR_ADMIN_TOKEN to 16 characters or more (openssl rand -hex 24 makes some)'
  return [`${reached}authentication is required, and without an admin token nobody could look: ${how}`]
}

/** What decides who is let in, and by which names. */
export type AccessOptions = Pick<Config, 'host'> &
  Partial<Pick<Config, 'publishedHost' | 'auth' | 'adminToken' | 'hostNames'>>

/** `open` is for what only this machine can reach. */
export function requiresAuth({ auth, host, publishedHost }: AccessOptions): boolean {
  return (auth ?? (isLoopback(publishedHost ?? host) ? 'open' : 'required')) === 'required'
}

export function devicesFile({ data, devices }: Pick<Config, 'data' | 'devices'>): string {
  return devices ?? join(data, 'devices.ndjson')
}

function checkKafka(config: Partial<Config>): string[] {
  const problems: string[] = []
  const { kafkaSasl: sasl } = config
  // An option of its own that can't be used was reported already.
  if (config.log === undefined) return problems
  if (config.log !== 'kafka') {
    if (config.kafkaBrokers)
      problems.push('WEIR_KAFKA_BROKERS is set and WEIR_LOG is not kafka: set WEIR_LOG=kafka, or leave the brokers out')
    return problems
  }
  if ('kafkaBrokers' in config && !config.kafkaBrokers)
    problems.push('WEIR_LOG is kafka: set WEIR_KAFKA_BROKERS to host:port of a broker or more')
  if (config.kafkaCompression === 'zstd' && !('zstdCompressSync' in zlib))
    problems.push(
      `WEIR_KAFKA_COMPRESSION is zstd, which needs Node 22.15 or newer, and this is ${process.version}: use gzip`,
    )
  if ((config.kafkaTlsCert === undefined) !== (config.kafkaTlsKey === undefined))
    problems.push('WEIR_KAFKA_TLS_CERT and WEIR_KAFKA_TLS_KEY belong together: set both')
  if (sasl === 'oauthbearer' && !config.kafkaTokenFile)
    problems.push('WEIR_KAFKA_SASL is oauthbearer: set WEIR_KAFKA_TOKEN_FILE')
  if (sasl && sasl !== 'oauthbearer' && !(config.kafkaUsername && config.kafkaPassword))
    problems.push(`WEIR_KAFKA_SASL is ${sasl}: set WEIR_KAFKA_USERNAME and WEIR_KAFKA_PASSWORD`)
  if (!sasl && (config.kafkaUsername || config.kafkaPassword || config.kafkaTokenFile))
    problems.push(
      'There are credentials for Kafka and no way to use them: set WEIR_KAFKA_SASL to plain, scram-sha-256, scram-sha-512 or oauthbearer',
    )
  if (
    sasl === 'plain' &&
    !usesTls(config) &&
    !config.kafkaBrokers?.every((broker) => isLoopback(broker.replace(/:\d+$/, '')))
  )
    problems.push(
      'WEIR_KAFKA_SASL is plain without TLS, which shows the password to the network: set WEIR_KAFKA_TLS=true',
    )
  return problems
}

function checkClickHouse(config: Partial<Config>): string[] {
  const { clickhouse } = config
  if (clickhouse === undefined) return []
  if (clickhouse === 'embedded') {
    const names = ['User', 'Password', 'Database', 'Cluster', 'Ca', 'Compression'] as const
    return names
      .map((each) => `clickhouse${each}` as const)
      .filter((name) => name in config && config[name] !== options[name].fallback)
      .map(
        (name) =>
          `${environmentName(name)} is for a server elsewhere and WEIR_CLICKHOUSE is embedded: set WEIR_CLICKHOUSE to its address, or leave this out`,
      )
  }
  const problems: string[] = []
  const { protocol, pathname } = new URL(clickhouse)
  if (config.clickhousePort)
    problems.push('WEIR_CLICKHOUSE_PORT is of the embedded ClickHouse: the port of a server is in WEIR_CLICKHOUSE')
  if (config.clickhouseCa && protocol === 'http:')
    problems.push('WEIR_CLICKHOUSE_CA is set and WEIR_CLICKHOUSE is http://…: use https://…, or leave it out')
  const { clickhouseDatabase: database = options.clickhouseDatabase.fallback } = config
  if (pathname !== '/' && database !== options.clickhouseDatabase.fallback && pathname !== `/${database}`)
    problems.push(`WEIR_CLICKHOUSE names the database ${pathname.slice(1)} and WEIR_CLICKHOUSE_DATABASE ${database}`)
  // They go into a header.
  for (const name of ['clickhouseUser', 'clickhousePassword'] as const)
    if (!/^[\x20-\x7e]*$/.test(config[name] ?? ''))
      problems.push(`${environmentName(name)} must be of printable ASCII characters`)
  return problems
}

export function usesTls({
  kafkaTls,
  kafkaTlsCa,
  kafkaTlsCert,
}: Partial<Pick<Config, 'kafkaTls' | 'kafkaTlsCa' | 'kafkaTlsCert'>>): boolean {
  return kafkaTls === true || kafkaTlsCa !== undefined || kafkaTlsCert !== undefined
}

export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127\.\d+\.\d+\.\d+$/.test(host)
}

function readFile(file: string, problems: string[]): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    problems.push(`--config ${file} can't be read: ${(error as Error).message}`)
    return {}
  }
  try {
    const parsed: unknown = JSON.parse(text)
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>
    problems.push(`${file} must hold one JSON object`)
  } catch (error) {
    problems.push(`${file} is not JSON: ${(error as Error).message}`)
  }
  return {}
}

function unknownName(name: string, known: readonly string[]): string {
  return `${name} is not an option${nearestName(name, known)}`
}
