// What we say to a cluster, run by the real engine as far as the embedded one can. It knows clusters, Distributed tables over its own, and the
// arguments of Replicated engines; it runs no ON CLUSTER (that needs DDL workers), and its replicas take no rows (that needs a Keeper). So ON
// CLUSTER is left out here, rows go into tables that are not replicated, and two servers are not tested at all: that takes a real cluster, named
// by WEIR_TEST_CLICKHOUSE and WEIR_TEST_CLICKHOUSE_CLUSTER (open-clickhouse.test.ts).
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Logger, silentLogger } from '../runtime/logger.ts'
import { type ClickHouseProcess, startClickHouse } from '../tests/helpers/clickhouse-process.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { numberRows } from './clickhouse.contract.ts'
import { migrationStatements } from './ddl.ts'
import { readEndpoint } from './embedded-server/endpoint.ts'
import { insertRows } from './insert-rows.ts'
import { migrate, migrations } from './migrate.ts'
import { type ClickHouse, openClickHouse } from './open-clickhouse.ts'
import { applyRawRetention, rawRetentionSeconds } from './raw-retention.ts'
import { createServerWatch } from './server-watch.ts'
import { folded, foldedSettings, readingsTable } from './tables.ts'

const database = 'telemetry'
const cluster = 'main'
const configuration = `<clickhouse>
  <zookeeper><implementation>testkeeper</implementation></zookeeper>
  <tcp_port>9000</tcp_port>
  <macros><shard>1</shard><replica>a</replica></macros>
  <remote_servers><${cluster}><shard>
    <internal_replication>true</internal_replication><replica><host>localhost</host><port>9000</port></replica>
  </shard></${cluster}></remote_servers>
</clickhouse>`

describe('a cluster (of one, by the embedded engine: without ON CLUSTER and without a Keeper)', () => {
  let directory: string
  let server: ClickHouseProcess
  let clickhouse: ClickHouse
  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-distributed-'))
    await writeFile(join(directory, 'cluster.xml'), configuration)
    server = await startClickHouse({ engineArguments: [`--config-file=${join(directory, 'cluster.xml')}`] })
    clickhouse = open(cluster)
  }, 60_000)
  afterAll(async () => {
    await clickhouse?.close()
    await server?.dispose()
    await rm(directory, { recursive: true, force: true })
  })

  /** As a server elsewhere: rows go as bodies. */
  function open(name: string): ClickHouse {
    const endpoint = async () => {
      const { url, username, password } = await readEndpoint(server.data)
      return { url, username, password, database, cluster: name }
    }
    const opened = openClickHouse(endpoint, { logger: silentLogger })
    const asOne = (sql: string): string => sql.replaceAll(` ON CLUSTER '${name}'`, '')
    const notReplicated = (sql: string): string => asOne(sql).replace(/Replicated(\w+)\('[^']*', '[^']*',? ?/, '$1(')
    return { ...opened, command: (sql, options) => opened.command(notReplicated(sql), options) }
  }

  it('definitions of replicated tables are taken as they are', async () => {
    const { url, username, password } = await readEndpoint(server.data)
    const plain = openClickHouse(async () => ({ url, username, password, database: 'default' }), {
      logger: silentLogger,
    })
    await plain.command('CREATE DATABASE replicated')
    for (const { statements } of await migrations()) {
      for (const statement of statements) {
        const [own, distributed] = migrationStatements(statement, { database: 'replicated', cluster })
        for (const sql of [own!, distributed!]) {
          const asOne = plain.command(sql.replaceAll(` ON CLUSTER '${cluster}'`, ''))
          // Read, and no further: a replica without a Keeper changes nothing.
          if (sql === own && sql.startsWith('ALTER')) await expect(asOne).rejects.toThrow('TABLE_IS_READ_ONLY')
          else await asOne
        }
      }
    }
    const { rows } = await plain.query<{ name: string; engine: string }>(
      "SELECT name, engine FROM system.tables WHERE database = 'replicated' AND name LIKE 'readings%' ORDER BY name",
    )
    expect(rows).toEqual([
      { name: 'readings', engine: 'Distributed' },
      { name: 'readings_local', engine: 'ReplicatedReplacingMergeTree' },
    ])
    await plain.close()
  })

  it('is migrated once, by several at once', async () => {
    const names = (await Promise.all(Array.from({ length: 6 }, () => migrate(clickhouse)))).flat()
    expect(new Set(names)).toEqual(new Set((await migrations()).map(({ name }) => name)))
    expect(await migrate(clickhouse)).toEqual([])
  })

  it('rows go through the Distributed table, are there when the insert returns, and are read folded through it', async () => {
    const tenant = `test-${randomUUID()}`
    const rows = numberRows(tenant, 10_000)
    await insertRows(clickhouse, readingsTable, [rows])
    await insertRows(clickhouse, readingsTable, [rows])
    const count = async (source: string): Promise<number> => {
      const { rows: found } = await clickhouse.query<{ n: number }>(
        `SELECT count() AS n FROM ${source} WHERE tenant = {tenant:String}`,
        { parameters: { tenant }, settings: foldedSettings },
      )
      return found[0]!.n
    }
    expect(await count('readings_local')).toBeGreaterThanOrEqual(10_000)
    expect(await count(folded(readingsTable))).toBe(10_000)
    expect(await clickhouse.localFilesDirectory()).toBeUndefined()
  })

  it('retention is that of the table that holds the rows', async () => {
    expect(await applyRawRetention(clickhouse, 30 * 86_400_000)).toBe(true)
    expect(await rawRetentionSeconds(clickhouse)).toBe(30 * 86_400)
    expect(await applyRawRetention(clickhouse, 30 * 86_400_000)).toBe(false)
    expect(await applyRawRetention(clickhouse, undefined)).toBe(true)
    expect(await rawRetentionSeconds(clickhouse)).toBeUndefined()
  })

  it.each([
    [cluster, undefined],
    ['other', /knows no cluster other \(WEIR_CLICKHOUSE_CLUSTER\); it knows main/],
  ])('asked for the cluster %s, the watch says what is wrong', async (name, words) => {
    const other = open(name)
    const said: string[] = []
    const logger: Logger = { ...silentLogger, error: (_, message) => said.push(message) }
    const endpoint = { url: server.url(), username: 'weir', cluster: name }
    const watch = createServerWatch({ clickhouse: other, endpoint, logger, everyMs: 50 })
    await watch.start()
    await waitFor(() => watch.health().state !== 'starting', { withinMs: 20_000 })
    if (words === undefined) expect(watch.health()).toEqual({ state: 'ok' })
    else expect(watch.health()).toEqual({ state: 'failed', detail: expect.stringMatching(words) })
    expect(said).toEqual(words === undefined ? [] : [expect.stringMatching(words)])
    await watch.stop()
    await other.close()
  })
})
