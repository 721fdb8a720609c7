// Where the store is, from the configuration: the server that we run ourselves, or one elsewhere.
import { readFileSync } from 'node:fs'
import type { Config } from '../runtime/config.ts'
import { StartError } from '../runtime/errors.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'
import type { ClickHouseEndpoint } from './open-clickhouse.ts'

type StoreConfig = Pick<Config, 'data' | Extract<keyof Config, `clickhouse${string}`>>

/** Asked again whenever the server can't be reached. Throws a StartError for a file that can't be read. */
export function findClickHouse(config: StoreConfig): () => Promise<ClickHouseEndpoint> {
  if (isEmbedded(config)) return () => readEndpoint(config.data)
  const { origin, pathname } = new URL(config.clickhouse)
  const { clickhouseCluster: cluster, clickhouseCa } = config
  const endpoint: ClickHouseEndpoint = {
    url: origin,
    username: config.clickhouseUser,
    password: config.clickhousePassword ?? '',
    database: pathname === '/' ? config.clickhouseDatabase : pathname.slice(1),
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
