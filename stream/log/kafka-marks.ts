// The mark beside a group's position in Kafka: receivedAt of the chunk below it. An offset alone does not tell a topic that was made anew, or a
// partition that has lost chunks, from what was read: it may have outgrown the position. The chunk below tells: its receivedAt is given once.

import type { Chunk, Offset, Partition } from '../../domain/event-log.ts'
import { LogDamagedError } from '../../runtime/errors.ts'
import { receivedAtOf } from './kafka-chunk.ts'
import type { KafkaConnection } from './kafka-client.ts'
import { decodeBatches, type ReadRecord } from './kafka-records.ts'
import { fetchBatches } from './kafka-requests.ts'

/** A committed position: `mark` is undefined where it carries none (a person set it, or an older version). */
export interface MarkedOffset {
  readonly offset: Offset
  readonly mark: number | undefined
  /** Where whoever committed it keeps what it read, as far as it says so. */
  readonly keptIn?: string | undefined
}

/** Kafka takes 4,096 bytes beside a position. */
const keptInLengthMax = 1_000

/** As the metadata of Kafka's OffsetCommit. */
export function encodeMark(receivedAt: number, keepsIn?: string): string {
  return keepsIn === undefined ? `r1 ${receivedAt}` : `r1 ${receivedAt} in ${keepsIn.slice(0, keptInLengthMax)}`
}

/** Undefined for what others wrote there. */
export function decodeMark(metadata: string | null): { readonly mark?: number; readonly keptIn?: string } {
  const [, mark, keptIn] = /^r1 (\d{1,16})(?: in (.+))?$/s.exec(metadata ?? '') ?? []
  return { ...(mark !== undefined && { mark: Number(mark) }), ...(keptIn !== undefined && { keptIn }) }
}

/** More of a partition are not remembered: a reader that commits so rarely leaves positions without a mark. */
export const marksMax = 131_072

/** receivedAt of chunks that were read and not committed: a number each, of each partition a run without holes. */
export class ReadMarks {
  private readonly runs = new Map<Partition, { first: Offset; readonly marks: number[] }>()

  add({ partition, offset, receivedAt }: Chunk): void {
    const run = this.runs.get(partition)
    const at = run ? offset - run.first : -1
    // Read from elsewhere: what is remembered ends here.
    if (!run || at < 0 || at > run.marks.length) {
      this.runs.set(partition, { first: offset, marks: [receivedAt] })
      return
    }
    run.marks[at] = receivedAt
    if (run.marks.length > marksMax) this.forget(partition, run.first + marksMax / 2)
  }

  /** Of the chunk below this offset. */
  below(partition: Partition, offset: Offset): number | undefined {
    const run = this.runs.get(partition)
    const mark = run?.marks[offset - 1 - run.first]
    return mark !== undefined && Number.isSafeInteger(mark) && mark >= 0 ? mark : undefined
  }

  /** All below this offset. */
  forget(partition: Partition, offset: Offset): void {
    const run = this.runs.get(partition)
    if (!run || offset <= run.first) return
    run.first += run.marks.splice(0, offset - run.first).length
  }
}

const markBytesMax = 64 * 1024

/** What lies at these places now: undefined for a message of somebody else's. Those where nothing can be read (gone, damaged) are left out. */
export async function readMarks(
  connection: KafkaConnection,
  name: string,
  places: ReadonlyMap<Partition, Offset>,
): Promise<Map<Partition, number | undefined>> {
  const found = new Map<Partition, number | undefined>()
  const leaders = places.size > 0 ? await connection.leaders(name, [...places.keys()]) : []
  for (const [leader, led] of leaders) {
    const broker = await connection.broker(leader)
    for (const partition of led) {
      const from = places.get(partition)!
      const wanted = { topic: name, partitions: [{ partition, from }], partitionBytesMax: markBytesMax, waitMsMax: 100 }
      const batches = (await fetchBatches(broker, wanted)).get(partition)
      const record = batches && recordAt(batches, from)
      if (record) found.set(partition, receivedAtOf(record))
    }
  }
  return found
}

function recordAt(batches: Buffer, offset: Offset): ReadRecord | undefined {
  try {
    return decodeBatches(batches, offset, 'a partition').find((each) => each.offset === offset)
  } catch (error) {
    if (error instanceof LogDamagedError) return undefined
    throw error
  }
}
