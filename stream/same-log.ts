// Whether a position kept outside of the log is of the log that is there now. Offsets alone do not tell: a log that was begun anew, or put back from a
// copy, may have grown past the position. The chunk before it tells: its receivedAt is never given twice.
import type { EventLog, LogTopic, Offset, Partition } from '../domain/event-log.ts'
import { RetryableError } from '../runtime/errors.ts'
import { linkSignals } from '../runtime/linked-signal.ts'

/** A chunk that was read. */
export interface ChunkPlace {
  readonly partition: Partition
  readonly offset: Offset
  readonly receivedAt: number
}

/** A partition without a leader gives no answer; then, as where retention has taken the chunk, nothing speaks against it. */
const answerMsMax = 5_000

/** False only when another chunk lies there. Throws a RetryableError while the log is away. */
export async function isOfThisLog(
  log: EventLog,
  topic: LogTopic,
  { partition, offset, receivedAt }: ChunkPlace,
  stop: AbortSignal,
): Promise<boolean> {
  const asking = linkSignals([stop], answerMsMax)
  try {
    const end = await log.end(topic)
    const oldest = (await log.beginning(topic)).get(partition) ?? 0
    if (offset < oldest || offset >= (end.get(partition) ?? 0)) return true
    // The others from their ends: one that has been silent for long would have the whole log read.
    for await (const chunks of log.tail(topic, new Map(end).set(partition, offset), asking.signal)) {
      const found = chunks.find((chunk) => chunk.partition === partition)
      if (found) return found.offset !== offset || found.receivedAt === receivedAt
    }
    return true
  } catch (error) {
    if (error instanceof RetryableError) throw error
    // What is wrong there is said by whoever reads on.
    return true
  } finally {
    asking.release()
  }
}
