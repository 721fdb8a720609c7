// Where consumer groups stand in Kafka, and how one whose position the topic no longer holds is set to a place that it does: by a person, who is told
// what is skipped, and only while nobody reads for the group. The brokers refuse it too, should somebody join in between.

import type { ConsumerGroup, LogTopic, Offset, Partition } from '../../domain/event-log.ts'
import { StartError } from '../../runtime/errors.ts'
import { KafkaConnection, type KafkaEndpoint } from './kafka-client.ts'
import { isRefusedLogin, reasonOf } from './kafka-errors.ts'
import { fetchCommitted, groupIdOf } from './kafka-group.ts'
import { readMarks } from './kafka-marks.ts'
import { topicName } from './kafka-topics.ts'
import { BackOff } from './kafka-wait.ts'

export interface KafkaOffsetsOptions {
  readonly endpoint: KafkaEndpoint
  readonly prefix: string
  readonly partitions: number
}

export interface PartitionOffsets {
  readonly partition: Partition
  /** The oldest chunk that is left, and just past the newest. */
  readonly oldest: Offset
  readonly end: Offset
  /** Of the next chunk to be read; undefined: the group has none, and begins at the oldest. */
  readonly committed: Offset | undefined
  /** Chunks that retention removed before they were read. */
  readonly lost: number
  /** The position is past the end: chunks were lost by Kafka, or the topic was made anew. */
  readonly isPastEnd: boolean
  /** Another chunk lies below the position than the one that was read there: the same, and the topic has outgrown the position since. */
  readonly isOtherLog: boolean
}

export interface GroupOffsets {
  readonly group: ConsumerGroup
  readonly topic: LogTopic
  /** Of Kafka's group: processes that read for it now. */
  readonly members: number
  readonly partitions: readonly PartitionOffsets[]
}

export interface OffsetReset {
  readonly partition: Partition
  readonly from: Offset | undefined
  readonly to: Offset
  /** Never read by this group: removed by retention, … */
  readonly skippedGone: number
  /** … or still there. */
  readonly skippedThere: number
  /** Read before, and read again. */
  readonly again: number
}

const triesMax = 6

export class KafkaOffsets {
  private readonly options: KafkaOffsetsOptions
  private readonly connection: KafkaConnection
  private readonly ending = new AbortController()

  constructor(options: KafkaOffsetsOptions, topics: readonly LogTopic[]) {
    this.options = options
    this.connection = new KafkaConnection(
      options.endpoint,
      topics.map((topic) => topicName(options.prefix, topic)),
    )
  }

  /** A coordinator that is still loading, or was never asked before, takes a moment. */
  async read(group: ConsumerGroup, topic: LogTopic): Promise<GroupOffsets> {
    const backOff = new BackOff(this.ending.signal)
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.readOnce(group, topic)
      } catch (error) {
        if (attempt === triesMax || this.ending.signal.aborted || isRefusedLogin(error)) throw error
        await this.connection.recover(error)
        await backOff.wait()
      }
    }
  }

  private async readOnce(group: ConsumerGroup, topic: LogTopic): Promise<GroupOffsets> {
    const { prefix, partitions: count } = this.options
    const all = Array.from({ length: count }, (_, partition) => partition)
    const [groupId, name] = [groupIdOf(prefix, group, topic), topicName(prefix, topic)]
    const broker = await this.connection.coordinator(groupId)
    const [described] = (await broker.describeGroups({ groupIds: [groupId] })).groups
    const committed = await fetchCommitted(broker, groupId, name, all)
    const first = await this.connection.offsets(name, all, 'first')
    const next = await this.connection.offsets(name, all, 'next')
    const below = new Map<Partition, Offset>()
    for (const [partition, { offset, mark }] of committed)
      if (mark !== undefined && offset > first.get(partition)! && offset <= next.get(partition)!)
        below.set(partition, offset - 1)
    const marks = await readMarks(this.connection, name, below)
    const partitions = all.map((partition): PartitionOffsets => {
      const { offset: at, mark } = committed.get(partition) ?? { offset: undefined, mark: undefined }
      const [oldest, end] = [first.get(partition)!, next.get(partition)!]
      const lost = Math.max(0, oldest - (at ?? oldest))
      const isOtherLog = marks.has(partition) && marks.get(partition) !== mark
      return { partition, oldest, end, committed: at, lost, isPastEnd: (at ?? 0) > end, isOtherLog }
    })
    return { group, topic, members: described?.members.length ?? 0, partitions }
  }

  /** Throws a StartError while somebody reads for the group. */
  async write({ group, topic }: GroupOffsets, resets: readonly OffsetReset[]): Promise<void> {
    const { prefix } = this.options
    const groupId = groupIdOf(prefix, group, topic)
    const broker = await this.connection.coordinator(groupId)
    const partitions = resets.map(({ partition, to }) => ({ partition, offset: String(to) }))
    try {
      // As nobody's member: taken only from outside of any generation, while the group is empty.
      await broker.offsetCommit({
        groupId,
        groupGenerationId: -1,
        memberId: '',
        topics: [{ topic: topicName(prefix, topic), partitions }],
      })
    } catch (error) {
      if (activeReasons.has(reasonOf(error))) throw activeError(groupId)
      throw error
    }
  }

  close(): Promise<void> {
    this.ending.abort()
    return this.connection.close()
  }
}

const activeReasons = new Set(['UNKNOWN_MEMBER_ID', 'ILLEGAL_GENERATION', 'REBALANCE_IN_PROGRESS'])

/** One that could not be reset, for a person. */
export function activeError(groupId: string, members?: number): StartError {
  const who = members === undefined ? 'somebody' : members === 1 ? 'one process' : `${members} processes`
  return new StartError(
    `${groupId} is being read by ${who}: nothing was changed. End every process with that role first (one that was killed counts until its session is over)`,
  )
}

export function isOutOfRange({ lost, isPastEnd, isOtherLog }: PartitionOffsets): boolean {
  return lost > 0 || isPastEnd || isOtherLog
}

/** What setting a partition to `to` comes to. Throws a StartError for an offset that the topic does not hold. */
export function planReset(
  { partition, oldest, end, committed, isPastEnd, isOtherLog }: PartitionOffsets,
  to: 'oldest' | 'newest' | Offset,
): OffsetReset {
  const target = to === 'oldest' ? oldest : to === 'newest' ? end : to
  if (target < oldest || target > end)
    throw new StartError(`partition ${partition} holds ${oldest} to ${end}: it can't be set to ${target}`)
  // What it had read is not what is there now.
  const stands = committed === undefined || isPastEnd || isOtherLog ? oldest : committed
  return {
    partition,
    from: committed,
    to: target,
    skippedGone: Math.max(0, oldest - stands),
    skippedThere: Math.max(0, target - Math.max(stands, oldest)),
    again: Math.max(0, Math.max(stands, oldest) - target),
  }
}
