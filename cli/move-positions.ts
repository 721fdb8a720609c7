// Where the groups of a log stand, and where that is in the log that it was moved to.
import { setTimeout as pause } from 'node:timers/promises'
import type {
  ConsumerGroup,
  EventLog,
  LogConsumer,
  LogPosition,
  LogTopic,
  Offset,
  Partition,
} from '../domain/event-log.ts'
import type { Config } from '../runtime/config.ts'
import { RetryableError, StartError } from '../runtime/errors.ts'
import { logTopics } from '../stream/log/frame-format.ts'
import { listGroups, readCommitted } from '../stream/log/group-offsets.ts'
import { logDirectory } from '../stream/log/open-log.ts'
import { StoppedError } from './command.ts'
import { stoppedSentence } from './move-log.ts'

const commitMsMax = 60_000
const commitAgainMs = 500

export async function groupsOf(
  config: Config,
): Promise<{ readonly group: ConsumerGroup; readonly topic: LogTopic; readonly position: LogPosition }[]> {
  const directory = logDirectory(config)
  const found: { group: ConsumerGroup; topic: LogTopic; position: LogPosition }[] = []
  for (const group of await listGroups(directory)) {
    for (const topic of logTopics) {
      const position = await readCommitted(directory, group, topic)
      if (position) found.push({ group, topic, position })
    }
  }
  return found
}

export function wantedOf(positions: readonly LogPosition[]): Map<Partition, Set<Offset>> {
  const wanted = new Map<Partition, Set<Offset>>()
  for (const position of positions) {
    for (const [partition, offset] of position) {
      const offsets = wanted.get(partition) ?? new Set()
      wanted.set(partition, offsets.add(offset))
    }
  }
  return wanted
}

/** What stood before the oldest chunk that is left stands at the beginning there. */
export function translated(
  position: LogPosition,
  places: ReadonlyMap<Partition, ReadonlyMap<Offset, Offset>>,
): Map<Partition, Offset> {
  const there = new Map<Partition, Offset>()
  for (const [partition, offset] of position) {
    const place = places.get(partition)?.get(offset)
    if (place !== undefined) there.set(partition, place)
  }
  return there
}

/** A group is where the move left it, or further, or it is said. */
export async function commitMoved(
  target: EventLog,
  group: ConsumerGroup,
  topic: LogTopic,
  position: LogPosition,
  stop: AbortSignal,
): Promise<void> {
  const member = await target.subscribe(group, topic)
  try {
    await commitPatiently(member, position, group, stop)
  } finally {
    await member.close()
  }
  const committed = await target.committed(group, topic)
  const beginning = await target.beginning(topic)
  for (const [partition, offset] of position) {
    const stands = committed.get(partition) ?? beginning.get(partition) ?? 0
    if (stands < offset)
      throw new StartError(
        `The group ${group} stands at ${stands} in partition ${partition} of ${topic} in Kafka, not at ${offset}: a Weir runs on Kafka already. Stop it, and run this again.`,
      )
  }
}

/** A group whose coordinator has just begun takes its time. */
async function commitPatiently(
  member: LogConsumer,
  position: LogPosition,
  group: ConsumerGroup,
  stop: AbortSignal,
): Promise<void> {
  const giveUpAt = performance.now() + commitMsMax
  for (;;) {
    try {
      return await member.commit(position)
    } catch (error) {
      if (!(error instanceof RetryableError)) throw error
      if (stop.aborted) throw new StoppedError(stoppedSentence)
      if (performance.now() > giveUpAt)
        throw new StartError(
          `Kafka does not take the position of the group ${group}: ${error.message}. Run this again: it goes on where it stood.`,
        )
      await pause(commitAgainMs, undefined, { signal: stop }).catch(() => {})
    }
  }
}
