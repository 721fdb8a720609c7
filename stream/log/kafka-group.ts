// One member of a consumer group on one topic: who reads which partition, and where the group has come to. Kafka's classic protocol, spoken here
// instead of by kafkajs, whose member resets a position that retention has passed to wherever it likes, and commits that.
//
//   join ─▶ sync: our partitions ─▶ positions ─▶ heartbeat …  (rebalance in progress, or forgotten: join again)
//
// - A partition that stays ours from one generation to the next goes on as if nothing had happened; another is dropped with what waited to be read.
// - Positions only go forward while a partition is ours; a commit for one that is not is left out, and its chunks are read again by its new owner.
// - A position is committed with a mark of what was read below it, by which whoever reads next knows another log (kafka-marks.ts).

import type {
  Chunk,
  ConsumerGroup,
  LogConsumer,
  LogPosition,
  LogTopic,
  Offset,
  Partition,
  SubscribeOptions,
} from '../../domain/event-log.ts'
import { RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import type { KafkaConnection } from './kafka-client.ts'
import { describeError, reasonOf } from './kafka-errors.ts'
import { decodeMark, encodeMark, type MarkedOffset, ReadMarks } from './kafka-marks.ts'
import type { KafkaReader } from './kafka-reader.ts'
import {
  decodeAssignment,
  decodeSubscription,
  encodeAssignment,
  encodeSubscription,
  type KafkaBroker,
} from './kafka-requests.ts'
import { BackOff, within } from './kafka-wait.ts'

export interface KafkaMemberOptions {
  readonly connection: KafkaConnection
  readonly reader: KafkaReader
  readonly group: ConsumerGroup
  /** Kafka's name of the group: each topic has a group of its own, so that one's members joining does not disturb another's. */
  readonly groupId: string
  readonly topic: LogTopic
  readonly name: string
  readonly partitions: number
  readonly sessionTimeoutMs: number
  readonly end: () => Promise<LogPosition>
  readonly startAt: NonNullable<SubscribeOptions['startAt']>
  readonly keepsIn?: string | undefined
  readonly logger: Logger
}

interface Membership {
  readonly generation: number
  readonly memberId: string
}

const protocolName = 'weir'
const heartbeatMsMax = 1_000
const leaveMsMax = 1_000
/** Then whoever commits is told to try again. */
const commitWaitMsMax = 3_000
/** How long others wait for a member that is busy or gone before they share without it. */
const rebalanceTimeoutMs = 10_000
/** We are still a member, or may be one again by the same name. */
const rejoin = new Set(['REBALANCE_IN_PROGRESS', 'ILLEGAL_GENERATION'])
/** The group has gone on without us. */
const forgotten = new Set(['UNKNOWN_MEMBER_ID', 'FENCED_INSTANCE_ID', 'MEMBER_ID_REQUIRED'])

export class KafkaMember implements LogConsumer {
  private readonly options: KafkaMemberOptions
  private membership: Membership | undefined
  private memberId = ''
  /** Where the group stands, for the partitions that are ours. */
  private readonly owned = new Map<Partition, Offset>()
  private readonly marks = new ReadMarks()
  private lastGeneration = -1
  private found: KafkaBroker | undefined
  private readonly ending = new AbortController()
  private readonly backOff = new BackOff(this.ending.signal)
  private committing: Promise<unknown> = Promise.resolve()
  private readonly waiters = new Set<() => void>()
  private interrupt: (() => void) | undefined
  private joining: Promise<void> | undefined
  /** What stands between us and the group; undefined while it answers. */
  private absence: string | undefined
  /** Why the one that leads gives us nothing. */
  private refusal: string | undefined
  private readonly living: Promise<void>
  private closing: Promise<void> | undefined

  constructor(options: KafkaMemberOptions) {
    this.options = options
    this.absence = `Waiting for Kafka to give out the partitions of ${options.name}`
    this.living = this.live()
  }

  /** Until this member has been given its partitions; a RetryableError when that takes long. Who gives up leaves nothing behind: lag() asks each second. */
  private async joined(): Promise<void> {
    const giveUpAt = performance.now() + commitWaitMsMax
    while (!this.membership && !this.ending.signal.aborted) {
      const leftMs = giveUpAt - performance.now()
      if (leftMs <= 0)
        throw new RetryableError(`joining ${this.options.groupId} took longer than ${commitWaitMsMax} ms`)
      await new Promise<void>((resolve) => {
        const go = (): void => {
          clearTimeout(timer)
          this.waiters.delete(go)
          resolve()
        }
        const timer = setTimeout(go, leftMs)
        this.waiters.add(go)
      })
    }
  }

  async read(bytesMax: number, signal: AbortSignal): Promise<readonly Chunk[]> {
    const chunks = await this.options.reader.read(bytesMax, signal)
    for (const chunk of chunks) if (chunk.offset >= (this.owned.get(chunk.partition) ?? 0)) this.marks.add(chunk)
    return chunks
  }

  commit(position: LogPosition): Promise<void> {
    const committed = this.committing.then(() => this.commitOnce(position))
    this.committing = committed.catch(() => {})
    return committed
  }

  /** Of the partitions that are ours: with other members' lags it makes the group's. */
  async lag(): Promise<number> {
    await this.joined()
    const end = await this.options.end()
    let chunks = 0
    for (const [partition, offset] of this.owned) chunks += Math.max(0, (end.get(partition) ?? 0) - offset)
    return chunks
  }

  trouble(): string | undefined {
    return this.absence ?? this.refusal ?? this.options.reader.trouble()
  }

  close(): Promise<void> {
    this.closing ??= this.closeOnce()
    return this.closing
  }

  private async closeOnce(): Promise<void> {
    const { connection, reader, groupId } = this.options
    // Not for ever: what is not committed is read again.
    await within(leaveMsMax, this.committing, 'a last commit').catch(() => {})
    this.ending.abort()
    this.interrupt?.()
    this.wakeWaiters()
    // Who asked to join is a member soon, and has to be known to be let go.
    if (this.joining) await within(leaveMsMax, this.joining, 'joining').catch(() => {})
    // Without it the others would wait for our session to end.
    const { found, memberId } = this
    if (found && memberId !== '') {
      const late = new Promise((resolve) => setTimeout(resolve, leaveMsMax).unref())
      await Promise.race([found.leaveGroup({ groupId, memberId }).catch(() => {}), late])
    }
    await Promise.all([reader.close(), connection.close()])
    // A cluster that is away may keep it for longer than a stop may take.
    await within(leaveMsMax, this.living, 'leaving').catch(() => {})
  }

  private async live(): Promise<void> {
    while (!this.ending.signal.aborted) {
      try {
        this.joining = this.join()
        await this.joining
        this.joining = undefined
        await this.stay()
      } catch (error) {
        this.joining = undefined
        if (this.ending.signal.aborted) return
        await this.troubled(error)
      }
    }
  }

  private async join(): Promise<void> {
    const { groupId, name, sessionTimeoutMs, logger } = this.options
    const broker = await this.coordinator()
    const joined = await broker.joinGroup({
      groupId,
      sessionTimeout: sessionTimeoutMs,
      rebalanceTimeout: Math.max(rebalanceTimeoutMs, sessionTimeoutMs),
      memberId: this.memberId,
      groupProtocols: [{ name: protocolName, metadata: encodeSubscription(name, this.options.keepsIn ?? '') }],
    })
    this.memberId = joined.memberId
    const { generationId: generation, memberId } = joined
    const groupAssignment =
      joined.leaderId === memberId
        ? this.share(
            new Map(joined.members.map((member) => [member.memberId, decodeSubscription(member.memberMetadata)])),
          )
        : []
    const synced = await broker.syncGroup({ groupId, generationId: generation, memberId, groupAssignment })
    const { partitions, refusal } = decodeAssignment(synced.memberAssignment, name)
    this.refused(refusal)
    await this.own(partitions, generation)
    this.lastGeneration = generation
    this.membership = { generation, memberId }
    this.absence = undefined
    this.backOff.succeeded()
    logger.info({ group: groupId, generation, partitions }, 'partitions are shared out')
    this.wakeWaiters()
  }

  /**
   * Partition by partition to one member after the other: shares differ by one at most. Who leads was there first, mostly: who keeps what it reads
   * elsewhere gets nothing.
   */
  private share(keptIn: ReadonlyMap<string, string>): { memberId: string; memberAssignment: Buffer }[] {
    const { keepsIn = '', partitions, name } = this.options
    const fits = (memberId: string): boolean => ['', keepsIn].includes(keptIn.get(memberId)!) || keepsIn === ''
    const members = [...keptIn.keys()].filter(fits).sort()
    const all = Array.from({ length: partitions }, (_, partition) => partition)
    const shares = members.map((memberId, index) => ({
      memberId,
      memberAssignment: encodeAssignment(
        name,
        all.filter((partition) => partition % members.length === index),
      ),
    }))
    const refused = [...keptIn.keys()].filter((memberId) => !fits(memberId))
    return [
      ...shares,
      ...refused.map((memberId) => ({ memberId, memberAssignment: encodeAssignment(name, [], keepsIn) })),
    ]
  }

  private refused(keptIn: string): void {
    const { groupId, keepsIn, logger } = this.options
    const before = this.refusal
    this.refusal =
      keptIn === ''
        ? undefined
        : `${groupId} is read by others that store it in ${keptIn}, and this process would store its share in ${keepsIn}: give all of them one store (WEIR_CLICKHOUSE), or end one side`
    if (this.refusal !== undefined && this.refusal !== before) logger.error({ group: groupId }, this.refusal)
  }

  private async own(partitions: readonly Partition[], generation: number): Promise<void> {
    const { reader, connection, name } = this.options
    // Between two generations in a row nobody else can have read it.
    const stay = generation === this.lastGeneration + 1 ? partitions.filter((each) => this.owned.has(each)) : []
    for (const partition of [...this.owned.keys()]) if (!stay.includes(partition)) this.disown(partition)
    const come = partitions.filter((each) => !stay.includes(each))
    if (come.length === 0) return
    const committed = await this.committedOf(come)
    this.sayKeptElsewhere(committed)
    const wanted = new Map(come.map((each) => [each, this.options.startAt(each, committed.get(each)?.offset)]))
    const starts = new Map([...wanted].filter((each): each is [Partition, Offset] => typeof each[1] === 'number'))
    const fresh = come.filter((each) => !committed.has(each) || wanted.get(each) === 'beginning')
    const first = fresh.length > 0 ? await connection.offsets(name, fresh, 'first') : new Map<Partition, Offset>()
    for (const [partition, offset] of first) {
      if (wanted.get(partition) === 'beginning') starts.set(partition, offset)
      else if (offset > 0 && !committed.has(partition)) this.sayUnread(partition, offset)
    }
    for (const partition of come) {
      const { offset, mark } = committed.get(partition) ?? { offset: first.get(partition), mark: undefined }
      if (offset === undefined)
        throw new RetryableError(`Kafka does not say where partition ${partition} of ${name} begins`)
      this.owned.set(partition, offset)
      const start = starts.get(partition) ?? offset
      if (start === first.get(partition)) reader.assign(partition, start)
      else reader.assign(partition, start, { mark: start === offset ? mark : undefined })
    }
  }

  /** Never read by the group, or its position has been forgotten (offsets.retention.minutes): nobody knows which of them were read. */
  private sayUnread(partition: Partition, oldest: Offset): void {
    const { groupId: group, name, logger } = this.options
    logger.error(
      { group, topic: name, partition, oldest },
      'the group has no position in a partition whose first chunks are gone: those of them that it had not read are lost to it',
    )
  }

  /** The others of the group are told apart as they join; whoever was here before only by what it left. It may be meant: a store was moved. */
  private sayKeptElsewhere(committed: ReadonlyMap<Partition, MarkedOffset>): void {
    const { group, groupId, topic, keepsIn, logger } = this.options
    if (keepsIn === undefined) return
    const elsewhere = [...committed].filter(([, { keptIn = keepsIn }]) => keptIn !== keepsIn)
    const [first] = elsewhere
    if (first === undefined) return
    const [partition, { keptIn }] = first
    logger.warn(
      { group: groupId, partitions: elsewhere.map(([each]) => each) },
      `${groupId} was stored in ${keptIn} so far, and goes on into ${keepsIn}: what came before is in the former only, unless it was carried over (\`weir offsets reset ${group} --topic ${topic} --partition ${partition} --to oldest\` stores again what Kafka still holds of one)`,
    )
  }

  private disown(partition: Partition): void {
    this.owned.delete(partition)
    this.options.reader.release(partition)
  }

  private async committedOf(partitions: readonly Partition[]): Promise<Map<Partition, MarkedOffset>> {
    const broker = await this.coordinator()
    return fetchCommitted(broker, this.options.groupId, this.options.name, partitions)
  }

  /** Heartbeats until something is wrong, which is thrown. */
  private async stay(): Promise<void> {
    const { groupId, sessionTimeoutMs } = this.options
    const everyMs = Math.min(heartbeatMsMax, sessionTimeoutMs / 6)
    while (!this.ending.signal.aborted && this.membership) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, everyMs)
        this.interrupt = () => {
          clearTimeout(timer)
          resolve()
        }
      })
      if (this.ending.signal.aborted || !this.membership) return
      const { generation, memberId } = this.membership
      try {
        const broker = await this.coordinator()
        await broker.heartbeat({ groupId, groupGenerationId: generation, memberId })
        this.options.connection.succeeded()
        this.absence = undefined
        if (this.backOff.succeeded()) this.options.logger.info({ group: groupId }, 'the group answers again')
      } catch (error) {
        if (rejoin.has(reasonOf(error)) || forgotten.has(reasonOf(error))) throw error
        // The coordinator is away or has moved: the group may still know us.
        await this.troubled(error)
      }
    }
  }

  private async troubled(error: unknown): Promise<void> {
    if (this.ending.signal.aborted) return
    const { logger, groupId, connection } = this.options
    const reason = reasonOf(error)
    if (forgotten.has(reason)) {
      logger.warn({ group: groupId, reason }, 'the group has gone on without this member; joining again')
      this.memberId = ''
      for (const partition of [...this.owned.keys()]) this.disown(partition)
      this.membership = undefined
      return
    }
    if (rejoin.has(reason)) {
      this.membership = undefined
      return
    }
    // Also a coordinator that is still loading: no error, it takes a moment after a start.
    if (this.backOff.isFirst)
      logger.warn({ group: groupId, error: describeError(error) }, 'the group does not answer; trying again')
    this.absence = `Kafka does not answer for the group ${groupId} (${describeError(error)}); trying again`
    this.found = undefined
    await connection.recover(error)
    await this.backOff.wait()
  }

  private async coordinator(): Promise<KafkaBroker> {
    this.found ??= await this.options.connection.coordinator(this.options.groupId)
    return this.found
  }

  private async commitOnce(position: LogPosition): Promise<void> {
    const { groupId, name, logger } = this.options
    for (;;) {
      await this.joined()
      if (this.ending.signal.aborted) throw new RetryableError('the log is closed')
      const { generation, memberId } = this.membership!
      const due = [...position].filter(
        ([partition, offset]) => offset > (this.owned.get(partition) ?? Number.POSITIVE_INFINITY),
      )
      if (due.length === 0) {
        const lost = [...position.keys()].filter((partition) => !this.owned.has(partition))
        if (lost.length > 0)
          logger.debug({ group: groupId, partitions: lost }, 'not committed: others own these partitions')
        return
      }
      try {
        const broker = await within(commitWaitMsMax, this.coordinator(), `finding who leads ${groupId}`)
        const answer = broker.offsetCommit({
          groupId,
          groupGenerationId: generation,
          memberId,
          topics: [{ topic: name, partitions: due.map(([partition, offset]) => this.marked(partition, offset)) }],
        })
        await within(commitWaitMsMax, answer, `a commit of ${groupId}`)
        for (const [partition, offset] of due) {
          if (this.owned.has(partition)) this.owned.set(partition, offset)
          this.marks.forget(partition, offset)
        }
        return
      } catch (error) {
        const reason = reasonOf(error)
        if (!rejoin.has(reason) && !forgotten.has(reason)) {
          this.found = undefined
          throw new RetryableError(`Kafka did not take a position of ${groupId}: ${describeError(error)}`, {
            cause: error,
          })
        }
        // What is still ours in the next generation is committed then.
        if (this.membership?.generation === generation) this.membership = undefined
        this.interrupt?.()
      }
    }
  }

  private marked(partition: Partition, offset: Offset): { partition: number; offset: string; metadata?: string } {
    const mark = this.marks.below(partition, offset)
    return {
      partition,
      offset: String(offset),
      ...(mark !== undefined && { metadata: encodeMark(mark, this.options.keepsIn) }),
    }
  }

  private wakeWaiters(): void {
    for (const go of [...this.waiters]) go()
  }
}

/** Kafka's name of a group: each topic has a group of its own. */
export function groupIdOf(prefix: string, group: ConsumerGroup, topic: LogTopic): string {
  return `${prefix}${group}.${topic}`
}

export async function fetchCommitted(
  broker: KafkaBroker,
  groupId: string,
  name: string,
  partitions: readonly Partition[],
): Promise<Map<Partition, MarkedOffset>> {
  const topics = [{ topic: name, partitions: partitions.map((partition) => ({ partition })) }]
  const { responses } = await broker.offsetFetch({ groupId, topics })
  const found = responses.flatMap((response) => response.partitions)
  return new Map(
    found
      .filter(({ offset }) => Number(offset) >= 0)
      .map(({ partition, offset, metadata }) => [
        partition,
        { offset: Number(offset), mark: undefined, ...decodeMark(metadata) },
      ]),
  )
}
