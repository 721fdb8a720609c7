// What is written beside an embedded log that is being moved elsewhere, or was: `move.json` in its directory. It makes a move that was interrupted go on
// where it stood, and a log that was moved refuse to go on here as if nothing had happened.

import { promises as fs } from 'node:fs'
import * as path from 'node:path'
import type { LogPosition, LogTopic } from '../../domain/event-log.ts'
import { StartError } from '../../runtime/errors.ts'
import { isMissing, systemFiles, writeAll } from './log-files.ts'

export interface MoveRecord {
  readonly version: 1
  readonly state: 'begun' | 'done'
  /** The log that it goes to: cluster and prefix. */
  readonly to: string
  /** Where the log began when the move did: what was before is not in the other log. */
  readonly beganAt: Readonly<Partial<Record<LogTopic, Readonly<Record<string, number>>>>>
  readonly at: string
  /** What the move said in the end. */
  readonly report?: unknown
}

function recordFile(directory: string): string {
  return path.join(directory, 'move.json')
}

export async function readMoveRecord(directory: string): Promise<MoveRecord | undefined> {
  const file = recordFile(directory)
  try {
    return JSON.parse(await fs.readFile(file, 'utf8')) as MoveRecord
  } catch (error) {
    if (isMissing(error)) return undefined
    throw new StartError(`${file} can't be read: ${(error as Error).message}`)
  }
}

/** Whole or not at all, and on disk when it resolves. */
export async function writeMoveRecord(directory: string, record: MoveRecord): Promise<void> {
  const file = recordFile(directory)
  const text = Buffer.from(`${JSON.stringify(record, null, 2)}\n`)
  const descriptor = await systemFiles.open(`${file}.new`, 'w+')
  try {
    await writeAll(systemFiles, descriptor, text, text.length, 0)
    await systemFiles.fsync(descriptor)
  } finally {
    await systemFiles.close(descriptor)
  }
  await systemFiles.rename(`${file}.new`, file)
  await systemFiles.syncDirectory(directory)
}

/** Throws a StartError for a log that was moved: readings taken in here would not be where the others are. */
export async function refuseMovedLog(directory: string): Promise<void> {
  const record = await readMoveRecord(directory)
  if (record?.state !== 'done') return
  throw new StartError(
    `The log in ${directory} was moved to ${record.to} at ${record.at}: set WEIR_LOG=kafka and WEIR_KAFKA_BROKERS. To go on here all the same, without what came there since, remove ${recordFile(directory)}.`,
  )
}

export function positionOf(record: MoveRecord, topic: LogTopic): LogPosition {
  return new Map(Object.entries(record.beganAt[topic] ?? {}).map(([partition, offset]) => [Number(partition), offset]))
}
