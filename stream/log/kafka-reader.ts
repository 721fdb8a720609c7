// Reads partitions of one topic from given offsets on, for a tail and for a member of a group. A fetch a leader at a time, all of its partitions in
// one; a partition whose queue is full is left out until it has been read. Nothing is skipped: an offset that retention has passed, or a hole,
// ends the reader with an OffsetOutOfRangeError once what came before it has been read. So does another log in the place of the one that was read (a
// topic made anew, a disk that was lost) which has outgrown the offset: where there may be one (at the start, after trouble, after a long pause) a
// fetch begins one chunk earlier, and what lies there is compared with what was read there.
//
//   leaders ──fetch──▶ queue of each partition ──read()──▶ chunks
//      ▲                     │ full? left out
//      └─────────────────────┘

import { setTimeout as delay } from 'node:timers/promises'
import type { Chunk, ConsumerGroup, LogTopic, Offset, Partition } from '../../domain/event-log.ts'
import { LogDamagedError, OffsetOutOfRangeError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { decodeMessage, receivedAtOf } from './kafka-chunk.ts'
import type { KafkaConnection } from './kafka-client.ts'
import { describeError, isOutOfRange } from './kafka-errors.ts'
import { decodeBatches, type ReadRecord } from './kafka-records.ts'
import { fetchBatches } from './kafka-requests.ts'
import { BackOff, within } from './kafka-wait.ts'

export interface KafkaReaderOptions {
  readonly connection: KafkaConnection
  /** Kafka's name of the topic. */
  readonly name: string
  readonly topic: LogTopic
  /** That it reads for. */
  readonly group?: ConsumerGroup | undefined
  /** A partition is fetched while fewer bytes than this wait to be read. */
  readonly queueBytes: number
  readonly fetchBytes: number
  /**
   * After an answer of few bytes the next question waits for so long, so that under load one answer carries many chunks: a fetch costs the broker and
   * us more than what is in it. A chunk that comes after a silence is given at once.
   */
  readonly lingerMs: number
  /** A partition that was not fetched for longer may have become another one: who fetches all the time is told when a topic goes. */
  readonly sureMs: number
  readonly logger: Logger
}

interface Assigned {
  readonly partition: Partition
  /** Of the next chunk to fetch. */
  next: Offset
  /** receivedAt of the chunk below `next`, as far as it is known. */
  mark: number | undefined
  /** Another log may lie there by now. */
  isUnsure: boolean
  /** By the monotonic clock. */
  answeredAt: number
  queue: Chunk[]
  /** The first of `queue` that was not read yet. */
  head: number
  bytes: number
  isFetching: boolean
}

const waitMsMax = 250
const smallBytes = 256 * 1024
/** While a partition is left out, others are not waited for long. */
const waitMsWhileFull = 20
const closeMsMax = 1_000

export class KafkaReader {
  private readonly options: KafkaReaderOptions
  private readonly assigned = new Map<Partition, Assigned>()
  private readonly busy = new Set<string>()
  private readonly ending = new AbortController()
  private readonly sleepers = new Set<() => void>()
  private readonly pumping: Promise<void>
  /** Something changed that may let a fetch begin. */
  private isPumpDue = true
  private resumePump: (() => void) | undefined
  private failure: Error | undefined
  private lastTrouble: string | undefined
  private first = 0

  constructor(options: KafkaReaderOptions) {
    this.options = options
    this.pumping = this.pump()
  }

  /** `below`: what was read there, to be compared first; where that is not known, it is found out what lies there now. */
  assign(partition: Partition, next: Offset, below?: { readonly mark: number | undefined }): void {
    this.assigned.set(partition, {
      partition,
      next,
      mark: below?.mark,
      isUnsure: below !== undefined && next > 0,
      answeredAt: performance.now(),
      queue: [],
      head: 0,
      bytes: 0,
      isFetching: false,
    })
    this.wakePump()
  }

  /** What waited to be read is dropped, and so is what is on its way. */
  release(partition: Partition): void {
    this.assigned.delete(partition)
  }

  async read(bytesMax: number, signal: AbortSignal): Promise<readonly Chunk[]> {
    while (!signal.aborted) {
      const chunks = this.take(bytesMax)
      if (chunks.length > 0) return chunks
      if (this.failure) throw this.failure
      if (this.ending.signal.aborted) return []
      await this.changed(signal)
    }
    return []
  }

  /** Why nothing can be read now. */
  trouble(): string | undefined {
    return this.failure?.message ?? this.lastTrouble
  }

  fail(error: Error): void {
    this.failure ??= error
    this.ending.abort()
    this.wakePump()
    this.wake()
  }

  async close(): Promise<void> {
    this.ending.abort()
    this.wakePump()
    this.wake()
    await this.options.connection.close()
    // A cluster that is away may keep it for longer than a stop may take.
    await within(closeMsMax, this.pumping, 'closing a reader').catch(() => {})
  }

  private take(bytesMax: number): Chunk[] {
    const chunks: Chunk[] = []
    let bytes = 0
    const all = [...this.assigned.values()]
    // A partition that is always full does not starve the others.
    this.first++
    for (let i = 0; i < all.length; i++) {
      const each = all[(this.first + i) % all.length]!
      const wasFull = this.isFull(each)
      while (each.head < each.queue.length) {
        const chunk = each.queue[each.head]!
        if (chunks.length > 0 && bytes + chunk.rows.length > bytesMax) break
        each.head++
        each.bytes -= chunk.rows.length
        bytes += chunk.rows.length
        chunks.push(chunk)
      }
      if (each.head === each.queue.length) {
        each.queue = []
        each.head = 0
      }
      if (wasFull && !this.isFull(each)) this.wakePump()
    }
    return chunks
  }

  private isFull({ bytes }: Assigned): boolean {
    return bytes >= this.options.queueBytes
  }

  /** Until something comes, something fails, or the signal ends the wait. */
  private changed(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const go = (): void => {
        signal.removeEventListener('abort', go)
        this.sleepers.delete(go)
        resolve()
      }
      signal.addEventListener('abort', go, { once: true })
      this.sleepers.add(go)
    })
  }

  private wake(): void {
    for (const go of [...this.sleepers]) go()
  }

  private wakePump(): void {
    this.isPumpDue = true
    this.resumePump?.()
  }

  private async pump(): Promise<void> {
    const { connection, name, logger } = this.options
    const backOff = new BackOff(this.ending.signal)
    while (!this.ending.signal.aborted) {
      this.isPumpDue = false
      try {
        const wanted = [...this.assigned.values()].filter((each) => !each.isFetching && !this.isFull(each))
        const leaders =
          wanted.length === 0
            ? []
            : await connection.leaders(
                name,
                wanted.map(({ partition }) => partition),
              )
        for (const [leader, partitions] of leaders) {
          // A request that waits at this leader comes back soon, and takes the others along then.
          if (this.busy.has(leader)) continue
          void this.fetch(
            leader,
            wanted.filter(({ partition }) => partitions.includes(partition)),
            backOff,
          )
        }
      } catch (error) {
        const idle = [...this.assigned.values()].filter(({ isFetching }) => !isFetching)
        await this.troubled(error, backOff, idle)
        this.isPumpDue = true
      }
      if (!this.isPumpDue && !this.ending.signal.aborted)
        await new Promise<void>((resolve) => {
          this.resumePump = resolve
        })
    }
    logger.debug({ topic: name }, 'a reader of Kafka ended')
  }

  private async fetch(leader: string, wanted: readonly Assigned[], backOff: BackOff): Promise<void> {
    const { connection, name, fetchBytes, lingerMs, logger } = this.options
    this.busy.add(leader)
    for (const each of wanted) each.isFetching = true
    try {
      const broker = await connection.broker(leader)
      const isSomeFull = [...this.assigned.values()].some((each) => this.isFull(each))
      const starts = new Map(wanted.map((each) => [each.partition, this.startOf(each)]))
      const fetched = await fetchBatches(broker, {
        topic: name,
        partitions: [...starts].map(([partition, from]) => ({ partition, from })),
        partitionBytesMax: fetchBytes,
        waitMsMax: isSomeFull ? waitMsWhileFull : waitMsMax,
      })
      connection.succeeded()
      this.lastTrouble = undefined
      if (backOff.succeeded()) logger.info({ topic: name }, 'reading from Kafka goes on')
      let bytes = 0
      for (const [partition, batches] of fetched) {
        const each = wanted.find((one) => one.partition === partition)
        // Released meanwhile, and perhaps assigned again elsewhere.
        if (each && this.assigned.get(partition) === each) bytes += this.add(each, batches, starts.get(partition)!)
      }
      // Nothing lies below: the end may have come to lie before the place.
      for (const each of wanted)
        if (each.isUnsure && !this.failure && this.assigned.get(each.partition) === each)
          await this.isGone(each.partition)
      if (bytes > 0 && bytes < smallBytes)
        await delay(lingerMs, undefined, { signal: this.ending.signal }).catch(() => {})
    } catch (error) {
      if (!this.ending.signal.aborted) await this.troubled(error, backOff, wanted)
    } finally {
      this.busy.delete(leader)
      for (const each of wanted) each.isFetching = false
      this.wakePump()
    }
  }

  private startOf(each: Assigned): Offset {
    if (performance.now() - each.answeredAt > this.options.sureMs) doubt(each)
    return each.isUnsure ? each.next - 1 : each.next
  }

  /** Returns the bytes that came. */
  private add(each: Assigned, batches: Buffer, from: Offset): number {
    const { topic, name } = this.options
    const before = each.queue.length
    let bytes = 0
    each.answeredAt = performance.now()
    try {
      // A batch is given as a whole, also when it is asked for from its middle.
      for (const record of decodeBatches(batches, from, `partition ${each.partition} of ${name}`)) {
        const { offset } = record
        if (offset < each.next) {
          this.compare(each, record)
          continue
        }
        if (offset > each.next)
          throw new OffsetOutOfRangeError(
            `chunks ${each.next} to ${offset - 1} in partition ${each.partition} of ${name} are gone`,
          )
        const chunk = decodeMessage(topic, each.partition, record)
        each.queue.push(chunk)
        each.bytes += chunk.rows.length
        bytes += chunk.rows.length
        each.next = offset + 1
        each.mark = chunk.receivedAt
      }
    } catch (error) {
      if (each.isUnsure && error instanceof LogDamagedError) this.giveUpComparing(each, error)
      else this.alarm(error as Error)
    }
    if (each.queue.length > before) this.wake()
    return bytes
  }

  private compare(each: Assigned, record: ReadRecord): void {
    const { name, group } = this.options
    const found = receivedAtOf(record)
    each.isUnsure = false
    // Not known, and not from Weir: a person has set the group past it.
    if (each.mark === undefined) each.mark = found
    else if (each.mark !== found) {
      const { partition, next } = each
      const hint = group === undefined ? '' : `; \`weir offsets reset ${group}\` has it read from its oldest chunk`
      throw new OffsetOutOfRangeError(
        `chunk ${record.offset} in partition ${partition} of ${name} is not the one that was read there: the topic was made anew, or Kafka has lost chunks, and what lies before ${next} now was not all read${hint}`,
        { otherLogIn: partition },
      )
    }
  }

  /** What was read before is not what is to be read: damage there, the next fetch says. */
  private giveUpComparing(each: Assigned, { message }: Error): void {
    each.isUnsure = false
    this.options.logger.warn(
      { topic: this.options.name, partition: each.partition, error: message },
      'what was read last can not be read again: whether the log is still the same is not known',
    )
  }

  private async troubled(error: unknown, backOff: BackOff, concerned: readonly Assigned[]): Promise<void> {
    const { connection, name, logger } = this.options
    const partition = isOutOfRange(error)
    if (partition !== undefined && (await this.isGone(partition))) return
    for (const each of concerned) doubt(each)
    if (backOff.isFirst)
      logger.warn({ topic: name, error: describeError(error) }, 'Kafka can not be read; trying again')
    this.lastTrouble = `Kafka can't be read (${name}: ${describeError(error)}); trying again`
    await connection.recover(error)
    await backOff.wait()
  }

  /** Asks the broker itself: an answer of a leader that knows less than the one before is no loss. */
  private async isGone(partition: Partition): Promise<boolean> {
    const { connection, name } = this.options
    const each = this.assigned.get(partition)
    if (!each) return true
    try {
      const [first, next] = await Promise.all([
        connection.offsets(name, [partition], 'first'),
        connection.offsets(name, [partition], 'next'),
      ])
      const [oldest, end] = [first.get(partition)!, next.get(partition)!]
      if (each.next >= oldest && each.next <= end) {
        // Retention has come up to the place, and no further: nothing is missing, and nothing there speaks of another log.
        const isUpTo = each.isUnsure && each.next === oldest
        if (isUpTo) each.isUnsure = false
        return isUpTo
      }
      const where = `chunk ${each.next} in partition ${partition} of ${name}`
      this.alarm(
        new OffsetOutOfRangeError(
          each.next < oldest
            ? `${where} was removed before it was read: the oldest that is left is ${oldest}, ${oldest - each.next} are lost to this reader`
            : `${where} is past the end (${end}): Kafka has lost chunks, or the topic was made anew`,
        ),
      )
      return true
    } catch {
      return false
    }
  }

  private alarm(error: Error): void {
    if (this.failure) return
    this.options.logger.error({ topic: this.options.name, error: error.message }, 'reading from Kafka stops')
    this.fail(error)
  }
}

/** Nothing lies below the beginning, and nothing is compared with what is not known. */
function doubt(each: Assigned): void {
  if (each.mark !== undefined && each.next > 0) each.isUnsure = true
}
