// A log into another, chunk by chunk, in order, each once. Works in two passes: the first appends what the other log has not got, and meets what an
// earlier, interrupted run left there; the second holds both against each other, chunk by chunk, and learns where each position went. What is found
// in the other log and is not from here ends it: somebody else writes there.
//
//   source ──▶ lane (one a partition) ── met: goes on ── not there: append ──▶ target
import { crc32 } from 'node:zlib'
import type { Chunk, EventLog, LogPosition, LogTopic, Offset, Partition } from '../domain/event-log.ts'
import { StartError } from '../runtime/errors.ts'
import { StoppedError } from './command.ts'
import { chunksUntil } from './compare-with-table.ts'

/** What one side holds of a topic. The checksum is over all rows, by partition and in order. */
export interface Tally {
  readonly chunks: number
  readonly readings: number
  readonly bytes: number
  readonly checksum: string
}

export interface LogMoveOptions {
  readonly source: EventLog
  readonly target: EventLog
  readonly topic: LogTopic
  /** Where the source began when the move did: what retention has taken since may be in the target all the same. */
  readonly beganAt: LogPosition
  readonly progress: (done: number, of: number) => void
  /** Ends it with a StoppedError. */
  readonly signal: AbortSignal
}

export interface Verified {
  readonly source: Tally
  readonly target: Tally
  /** Chunks that the target holds twice: sent again when an answer was lost. The table folds them. */
  readonly repeats: number
  /** Of each position asked for: the same place in the target. */
  readonly places: ReadonlyMap<Partition, ReadonlyMap<Offset, Offset>>
}

export const stoppedSentence = 'Stopped before the end: run it again, and it goes on where it stood'
/** Below what the target takes unacknowledged. */
const inFlightBytesMax = 16 * 1024 ** 2
/** A chunk that is sent again is sent within a batch of this many. */
const recentMax = 32_768
const stalledMsMax = 60_000
const lookEveryMs = 100

/** What the source holds, by itself. */
export async function tallyLog(log: EventLog, topic: LogTopic, progress: LogMoveOptions['progress']): Promise<Tally> {
  const tally = new Tallying()
  for await (const chunk of chunksUntil(log, topic, await log.end(topic), progress)) tally.add(chunk)
  return tally.result()
}

/** The first pass. Resolves, with the chunks that it appended, once they are durable. */
export async function copyLog(options: LogMoveOptions): Promise<number> {
  const { source, target, topic, progress } = options
  const lanes = await openLanes(options)
  const appending = new Appending(target, options.signal)
  let copied = 0
  try {
    for await (const chunk of chunksUntil(source, topic, await source.end(topic), progress)) {
      const lane = lanes.get(chunk.partition)!
      if (lane.isAtEnd ? false : (await lane.meet(chunk)) !== undefined) continue
      await appending.append(chunk)
      copied++
    }
    await appending.settled()
    for (const lane of lanes.values()) await lane.expectNothingMore()
    return copied
  } finally {
    for (const lane of lanes.values()) lane.close()
  }
}

/** The second pass. `wanted`: positions in the source. Throws a StartError when the target lacks something or holds something else. */
export async function verifyMovedLog(
  options: LogMoveOptions,
  wanted: ReadonlyMap<Partition, ReadonlySet<Offset>>,
): Promise<Verified> {
  const { source, topic, progress } = options
  const lanes = await openLanes(options)
  const [before, after] = [new Tallying(), new Tallying()]
  const places = new Map<Partition, Map<Offset, Offset>>([...wanted.keys()].map((partition) => [partition, new Map()]))
  const end = await source.end(topic)
  try {
    for await (const chunk of chunksUntil(source, topic, end, progress)) {
      const { partition, offset } = chunk
      before.add(chunk)
      const found = await lanes.get(partition)!.meet(chunk)
      if (!found) throw new StartError(`Chunk ${offset} of partition ${partition} of ${topic} is not in Kafka`)
      after.add(found)
      if (wanted.get(partition)?.has(offset)) places.get(partition)!.set(offset, found.offset)
    }
    for (const [partition, lane] of lanes) {
      await lane.expectNothingMore()
      for (const offset of wanted.get(partition) ?? [])
        if (offset >= (end.get(partition) ?? 0)) places.get(partition)!.set(offset, lane.end)
    }
    if (before.result().checksum !== after.result().checksum)
      throw new StartError(`${topic} in Kafka are not what the log holds: their checksums differ`)
    const repeats = [...lanes.values()].reduce((sum, lane) => sum + lane.repeats, 0)
    return { source: before.result(), target: after.result(), repeats, places }
  } finally {
    for (const lane of lanes.values()) lane.close()
  }
}

async function openLanes(options: LogMoveOptions): Promise<Map<Partition, Lane>> {
  const { source, target, topic, beganAt } = options
  const [beginning, end] = [await target.beginning(topic), await target.end(topic)]
  const now = await source.beginning(topic)
  const lanes = new Map<Partition, Lane>()
  for (let partition = 0; partition < source.partitions; partition++) {
    const mayBeOlder = (now.get(partition) ?? 0) > (beganAt.get(partition) ?? 0)
    lanes.set(partition, new Lane({ ...options, partition, beginning, end, mayBeOlder }))
  }
  return lanes
}

interface LaneOptions extends LogMoveOptions {
  readonly partition: Partition
  readonly beginning: LogPosition
  /** What is appended from now on is not looked at. */
  readonly end: LogPosition
  /** The target may begin with chunks that retention has taken from the source. */
  readonly mayBeOlder: boolean
}

