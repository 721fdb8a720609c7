// What a move came to, for programs as it is and for people in lines.
import { join } from 'node:path'
import type { ConsumerGroup, LogTopic, Offset } from '../domain/event-log.ts'
import type { Tally } from './move-log.ts'
import type { TableMove } from './move-table.ts'

export interface TopicMove {
  readonly topic: LogTopic
  /** What the embedded log holds. */
  readonly from: Tally
  /** What Kafka holds of it; undefined in a dry run. */
  readonly to?: Tally
  /** Chunks that this run appended; the others were there from a run before. */
  readonly copied: number
  readonly repeats: number
}

export interface GroupMove {
  readonly group: ConsumerGroup
  readonly topic: LogTopic
  readonly from: Readonly<Record<string, Offset>>
  readonly to?: Readonly<Record<string, Offset>>
}

export interface MoveReport {
  readonly state: 'would-move' | 'moved' | 'moved-before'
  readonly data: string
  readonly to: string
  readonly topics: readonly TopicMove[]
  readonly groups: readonly GroupMove[]
  /** What detection has learned. */
  readonly detector: 'moved' | 'none'
  /** Empty where the table stays. */
  readonly tables: readonly TableMove[]
  /** Who may send. The file stays where it is. */
  readonly devices: { readonly file: string; readonly registered: number }
}

export function describeMove({ state, data, to, topics, groups, detector, tables, devices }: MoveReport): string {
  const lines = [
    {
      'would-move': `${data} would be moved to ${to}; nothing was changed`,
      moved: `${data} was moved to ${to}`,
      'moved-before': `${data} was moved to ${to} before; nothing was changed`,
    }[state],
  ]
  for (const { topic, from, to: there, copied, repeats } of topics) {
    lines.push(`${topic}: ${from.readings} in ${from.chunks} chunks, ${from.bytes} bytes, checksum ${from.checksum}`)
    if (!there) continue
    lines.push(
      `  in Kafka: ${there.readings} in ${there.chunks} chunks, ${there.bytes} bytes, checksum ${there.checksum}: the same`,
    )
    if (copied < from.chunks) lines.push(`  ${from.chunks - copied} chunks were there from a run before`)
    if (repeats > 0)
      lines.push(`  ${repeats} chunks are there twice, as Kafka was sent them again; the table folds them`)
  }
  for (const { group, topic, from, to: there } of groups) {
    const where = (position: Readonly<Record<string, number>>): string =>
      Object.entries(position)
        .map(([partition, offset]) => `${partition}:${offset}`)
        .join(' ') || 'the beginning'
    lines.push(`position of ${group} in ${topic}: ${where(from)}${there ? ` → ${where(there)}` : ''}`)
  }
  lines.push(
    detector === 'moved'
      ? `detection: what it learned is in ${join(data, 'detector')}`
      : 'detection: nothing learned yet',
  )
  for (const { table, rows, checksum, sent } of tables) {
    const there = sent === undefined ? '' : `; the same in ClickHouse, ${sent === rows ? 'all' : sent} of them sent now`
    lines.push(`table ${table}: ${rows} rows, checksum ${checksum}${there}`)
  }
  if (tables.length === 0) lines.push(`table: it stays in ${join(data, 'clickhouse')}`)
  lines.push(
    devices.registered === 0
      ? 'devices: none are registered'
      : `devices: ${devices.registered} with their tokens stay in ${devices.file}; ingest and api elsewhere need a copy of it (WEIR_DEVICES)`,
  )
  if (state === 'moved')
    lines.push('Start Weir with WEIR_LOG=kafka now. The log here stays as it was; remove it when you need it no more.')
  return lines.join('\n')
}
