// All that Weir says to define tables, for one server or for a cluster, in one place. Migrations are written for one server; on a cluster each
// table becomes a replicated one on every server (`readings_local`) and, under its own name, a Distributed one over them:
//
//   readings (Distributed, by tenant and device) ──▶ readings_local on shard 1 ══ its replicas
//                                                └─▶ readings_local on shard 2 ══ its replicas
//
// A device's readings all lie on one shard, so that repeats meet there and are folded.

export interface Layout {
  readonly database: string
  /** As ClickHouse knows it in `remote_servers`; undefined: one server. */
  readonly cluster: string | undefined
}

/** A statement of a migration, as it is written there: what it names is in `weir`, and it may be run again at any time. */
export function migrationStatements(statement: string, layout: Layout): readonly string[] {
  const create = createPattern.exec(statement)
  if (create) {
    const [, name, columns, engine, version = '', rest] = create as unknown as [
      string,
      string,
      string,
      string,
      string?,
      string?,
    ]
    return createTable({ name, columns, engine, version, rest: rest ?? '' }, layout)
  }
  const alter = /^ALTER TABLE weir\.(\w+)\s+([\s\S]+)$/.exec(statement)
  if (alter) return alterTable(alter[1]!, alter[2]!, layout)
  const drop = /^DROP TABLE IF EXISTS weir\.(\w+)$/.exec(statement)
  if (drop) return dropTable(drop[1]!, layout)
  throw new Error(
    `A migration must be CREATE TABLE IF NOT EXISTS weir.…, ALTER TABLE weir.… or DROP TABLE IF EXISTS weir.…: ${statement.slice(0, 200)}`,
  )
}

const createPattern =
  /^CREATE TABLE IF NOT EXISTS weir\.(\w+)\s*(\([\s\S]*?\n\))\s*ENGINE = (\w*MergeTree)(?:\(([^()]*)\))?(\s[\s\S]*)?$/

interface TableDefinition {
  readonly name: string
  /** With their brackets. */
  readonly columns: string
  readonly engine: string
  /** Of the engine, as written. */
  readonly version: string
  /** PARTITION BY, ORDER BY, SETTINGS. */
  readonly rest: string
}

function createTable({ name, columns, engine, version, rest }: TableDefinition, layout: Layout): readonly string[] {
  const { cluster } = layout
  if (cluster === undefined) {
    return [`CREATE TABLE IF NOT EXISTS ${qualified(layout, name)}\n${columns}\nENGINE = ${engine}(${version})${rest}`]
  }
  for (const column of ['tenant', 'device'])
    if (!new RegExp(`^\\s*${column} `, 'm').test(columns))
      throw new Error(`${name} has no column ${column}, by which its rows would find their shard`)
  const local = localName(name)
  const path = `/clickhouse/tables/{shard}/${layout.database}/${local}`
  const own = `CREATE TABLE IF NOT EXISTS ${qualified(layout, local)} ${onCluster(cluster)}
${columns}
ENGINE = ${replicated(engine, path, '{replica}', version)}${rest.replace('non_replicated_deduplication_window', 'replicated_deduplication_window')}`
  const distributed = `CREATE TABLE IF NOT EXISTS ${qualified(layout, name)} ${onCluster(cluster)}
AS ${qualified(layout, local)}
ENGINE = Distributed('${cluster}', '${layout.database}', '${local}', cityHash64(tenant, device))`
  return [own, distributed]
}

/** `change` must be one that can be made again. What a Distributed table has itself is its columns; all else is the local ones'. */
export function alterTable(name: string, change: string, layout: Layout): readonly string[] {
  if (!repeatableChange.test(change)) throw new Error(`A change of ${name} that can't be made again: ${change}`)
  if (layout.cluster === undefined) return [`ALTER TABLE ${qualified(layout, name)} ${change}`]
  const on = onCluster(layout.cluster)
  const local = `ALTER TABLE ${qualified(layout, localName(name))} ${on} ${change}`
  if (!/^(ADD|DROP|MODIFY) COLUMN /.test(change)) return [local]
  const distributed = `ALTER TABLE ${qualified(layout, name)} ${on} ${change}`
  // A column is there before it is asked for, and asked for no more before it goes.
  return change.startsWith('DROP') ? [distributed, local] : [local, distributed]
}

const repeatableChange =
  /^(ADD (COLUMN|INDEX|PROJECTION|CONSTRAINT) IF NOT EXISTS|DROP (COLUMN|INDEX|PROJECTION|CONSTRAINT) IF EXISTS|MODIFY (COLUMN|TTL|SETTING|COMMENT)|REMOVE TTL$|COMMENT COLUMN IF EXISTS)/

function dropTable(name: string, layout: Layout): readonly string[] {
  if (layout.cluster === undefined) return [`DROP TABLE IF EXISTS ${qualified(layout, name)}`]
  // SYNC: the place in Keeper is free again when it returns.
  return [name, localName(name)].map(
    (each) => `DROP TABLE IF EXISTS ${qualified(layout, each)} ${onCluster(layout.cluster!)} SYNC`,
  )
}

export function createDatabase({ database, cluster }: Layout): string {
  return `CREATE DATABASE IF NOT EXISTS ${quoted(database)}${cluster === undefined ? '' : ` ${onCluster(cluster)}`}`
}

/** Where it is written what was applied; on a cluster, one table of which every server has a replica. */
export function createMigrations(layout: Layout): string {
  const { database, cluster } = layout
  const engine =
    cluster === undefined
      ? 'ReplacingMergeTree(appliedAt)'
      : replicated(
          'ReplacingMergeTree',
          `/clickhouse/tables/all/${database}/migrations`,
          '{shard}-{replica}',
          'appliedAt',
        )
  return `CREATE TABLE IF NOT EXISTS ${qualified(layout, 'migrations')}${cluster === undefined ? '' : ` ${onCluster(cluster)}`}
(name String, appliedAt DateTime64(3, 'UTC') DEFAULT now64(3))
ENGINE = ${engine} ORDER BY name SETTINGS fsync_after_insert = 1, fsync_part_directory = 1`
}

/** The name of the table that holds the rows themselves. */
export function storedTableName(name: string, { cluster }: Layout): string {
  return cluster === undefined ? name : localName(name)
}

function localName(name: string): string {
  return `${name}_local`
}

/**
 * The path is written out: with the default, which holds the table's UUID, a server that missed the statement and got it later would be a
 * replica of nobody.
 */
function replicated(engine: string, path: string, replica: string, version: string): string {
  return `Replicated${engine}('${path}', '${replica}'${version === '' ? '' : `, ${version}`})`
}

function onCluster(cluster: string): string {
  return `ON CLUSTER '${cluster}'`
}

function qualified({ database }: Layout, name: string): string {
  return `${quoted(database)}.${name}`
}

/** Names are of letters, digits and underscores (the configuration sees to it); one may still be a keyword. */
function quoted(name: string): string {
  return `\`${name}\``
}
