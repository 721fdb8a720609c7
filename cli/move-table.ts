// Tables into another ClickHouse, slice by slice: what a slice is, both sides answer by the same condition, so each can be counted and compared by
// itself. A slice that is there already, row for row, is not sent again: what was interrupted goes on where it stood. Rows that are sent twice fold.
import { StartError } from '../runtime/errors.ts'
import { migrate } from '../storage/migrate.ts'
import type { ClickHouse, QueryOptions } from '../storage/open-clickhouse.ts'
import { rawRetentionSeconds } from '../storage/raw-retention.ts'
import { readingsTable } from '../storage/tables.ts'
import type { Progress } from './progress.ts'

export interface TableMove {
  readonly table: string
  readonly rows: number
  /** Of all rows, whatever their order; the same on both sides. */
  readonly checksum: string
  /** Rows that this run sent; undefined in a dry run. */
  readonly sent?: number
}

export interface MoveTablesOptions {
  readonly source: ClickHouse
  /** Undefined: only count. */
  readonly target: ClickHouse | undefined
  readonly progress: Progress
}

interface TableShape {
  readonly name: string
  readonly partitionKey: string
  readonly columns: readonly string[]
  /** Its key begins with tenant and device. */
  readonly isByDevice: boolean
  /** What both sides leave out. */
  readonly condition: string
}

interface Slice {
  readonly where: string
  readonly parameters: Readonly<Record<string, string>>
  readonly rows: number
}

interface Sum {
  readonly rows: number
  readonly checksum: bigint
}

/** About as many rows; a device's own in one partition are never divided. */
const sliceRowsMax = 2_000_000
/** Rows that leave by their age within this time are not moved: they would be gone on one side and not on the other. */
const ageMarginSeconds = 3_600
/** A slice takes as long as it takes; who moves is there to see it. */
const patient = { max_execution_time: 3_600, max_result_bytes: 0 } as const
const inserted = {
  async_insert: 0,
  insert_deduplicate: 0,
  max_partitions_per_insert_block: 0,
  max_execution_time: 3_600,
} as const

export async function moveTables({ source, target, progress }: MoveTablesOptions): Promise<TableMove[]> {
  if (target) await migrate(target)
  const shapes = await tablesOf(source)
  if (target) checkTables(shapes, await tablesOf(target))
  const moved: TableMove[] = []
  for (const shape of shapes) {
    const slices = await slicesOf(source, shape)
    const of = slices.reduce((sum, { rows }) => sum + rows, 0)
    let [done, rows, sent, checksum] = [0, 0, 0, 0n]
    for (const slice of slices) {
      progress(`table ${shape.name}`, done, of)
      const there = await sumOf(source, shape, slice)
      if (target && (await moveSlice({ source, target, shape, slice, sum: there }))) sent += there.rows
      rows += there.rows
      checksum = BigInt.asUintN(64, checksum + there.checksum)
      done += slice.rows
    }
    const hex = checksum.toString(16).padStart(16, '0')
    moved.push({ table: shape.name, rows, checksum: hex, ...(target && { sent }) })
  }
  return moved
}

/** False: it was there. */
async function moveSlice({
  source,
  target,
  shape,
  slice,
  sum,
}: {
  readonly source: ClickHouse
  readonly target: ClickHouse
  readonly shape: TableShape
  readonly slice: Slice
  readonly sum: Sum
}): Promise<boolean> {
  if (isSame(await sumOf(target, shape, slice), sum)) return false
  const columns = shape.columns.join(', ')
  const rows = await source.read(
    `SELECT ${columns} FROM ${shape.name} FINAL WHERE ${slice.where} FORMAT RowBinary`,
    optionsOf(slice),
  )
  await target.insert(`INSERT INTO ${shape.name} (${columns}) FORMAT RowBinary`, rows, { settings: inserted })
  const now = await sumOf(target, shape, slice)
  if (isSame(now, sum)) return true
  throw new StartError(
    `The table ${shape.name} in ClickHouse does not hold what it was sent: ${now.rows} rows where there are ${sum.rows} (${JSON.stringify(slice.parameters)}). It had other rows before, or somebody writes to it: move to an empty database (WEIR_CLICKHOUSE_DATABASE).`,
  )
}

function isSame(a: Sum, b: Sum): boolean {
  return a.rows === b.rows && a.checksum === b.checksum
}

