// The contract, against the embedded server by file and by body, and against a real ClickHouse server where one is named: its URL with user and
// password in WEIR_TEST_CLICKHOUSE, if need be WEIR_TEST_CLICKHOUSE_CLUSTER and WEIR_TEST_CLICKHOUSE_CA. It works in the databases weir and
// weir_test_….
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe } from 'vitest'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { clickhouseContract } from './clickhouse.contract.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'

describe('embedded', () => {
  let server: ClickHouseProcess
  beforeAll(async () => {
    server = await startClickHouse()
  }, 30_000)
  afterAll(() => server?.dispose())
  const endpoint = () => readEndpoint(server.data)
  clickhouseContract({ name: 'embedded, rows by file', endpoint, way: 'file' })
  clickhouseContract({ name: 'embedded, rows by body', endpoint, way: 'body' })
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
