// Every option of Weir, in one schema: default, meaning, unit, rule. Nothing else reads the environment. The table in README.md is generated
// from here (`npm run docs`), and a test holds the two together.
import { join, resolve } from 'node:path'
import { z } from 'zod'
import {
  brokerList,
  clickhouseAddress,
  duration,
  file,
  flag,
  nameList,
  port,
  roleList,
  roles,
  size,
  urlList,
  whole,
} from './option-kinds.ts'

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
  logQuota: option(
    size,
    '10GiB',
    'Most bytes the log may take: then the oldest that is stored makes room, and while none is, nothing more is acknowledged',
  ),
  retentionLog: option(
    duration,
    '24h',
    'Age at which stored readings leave the log, sooner where the quota or a full disk needs the room, never before they are in the table; on Kafka what topics are made with, which waits for nobody',
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

export function environmentName(name: string): string {
  return `WEIR_${name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`
}

/** `httpPort` → `http-port`. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)
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
