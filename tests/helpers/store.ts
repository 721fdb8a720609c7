// The store as any ClickHouse client on the machine reaches it: HTTP, with the address and the secret that it leaves in the data directory.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

interface Endpoint {
  readonly url: string
  readonly username: string
  readonly password: string
}

/** Rows of `FORMAT JSONEachRow`; whole numbers of 64 bits come as numbers. */
export async function queryStore<Row>(data: string, sql: string, signal?: AbortSignal): Promise<Row[]> {
  const text = await askStore(data, `${sql} FORMAT JSONEachRow`, signal)
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Row)
}

/** Sends one statement and gives back the text that comes. */
export async function askStore(data: string, sql: string, signal?: AbortSignal): Promise<string> {
  const { url, username, password } = JSON.parse(
    readFileSync(join(data, 'clickhouse/endpoint.json'), 'utf8'),
  ) as Endpoint
  const target = new URL(url)
  target.searchParams.set('output_format_json_quote_64bit_integers', '0')
  const response = await fetch(target, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}` },
    body: sql,
    signal: signal ?? AbortSignal.timeout(60_000),
  })
  const text = await response.text()
  if (!response.ok)
    throw new Error(`the store answered ${response.status} to ${sql.slice(0, 200)}: ${text.slice(0, 500)}`)
  return text
}
