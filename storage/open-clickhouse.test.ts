// The contract, against the embedded server by file and by body, and against a real ClickHouse server where one is named: its URL with user and
// password in WEIR_TEST_CLICKHOUSE, if need be WEIR_TEST_CLICKHOUSE_CLUSTER and WEIR_TEST_CLICKHOUSE_CA. It works in the databases weir and
// weir_test_….
import { readFile } from 'node:fs/promises'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RetryableError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { clickhouseContract, numberRows } from './clickhouse.contract.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'
import { insertRows } from './insert-rows.ts'
import { migrate } from './migrate.ts'
import { openClickHouse } from './open-clickhouse.ts'
import { readingsTable } from './tables.ts'

describe('embedded', () => {
  let server: ClickHouseProcess
  beforeAll(async () => {
    server = await startClickHouse()
  })
  afterAll(() => server?.dispose())
  const endpoint = () => readEndpoint(server.data)
  clickhouseContract({ name: 'embedded, rows by file', endpoint, way: 'file' })
  clickhouseContract({ name: 'embedded, rows by body', endpoint, way: 'body' })
})

describe('an address where something else answers is a store that is away, and nothing counts as stored', () => {
  const page = '<html>\n<body>We are at lunch</body>\n</html>'
  it.each<[string, (response: ServerResponse) => void]>([
    ['a page', (response) => response.end(page)],
    ['a page that says 502', (response) => response.writeHead(502).end(page)],
    ['a page that says 404', (response) => response.writeHead(404).end(page)],
    ['nothing, with 204', (response) => response.writeHead(204).end()],
    ['a connection that ends', (response) => response.destroy()],
    [
      'half an answer',
      (response) => response.writeHead(200, { 'content-length': '100' }).write('x', () => response.destroy()),
    ],
  ])('%s', async (_, answer) => {
    const server = createServer((request, response) => {
      request.resume().on('end', () => answer(response))
    })
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
    const { port } = server.address() as AddressInfo
    const endpoint = { url: `http://127.0.0.1:${port}`, username: 'weir', password: 'x' }
    const clickhouse = openClickHouse(async () => endpoint, { logger: silentLogger })
    const rows = numberRows('t', 10)
    await expect(insertRows(clickhouse, readingsTable, [rows])).rejects.toBeInstanceOf(RetryableError)
    await expect(clickhouse.insert('INSERT INTO t SELECT 1', undefined)).rejects.toBeInstanceOf(RetryableError)
    await expect(clickhouse.query('SELECT 1')).rejects.toBeInstanceOf(RetryableError)
    await expect(migrate(clickhouse)).rejects.toBeInstanceOf(RetryableError)
    await clickhouse.close()
    server.closeAllConnections()
    await new Promise((done) => server.close(done))
  })
})

const {
  WEIR_TEST_CLICKHOUSE: elsewhere,
  WEIR_TEST_CLICKHOUSE_CLUSTER: cluster,
  WEIR_TEST_CLICKHOUSE_CA: ca,
} = process.env
if (elsewhere === undefined) {
  describe.skip('a ClickHouse server (WEIR_TEST_CLICKHOUSE names none, and none can be installed here)', () => {})
} else {
  const { username, password, origin } = new URL(elsewhere)
  const endpoint = async () => ({
    url: origin,
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
    ...(cluster && { cluster }),
    ...(ca && { certificateAuthority: await readFile(ca, 'utf8') }),
  })
  clickhouseContract({ name: 'a server elsewhere, rows by body', endpoint, way: 'body' })
}