/** One partition of the target, read along with the source. */
class Lane {
  repeats = 0
  readonly end: Offset
  private readonly options: LaneOptions
  private readonly stop = new AbortController()
  private readonly giveUp = (): void => this.stop.abort()
  private readonly recent = new Map<number, number>()
  private chunks: AsyncIterator<readonly Chunk[]> | undefined
  private queue: readonly Chunk[] = []
  private at = 0
  private position: Offset
  private hasMet = false

  constructor(options: LaneOptions) {
    this.options = options
    const { partition, beginning, end } = options
    this.end = end.get(partition) ?? 0
    options.signal.addEventListener('abort', this.giveUp, { once: true })
    this.position = beginning.get(partition) ?? 0
  }

  get isAtEnd(): boolean {
    return this.position >= this.end
  }

  /** The same chunk in the target; undefined when the target ends before it. */
  async meet(chunk: Chunk): Promise<Chunk | undefined> {
    for (;;) {
      const found = await this.next()
      if (!found) return undefined
      if (isSame(found, chunk)) {
        this.hasMet = true
        this.remember(found)
        return found
      }
      if (this.isRepeat(found)) this.repeats++
      else if (this.hasMet || !this.options.mayBeOlder) throw this.foreign(found)
    }
  }

  /** All that may come are repeats, or, where nothing was met, chunks that the source no longer has. */
  async expectNothingMore(): Promise<void> {
    for (let found = await this.next(); found; found = await this.next()) {
      if (this.isRepeat(found)) this.repeats++
      else if (this.hasMet || !this.options.mayBeOlder) throw this.foreign(found)
    }
  }

  close(): void {
    this.options.signal.removeEventListener('abort', this.giveUp)
    this.stop.abort()
    void this.chunks?.return?.()
  }

  private async next(): Promise<Chunk | undefined> {
    if (this.isAtEnd) return undefined
    const { target, topic, partition, end, signal } = this.options
    while (this.at === this.queue.length) {
      this.chunks ??= target
        .tail(topic, new Map([...end, [partition, this.position]]), this.stop.signal)
        [Symbol.asyncIterator]()
      const { done, value } = await this.chunks.next()
      if (done && signal.aborted) throw new StoppedError(stoppedSentence)
      if (done) throw new StartError(`Kafka gave no more of partition ${partition} of ${topic}`)
      this.queue = value.filter((each: Chunk) => each.partition === partition)
      this.at = 0
    }
    const found = this.queue[this.at++]!
    this.position = found.offset + 1
    // Appended by this run.
    return found.offset < this.end ? found : undefined
  }

  private remember({ receivedAt, rows }: Chunk): void {
    this.recent.set(receivedAt, crc32(rows))
    if (this.recent.size <= recentMax) return
    const [oldest] = this.recent.keys()
    this.recent.delete(oldest!)
  }

  private isRepeat({ receivedAt, rows }: Chunk): boolean {
    const known = this.recent.get(receivedAt)
    return known !== undefined && known === crc32(rows)
  }

  private foreign({ partition, offset, topic }: Chunk): StartError {
    return new StartError(
      `Message ${offset} in partition ${partition} of ${topic} in Kafka is not from this log: a Weir runs on Kafka already, or these topics are another's. Stop it, or choose others with WEIR_KAFKA_PREFIX.`,
    )
  }
}

/** Many appends on their way, within a bound; the order of the calls is the order in each partition. */
class Appending {
  private readonly target: EventLog
  private readonly pending = new Set<Promise<unknown>>()
  private bytes = 0
  private failure: Error | undefined
  private readonly signal: AbortSignal

  constructor(target: EventLog, signal: AbortSignal) {
    this.target = target
    this.signal = signal
  }

  async append({ topic, partition, rows, count, receivedAt }: Chunk): Promise<void> {
    while (this.bytes > 0 && this.bytes + rows.length > inFlightBytesMax) await Promise.race(this.pending)
    // Refused while what is on its way is waited for, an append would come behind later ones.
    await this.untilTaken()
    if (this.failure) throw this.failure
    this.bytes += rows.length
    const appended: Promise<void> = this.target.append(topic, partition, rows, count, receivedAt).then(
      () => this.settle(appended, rows.length),
      (error: Error) => {
        this.failure ??= error
        this.settle(appended, rows.length)
      },
    )
    this.pending.add(appended)
  }

  async settled(): Promise<void> {
    await Promise.all(this.pending)
    if (this.failure) throw this.failure
  }

  private settle(appended: Promise<void>, bytes: number): void {
    this.bytes -= bytes
    this.pending.delete(appended)
  }

  private async untilTaken(): Promise<void> {
    const since = performance.now()
    for (let state = this.target.state(); state.state !== 'ok'; state = this.target.state()) {
      if (this.signal.aborted) throw new StoppedError(stoppedSentence)
      if (performance.now() - since > stalledMsMax)
        throw new StartError(`${state.reason}. Run this again when it does: it goes on where it stood.`)
      await new Promise((go) => setTimeout(go, lookEveryMs))
    }
  }
}

class Tallying {
  private chunks = 0
  private readings = 0
  private bytes = 0
  private readonly sums: number[] = []

  add({ partition, count, rows }: Chunk): void {
    this.chunks++
    this.readings += count
    this.bytes += rows.length
    this.sums[partition] = crc32(rows, this.sums[partition] ?? 0)
  }

  result(): Tally {
    const { chunks, readings, bytes } = this
    const all = Buffer.alloc(4 * this.sums.length)
    for (const [partition, sum = 0] of this.sums.entries()) all.writeUInt32LE(sum, 4 * partition)
    return { chunks, readings, bytes, checksum: crc32(all).toString(16).padStart(8, '0') }
  }
}

function isSame(a: Chunk, b: Chunk): boolean {
  if (a.count !== b.count || a.receivedAt !== b.receivedAt || a.rows.length !== b.rows.length) return false
  return Buffer.compare(a.rows, b.rows) === 0
}
