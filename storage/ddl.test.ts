// What we say to define tables: as text here; run by the real engine in distributed.test.ts, as far as it can.
import { describe, expect, it } from 'vitest'
import { alterTable, createDatabase, createMigrations, type Layout, migrationStatements } from './ddl.ts'
import { migrations } from './migrate.ts'
import * as tables from './tables.ts'

const single: Layout = { database: 'weir', cluster: undefined }
const cluster: Layout = { database: 'telemetry', cluster: 'main' }

const create = `CREATE TABLE IF NOT EXISTS weir.things
(
    tenant LowCardinality(String),
    device LowCardinality(String) CODEC(ZSTD(1)),
    seenAt DateTime64(6, 'UTC')
)
ENGINE = ReplacingMergeTree(seenAt)
PARTITION BY toYYYYMM(seenAt)
ORDER BY (tenant, device)
SETTINGS fsync_after_insert = 1, non_replicated_deduplication_window = 0`

describe('for one server', () => {
  it('a migration is what it is, in the database of the configuration', () => {
    expect(migrationStatements(create, single)).toEqual([create.replace('weir.things', '`weir`.things')])
    expect(migrationStatements(create, { ...single, database: 'other' })[0]).toContain('`other`.things')
    expect(migrationStatements('ALTER TABLE weir.things ADD COLUMN IF NOT EXISTS x UInt8', single)).toEqual([
      'ALTER TABLE `weir`.things ADD COLUMN IF NOT EXISTS x UInt8',
    ])
    expect(migrationStatements('DROP TABLE IF EXISTS weir.things', single)).toEqual([
      'DROP TABLE IF EXISTS `weir`.things',
    ])
    expect(createDatabase(single)).toBe('CREATE DATABASE IF NOT EXISTS `weir`')
  })
})

describe('for a cluster', () => {
  it('a table is a replicated one on every server and a Distributed one over them, a device on one shard', () => {
    expect(migrationStatements(create, cluster)).toEqual([
      `CREATE TABLE IF NOT EXISTS \`telemetry\`.things_local ON CLUSTER 'main'
(
    tenant LowCardinality(String),
    device LowCardinality(String) CODEC(ZSTD(1)),
    seenAt DateTime64(6, 'UTC')
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/telemetry/things_local', '{replica}', seenAt)
PARTITION BY toYYYYMM(seenAt)
ORDER BY (tenant, device)
SETTINGS fsync_after_insert = 1, replicated_deduplication_window = 0`,
      `CREATE TABLE IF NOT EXISTS \`telemetry\`.things ON CLUSTER 'main'
AS \`telemetry\`.things_local
ENGINE = Distributed('main', 'telemetry', 'things_local', cityHash64(tenant, device))`,
    ])
  })

  it('a table whose rows could not find their shard is refused', () => {
    expect(() => migrationStatements(create.replace(/^ +device.*\n/m, ''), cluster)).toThrow(/no column device/)
  })

  it.each([
    ['ADD COLUMN IF NOT EXISTS x UInt8', ['things_local', 'things']],
    ['MODIFY COLUMN x UInt16', ['things_local', 'things']],
    ['DROP COLUMN IF EXISTS x', ['things', 'things_local']],
    ['MODIFY TTL seenAt + INTERVAL 1 DAY', ['things_local']],
    ['REMOVE TTL', ['things_local']],
    ['MODIFY SETTING ttl_only_drop_parts = 1', ['things_local']],
  ])('ALTER … %s reaches %j', (change, names) => {
    expect(alterTable('things', change, cluster)).toEqual(
      names.map((name) => `ALTER TABLE \`telemetry\`.${name} ON CLUSTER 'main' ${change}`),
    )
  })

  it('what was applied is one table of which every server has a replica', () => {
    expect(createMigrations(cluster)).toContain(
      "ON CLUSTER 'main'\n(name String, appliedAt DateTime64(3, 'UTC') DEFAULT now64(3))\n" +
        "ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/telemetry/migrations', '{shard}-{replica}', appliedAt) ORDER BY name",
    )
    expect(createDatabase(cluster)).toBe("CREATE DATABASE IF NOT EXISTS `telemetry` ON CLUSTER 'main'")
  })
})

describe('migrations', () => {
  it.each([
    'CREATE TABLE weir.things (a UInt8) ENGINE = Memory',
    'ALTER TABLE weir.things ADD COLUMN x UInt8',
    'ALTER TABLE weir.things DELETE WHERE 1',
    'ALTER TABLE weir.things UPDATE x = x + 1 WHERE 1',
    'RENAME TABLE weir.things TO weir.others',
    'CREATE TABLE IF NOT EXISTS things (a UInt8) ENGINE = MergeTree ORDER BY a',
  ])('%s is refused: it can’t be made again, or not be told to a cluster', (statement) => {
    for (const layout of [single, cluster]) expect(() => migrationStatements(statement, layout)).toThrow()
  })

  it('all of this version’s can be told to one server and to a cluster', async () => {
    const all = (await migrations()).flatMap(({ statements }) => statements)
    expect(all.length).toBeGreaterThan(2)
    for (const statement of all) {
      expect(migrationStatements(statement, single).join()).not.toMatch(/ON CLUSTER|Replicated|Distributed/)
      for (const each of migrationStatements(statement, cluster)) {
        expect(each).toContain("ON CLUSTER 'main'")
        expect(each).not.toContain('weir.')
      }
    }
  })

  it('tables are named without a database: it is the connection’s', () => {
    const names = Object.values(tables).flatMap((each) =>
      typeof each === 'object' && 'name' in each ? [each.name] : [],
    )
    expect(names.length).toBeGreaterThan(2)
    for (const name of names) expect(name).toMatch(/^\w+$/)
  })
})