async function sumOf(clickhouse: ClickHouse, { name, columns }: TableShape, slice: Slice): Promise<Sum> {
  const { rows } = await clickhouse.query<{ rows: number; checksum: string }>(
    `SELECT count() AS rows, toString(sum(cityHash64(${columns.join(', ')}))) AS checksum FROM ${name} FINAL WHERE ${slice.where}`,
    optionsOf(slice),
  )
  return { rows: rows[0]!.rows, checksum: BigInt(rows[0]!.checksum) }
}

function optionsOf({ parameters }: Slice): QueryOptions {
  return { parameters, settings: { ...patient, do_not_merge_across_partitions_select_final: 1 } }
}

/** All that hold rows, whatever they are; on a cluster the ones that stand for them. Where something was migrated to is each side's own. */
async function tablesOf(clickhouse: ClickHouse): Promise<TableShape[]> {
  const { rows } = await clickhouse.query<{ name: string; partitionKey: string; sortingKey: string }>(
    `SELECT name, partition_key AS partitionKey, sorting_key AS sortingKey FROM system.tables
    WHERE database = currentDatabase() AND (engine LIKE '%MergeTree' OR engine = 'Distributed')
      AND name NOT LIKE '%\\_local' AND name != 'migrations' ORDER BY name`,
  )
  const { rows: columns } = await clickhouse.query<{ table: string; name: string }>(
    'SELECT table, name FROM system.columns WHERE database = currentDatabase() ORDER BY table, position',
  )
  const seconds = await rawRetentionSeconds(clickhouse)
  const leavesAfter = (name: string): string =>
    name === readingsTable.name && seconds !== undefined && Number.isFinite(seconds)
      ? `toDateTime(observedAt) > toDateTime(${Math.floor(Date.now() / 1000) - seconds + ageMarginSeconds})`
      : '1'
  return rows.map(({ name, partitionKey, sortingKey }) => ({
    name,
    partitionKey: partitionKey === '' ? "''" : partitionKey,
    columns: columns.filter(({ table }) => table === name).map((column) => column.name),
    isByDevice: /^tenant, device\b/.test(sortingKey),
    condition: leavesAfter(name),
  }))
}

function checkTables(own: readonly TableShape[], theirs: readonly TableShape[]): void {
  for (const { name, columns } of own) {
    const found = theirs.find((each) => each.name === name)
    if (found?.columns.join() !== columns.join())
      throw new StartError(
        `The table ${name} is not in ClickHouse as it is here: both must be of one version of Weir (a start here with this version brings the tables to it)`,
      )
  }
}

/** By partition, and where a partition is large by devices. The same condition holds on both sides, also where a table is spread over servers. */
async function slicesOf(source: ClickHouse, shape: TableShape): Promise<Slice[]> {
  const { name, partitionKey, condition, isByDevice } = shape
  const inPartition = `toString(${partitionKey}) = {part:String} AND ${condition}`
  const { rows: parts } = await source.query<{ part: string; rows: number }>(
    `SELECT toString(${partitionKey}) AS part, count() AS rows FROM ${name} WHERE ${condition} GROUP BY part ORDER BY part`,
    { settings: patient },
  )
  const slices: Slice[] = []
  for (const { part, rows } of parts) {
    if (rows <= sliceRowsMax || !isByDevice) {
      slices.push({ where: inPartition, parameters: { part }, rows })
      continue
    }
    const { rows: devices } = await source.query<{ tenant: string; device: string; rows: number }>(
      `SELECT tenant, device, count() AS rows FROM ${name} WHERE ${inPartition} GROUP BY tenant, device ORDER BY tenant, device`,
      { parameters: { part }, settings: patient },
    )
    for (const [first, last, some] of rangesOf(devices)) {
      const where = `${inPartition} AND (tenant, device) >= ({t1:String}, {d1:String}) AND (tenant, device) <= ({t2:String}, {d2:String})`
      const parameters = { part, t1: first.tenant, d1: first.device, t2: last.tenant, d2: last.device }
      slices.push({ where, parameters, rows: some })
    }
  }
  return slices
}

function rangesOf<Device extends { readonly rows: number }>(devices: readonly Device[]): [Device, Device, number][] {
  const ranges: [Device, Device, number][] = []
  for (const device of devices) {
    const range = ranges.at(-1)
    if (range && range[2] + device.rows <= sliceRowsMax) {
      range[1] = device
      range[2] += device.rows
    } else ranges.push([device, device, device.rows])
  }
  return ranges
}
