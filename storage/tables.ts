// The tables' names and columns, and the one way to read them folded: repeats of a row (redelivery, a device that sends again, a correction)
// are one, the newest by receivedAt.
import { anomalyStructure } from '../domain/anomaly.ts'
import { deadLetterStructure } from '../domain/dead-letter.ts'
import { rowStructure } from '../domain/row-format.ts'

export interface Table {
  /** Ready for SQL: in the database that the connection is in (`weir`, unless the configuration says otherwise). */
  readonly name: string
  /** Columns and types, in the order in which rows hold them as RowBinary; for file(). */
  readonly structure: string
}

export const readingsTable: Table = { name: 'readings', structure: plain(rowStructure) }
/** As rows that say where they lie in the log (placed-rows.ts). */
export const placedReadingsTable: Table = { ...readingsTable, structure: `${readingsTable.structure}, logOffset Int64` }
export const anomaliesTable: Table = { name: 'anomalies', structure: plain(anomalyStructure) }
export const deadLettersTable: Table = { name: 'dead_letters', structure: plain(deadLetterStructure) }
export const putBackTable: Table = {
  name: 'dead_letters_put_back',
  structure:
    "tenant String, device String, id String, putBackAt DateTime64(6, 'UTC'), accepted UInt32, deadLettered UInt32",
}

/**
 * Read as plain strings: they are the same bytes, and the engine makes them LowCardinality block by block. Read as LowCardinality it looks
 * up each row by itself, which makes an insert cost twice the CPU (0.98 against 0.46 µs a row).
 */
function plain(structure: string): string {
  return structure.replaceAll('LowCardinality(String)', 'String')
}

/**
 * What follows FROM in every read of a table: `SELECT … FROM ${folded(readingsTable)} WHERE tenant = … AND device = … AND …`. Filter by the
 * leading columns of the key (tenant, device, metric, observedAt): FINAL folds only the ranges that the filter leaves.
 * Aggregates over `value` leave out text readings with `onlyNumbers`.
 */
export function folded(table: Table): string {
  return `${table.name} FINAL`
}

/** Condition that leaves out text readings, whose value is NaN. */
export const onlyNumbers = 'NOT isNaN(value)'

/**
 * Settings for folded reads. Repeats of a row have the same observedAt, so they lie in the same partition, and partitions can be folded
 * each for itself.
 */
export const foldedSettings = { do_not_merge_across_partitions_select_final: 1 } as const
