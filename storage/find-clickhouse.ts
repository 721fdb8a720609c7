// Where the store is, from the configuration: the server that we run ourselves, or one elsewhere.
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { resolve } from 'node:path'
import type { Config } from '../runtime/config.ts'
import { StartError } from '../runtime/errors.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'
import type { ClickHouseEndpoint } from './open-clickhouse.ts'

type StoreConfig = Pick<Config, 'data' | Extract<keyof Config, `clickhouse${string}`>>

/** Asked again whenever the server can't be reached. Throws a StartError for a file that can't be read. */
export function findClickHouse(config: StoreConfig): () => Promise<ClickHouseEndpoint> {
  if (isEmbedded(config)) return () => readEndpoint(config.data)
  const { origin } = new URL(config.clickhouse)
  const { clickhouseCluster: cluster, clickhouseCa } = config
  const endpoint: ClickHouseEndpoint = {
    url: origin,
    username: config.clickhouseUser,
    password: config.clickhousePassword ?? '',
    database: databaseOf(config),
    compresses: config.clickhouseCompression === 'gzip',
    ...(cluster !== undefined && { cluster }),
    ...(clickhouseCa !== undefined && { certificateAuthority: readCertificate(clickhouseCa) }),
  }
  return async () => endpoint
}

/** Whether it is ours to start. */
export function isEmbedded({ clickhouse }: Pick<Config, 'clickhouse'>): boolean {
  return clickhouse === 'embedded'
}

/** Tells stores that can't be the same apart. A server has many addresses, so all that are elsewhere count as one. */
export function storeName(config: StoreConfig): string {
  return isEmbedded(config)
    ? `${resolve(config.data)} on ${hostname()}`
    : `the database ${databaseOf(config)} of a ClickHouse server`
}

function databaseOf({ clickhouse, clickhouseDatabase }: StoreConfig): string {
  const { pathname } = new URL(clickhouse)
  return pathname === '/' ? clickhouseDatabase : pathname.slice(1)
}

/** Detection on Kafka reads and appends there, and asks the table nothing. */
export function needsStore({ roles, log }: Pick<Config, 'roles' | 'log'>): boolean {
  return log === 'embedded' || roles.includes('writer') || roles.includes('api')
}

function readCertificate(file: string): string {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    throw new StartError(`WEIR_CLICKHOUSE_CA can't be read: ${(error as Error).message}`)
  }
  if (!text.includes('-----BEGIN CERTIFICATE-----'))
    throw new StartError(`WEIR_CLICKHOUSE_CA: ${file} is no certificate in PEM`)
  return text
}
