// What must be true of options together, in sentences that say what to set. Each option by itself is held by its schema in config.ts.
import * as zlib from 'node:zlib'
import { type Config, environmentName, isLoopback, options, requiresAuth, usesTls } from './config.ts'

/** Rules over more than one option, for those that are usable by themselves. */
export function checkTogether(config: Partial<Config>): string[] {
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
export function checkAccess(config: Partial<Config>): string[] {
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
