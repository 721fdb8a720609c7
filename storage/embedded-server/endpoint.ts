// Where the embedded server is to be found, and the secret that opens it: one file, readable by its owner only. The secret survives restarts.
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { RetryableError } from '../../runtime/errors.ts'
import type { ClickHouseEndpoint } from '../open-clickhouse.ts'

export type { ClickHouseEndpoint }

/** Of `<data>`. Throws a RetryableError while no server has written one. */
export async function readEndpoint(dataDirectory: string): Promise<ClickHouseEndpoint> {
  const file = endpointFile(join(dataDirectory, 'clickhouse'))
  try {
    return JSON.parse(await readFile(file, 'utf8')) as ClickHouseEndpoint
  } catch (cause) {
    throw new RetryableError(`the store has not started yet (${file} can't be read)`, { cause })
  }
}

/** What the last server on this directory wrote, if any. */
export async function previousEndpoint(directory: string): Promise<ClickHouseEndpoint | undefined> {
  try {
    return JSON.parse(await readFile(endpointFile(directory), 'utf8')) as ClickHouseEndpoint
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

export function newSecret(): string {
  return randomBytes(24).toString('base64url')
}

function endpointFile(directory: string): string {
  return join(directory, 'endpoint.json')
}
