// A chunk as a Kafka message and back: the rows are the value, as they are, so that ClickHouse can read the topic on its own; what else belongs to
// a chunk stands in headers, as text, so that Kafka's own tools can show it. There is no key: we choose the partition.

import type { Chunk, LogTopic, Partition } from '../../domain/event-log.ts'
import { rowFormatVersion } from '../../domain/row-format.ts'
import { LogDamagedError } from '../../runtime/errors.ts'
import type { ReadRecord, RecordToWrite } from './kafka-records.ts'

const headers = {
  format: 'weir-format',
  count: 'weir-count',
  receivedAt: 'weir-received-at',
  /** The highest receivedAt of the partition so far: whoever opens the log next reads only the last message. */
  receivedAtMax: 'weir-received-at-max',
} as const
const format = String(rowFormatVersion)

export function encodeMessage(
  rows: Uint8Array,
  count: number,
  receivedAt: number,
  receivedAtMax: number,
): RecordToWrite {
  return {
    value: rows,
    headers: {
      [headers.format]: format,
      [headers.count]: String(count),
      [headers.receivedAt]: String(receivedAt),
      [headers.receivedAtMax]: String(receivedAtMax),
    },
  }
}

/**
 * Throws a LogDamagedError when the message is not a chunk of ours: somebody else writes to our topic. A person has to act, and what does not read
 * this topic goes on meanwhile.
 */
export function decodeMessage(
  topic: LogTopic,
  partition: Partition,
  { offset, value, headers: given }: ReadRecord,
): Chunk {
  const found = given[headers.format]?.toString()
  if (found !== format || value === null) {
    const place = `partition ${partition} of ${topic}`
    const isOther = found !== undefined && found !== format
    const what = isOther ? `of row format ${found}, and this version reads ${format}` : 'not from Weir'
    throw new LogDamagedError(place, offset, `message ${offset} in ${place} is ${what}`)
  }
  return {
    topic,
    partition,
    offset,
    count: Number(given[headers.count]),
    receivedAt: Number(given[headers.receivedAt]),
    rows: value,
  }
}

/** Undefined for a message that is not from Weir. */
export function receivedAtOf({ headers: given }: ReadRecord): number | undefined {
  const found = given[headers.receivedAt]
  return found && Number(found)
}

export function receivedAtMaxOf({ headers: given }: ReadRecord): number {
  return Number(given[headers.receivedAtMax] ?? 0)
}
