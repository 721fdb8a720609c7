// The contract, against the embedded server by file and by body, and against a server elsewhere: WEIR_TEST_CLICKHOUSE=http://user:password@host:8123.
import { afterAll, beforeAll, describe } from 'vitest'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { clickhouseContract } from './clickhouse.contract.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'

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

const elsewhere = process.env.WEIR_TEST_CLICKHOUSE
if (elsewhere === undefined) {
  describe.skip('ClickHouse elsewhere (WEIR_TEST_CLICKHOUSE is not set)', () => {})
} else {
  const { username, password, origin } = new URL(elsewhere)
  const endpoint = async () => ({
    url: origin,
    username: decodeURIComponent(username),
    password: decodeURIComponent(password),
  })
  clickhouseContract({ name: 'elsewhere, rows by body', endpoint, way: 'body' })
}
