// Where the embedded server is to be found, and the secret that opens it: one file, readable by its owner only. The secret survives restarts.
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { RetryableError } from '../../runtime/errors.ts'
import type { ClickHouseEndpoint } from '../open-clickhouse.ts'

export type { ClickHouseEndpoint }

/** An installation may leave the engine out, as the container image does. */
export function hasEngine(): boolean {
  try {
    createRequire(import.meta.url).resolve('chdb')
    return true
  } catch {
    return false
  }
}

/** Of `<data>`. Throws a RetryableError while no server has written one. */
export async function readEndpoint(dataDirectory: string): Promise<ClickHouseEndpoint> {
  const file = endpointFile(join(dataDirectory, 'clickhouse'))
  try {
    return parseEndpoint(await readFile(file, 'utf8'))
  } catch (cause) {
    throw new RetryableError(`the store has not started yet (${file} can't be read)`, { cause })
  }
}

/** What the last server on this directory wrote, if any; a file that is not as it was written counts for nothing, and a new one takes its place. */
export async function previousEndpoint(directory: string): Promise<ClickHouseEndpoint | undefined> {
  try {
    return parseEndpoint(await readFile(endpointFile(directory), 'utf8'))
  } catch {
    return undefined
  }
}

export async function writeEndpoint(directory: string, endpoint: ClickHouseEndpoint): Promise<void> {
  await mkdir(directory, { recursive: true })
  const file = endpointFile(directory)
  // Whole or not at all: others read it at any moment.
  await writeFile(`${file}.new`, `${JSON.stringify(endpoint, null, 2)}\n`, { mode: 0o600 })
  await rename(`${file}.new`, file)
}

/** Throws for anything that `writeEndpoint` did not write: a damaged file must neither end the server nor open it with an empty secret. */
function parseEndpoint(text: string): ClickHouseEndpoint {
  const { url, username, password, localFilesDirectory } = JSON.parse(text) as Record<string, unknown>
  const isWhole = [url, username, password, localFilesDirectory].every(
    (field) => typeof field === 'string' && field !== '',
  )
  if (!isWhole || !URL.canParse(url as string)) throw new Error('it is not what the store wrote')
  return { url, username, password, localFilesDirectory } as ClickHouseEndpoint
}

export function newSecret(): string {
  return randomBytes(24).toString('base64url')
}

function endpointFile(directory: string): string {
  return join(directory, 'endpoint.json')
}
