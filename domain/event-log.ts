// The port to the durable log, and the only one that Weir has: embedded segment files and Apache Kafka stand behind it.
// Each comment is a promise that `stream/log/event-log.contract.ts` holds both adapters to.

export type LogTopic = 'readings' | 'anomalies' | 'dead-letters'
export type Partition = number
/** The number of a chunk within its topic and partition, from 0, without holes. */
export type Offset = number
export type ConsumerGroup = string

/** One record of the log: rows of many readings, one partition. `rows` stays valid for as long as it is held. */
export interface Chunk {
  readonly topic: LogTopic
  readonly partition: Partition
  readonly offset: Offset
  /** Rows inside. */
  readonly count: number
  /** The last row's receivedAt, in microseconds. */
  readonly receivedAt: number
  readonly rows: Uint8Array
}

/** For each partition the offset of the next chunk to read. A partition that is missing stands at its beginning. */
export type LogPosition = ReadonlyMap<Partition, Offset>

/** Anything other than `ok` means that appends are refused (or, where the log is only read, that nothing comes); `reason` is a sentence for an operator. */
export type LogState =
  | { readonly state: 'ok' }
  | { readonly state: 'full'; readonly reason: string }
  | { readonly state: 'stalled'; readonly reason: string }
  | { readonly state: 'failed'; readonly reason: string }

export interface EventLog {
  readonly partitions: number
  /**
   * Several processes may append to one partition at a time, each with its own clock: receivedAt need not rise with the offset there. Where only one
   * can, it does.
   */
  readonly hasManyAppenders: boolean

  /**
   * Resolves, with the chunk's offset, once the chunk is durable (synced, or acks=all); appends made without a pause share
   * one commit. `rows` belongs to the log until then. Appends to one partition keep the order of the calls.
   * Rejects with a LimitError at the quota (nothing was kept; try again later), with a RetryableError while the log is away,
   * with a LogFailedError when what is on disk can't be known (fail-stop: the log takes no more until it is opened again).
   */
  append(topic: LogTopic, partition: Partition, rows: Uint8Array, count: number, receivedAt: number): Promise<Offset>

  /**
   * Reads for a group from where it last committed, or from the beginning. What was read and not committed is read again by the next one. Does not
   * wait for a log that is away: reads do, and `trouble()` says why.
   */
  subscribe(group: ConsumerGroup, topic: LogTopic, options?: SubscribeOptions): Promise<LogConsumer>

  /**
   * Chunks from `from` on (`'end'`: only what comes), in order within each partition, for ever, until the signal. No group, nothing
   * committed. Throws an OffsetOutOfRangeError when retention has already passed `from`: never skips silently.
   */
  tail(topic: LogTopic, from: LogPosition | 'end', signal: AbortSignal): AsyncIterable<readonly Chunk[]>

  /** Where a group has committed. */
  committed(group: ConsumerGroup, topic: LogTopic): Promise<LogPosition>

  /** The oldest chunk of each partition that retention has left; its end, where it has left none. */
  beginning(topic: LogTopic): Promise<LogPosition>

  /** Just past the last durable chunk of each partition. */
  end(topic: LogTopic): Promise<LogPosition>

  /** For who appends: the highest receivedAt that a partition holds as far as it knows, or 0; a new appender goes on above it. */
  receivedAtMax(topic: LogTopic, partition: Partition): number

  /** What `receivedAtMax` is now, asked of the log itself, also by those who only read it. Partitions that hold nothing are left out. */
  newest(topic: LogTopic): Promise<ReadonlyMap<Partition, number>>

  /** Bytes on disk that count against the quota; undefined where they are not this process' to know. */
  bytesOnDisk(): number | undefined

  state(): LogState
  /** Called on each change of `state()`. */
  onState(listener: (state: LogState) => void): void

  /**
   * Waits for appends under way; later appends are refused. What another machine holds is not waited for beyond `deadline`: such an append rejects, and
   * may be kept or not.
   */
  close(deadline?: AbortSignal): Promise<void>
}

export interface SubscribeOptions {
  /**
   * Where to begin with a partition that becomes ours, for whoever keeps more than the group's position (`committed`; undefined: it has none).
   * Asked each time that a partition comes.
   */
  readonly startAt?: (partition: Partition, committed: Offset | undefined) => Offset | 'beginning' | 'committed'
  /**
   * Where what is read is kept. A member that keeps it elsewhere than the one that leads the group is given no partition, and `trouble()` says so:
   * else each would keep a share of its own. Undefined: it does not matter.
   */
  readonly keepsIn?: string | undefined
}

export interface LogConsumer {
  /**
   * The next chunks, contiguous within each partition, at most about `bytesMax` (one chunk at least). Waits until there is one.
   * An empty array means that the signal ended the wait.
   */
  read(bytesMax: number, signal: AbortSignal): Promise<readonly Chunk[]>
  /**
   * Everything read before `position` is done with; a partition that is missing stays where it is. Atomic: after a crash the group stands at the old or
   * the new position.
   */
  commit(position: LogPosition): Promise<void>
  /** Chunks that are durable and not committed. */
  lag(): Promise<number>
  /** Why nothing comes and no commit is taken, as a sentence for an operator; undefined while all is well. */
  trouble(): string | undefined
  close(): Promise<void>
}

/** The same function for every adapter, so that moving between them changes no device's partition: FNV-1a over tenant, NUL, device. */
export function partitionOf(tenant: string, device: string, partitions: number): Partition {
  let hash = 0x811c9dc5
  const key = `${tenant}\0${device}`
  for (let i = 0; i < key.length; i++) {
    // Names are ASCII (domain/reading.ts); a char code is its byte.
    hash = Math.imul(hash ^ key.charCodeAt(i), 0x01000193)
  }
  return (hash >>> 0) % partitions
}

/** The position just past these chunks, given the one before them. */
export function positionAfter(chunks: readonly Chunk[], before: LogPosition = new Map()): LogPosition {
  const after = new Map(before)
  for (const chunk of chunks) after.set(chunk.partition, chunk.offset + 1)
  return after
}
