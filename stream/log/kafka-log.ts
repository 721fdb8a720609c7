// The durable log on Apache Kafka: a topic of Kafka's for each of ours, a chunk a message, acknowledged by all brokers in sync (acks=all). Any number
// of processes append and read. What Kafka does itself (retention, quotas, disks) is its operator's; docs/decisions/0010-kafka.md says what we do
// and why little of the client library is used for it.

import { setTimeout as delay } from 'node:timers/promises'
import type {
  Chunk,
  ConsumerGroup,
  EventLog,
  LogConsumer,
  LogPosition,
  LogState,
  LogTopic,
  Offset,
  Partition,
  SubscribeOptions,
} from '../../domain/event-log.ts'
import { RetryableError, StartError } from '../../runtime/errors.ts'
import { linkSignals } from '../../runtime/linked-signal.ts'
import type { Logger } from '../../runtime/logger.ts'
import { logTopics } from './frame-format.ts'
import { KafkaConnection, type KafkaEndpoint } from './kafka-client.ts'
import { describeError } from './kafka-errors.ts'
import { fetchCommitted, groupIdOf, KafkaMember } from './kafka-group.ts'
import { KafkaProducer } from './kafka-producer.ts'
import { KafkaReader } from './kafka-reader.ts'
import type { KafkaCompression } from './kafka-records.ts'
import { readNewest, untilAnswered, untilTopicsAreThere } from './kafka-start.ts'
import { topicName } from './kafka-topics.ts'
import { BackOff, within } from './kafka-wait.ts'

export interface KafkaLogOptions {
  readonly endpoint: KafkaEndpoint
  /** Before the names of topics and groups. */
  readonly prefix: string
  readonly mode: 'append' | 'read'
  readonly partitions: number
  readonly retentionMs: number
  readonly compression: KafkaCompression
  /** A reader of a group that is silent for so long has its partitions given to others. */
  readonly sessionTimeoutMs: number
  readonly logger: Logger
  /** Ends the wait for a cluster that is away. */
  readonly signal?: AbortSignal | undefined
  /** Of the wait for a cluster when it is opened for appending; after it the log is there, stalled until the cluster is. */
  readonly patienceMs?: number
  readonly stallMs?: number
  /** A reader fetches a partition ahead while fewer bytes than this wait to be read. */
  readonly queueBytes?: number
  readonly fetchBytes?: number
  /** A reader that has not fetched a partition for so long asks whether it is still the same. */
  readonly sureMs?: number
  /** Of topics that are made now, beside ours. */
  readonly topicSettings?: Readonly<Record<string, string>>
}

const patienceMsDefault = 3_000
const slowShare = 5
/** After somebody had to change something. */
const openAgainMs = 5_000
const stallMsDefault = 5_000
const queueBytesDefault = 8 * 1024 * 1024
const fetchBytesDefault = 1024 * 1024
const sureMsDefault = 5_000
const tailBytesMax = 1024 * 1024
/** Live viewers wait for it; a batch for the table gathers for 250 ms anyway. */
const tailLingerMs = 10
const groupLingerMs = 50
const askTriesMax = 3
const askMsMax = 10_000
const ok: LogState = { state: 'ok' }

/**
 * In `append` mode makes missing topics, and throws a StartError for topics that Weir can't run on. A cluster that is away is waited for a moment;
 * then the log is given all the same: it refuses appends, says why, and goes on by itself. In `read` mode returns at once; reads wait for the
 * cluster and the topics to come.
 */
export async function openKafkaLog(options: KafkaLogOptions): Promise<EventLog> {
  if (options.mode === 'read') return new KafkaLog(options)
  const log = new KafkaLog(options)
  const opened = log.open()
  const { patienceMs = patienceMsDefault } = options
  const began = performance.now()
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve, reject) => {
    const look = (): void => {
      // One that is frozen answers nothing that could be ended.
      if (options.signal?.aborted) reject(new StartError('Stopped before Kafka was there'))
      const waitedMs = performance.now() - began
      // A cluster that is there and slow may still say that it can't work.
      if (waitedMs >= patienceMs * (log.isAway ? 1 : slowShare)) resolve()
      else timer = setTimeout(look, patienceMs / 10)
    }
    look()
  })
  try {
    await Promise.race([opened, late])
    // Nobody hears an error that comes later: what is wrong stands in the log's state until it is mended.
    opened.catch(() => log.openAgain())
    return log
  } catch (error) {
    await log.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

class KafkaLog implements EventLog {
  readonly partitions: number
  readonly hasManyAppenders = true
  private readonly options: KafkaLogOptions
  /** As it was when the log was opened for appending. */
  private readonly foundReceivedAtMax = new Map<string, number>()
  private producer: KafkaProducer | undefined
  /** Of a log for appending, until it has a producer. */
  private opening: LogState = ok
  private refusal: string | undefined
  /** It was asked, and did not answer. */
  isAway = false
  /** For questions that are answered at once. */
  private readonly asking: KafkaConnection
  private readonly all: readonly Partition[]
  private readonly held = new Set<{ trouble(): string | undefined; close(): Promise<void> }>()
  private readonly listeners: ((state: LogState) => void)[] = []
  private readonly ending = new AbortController()
  private closing: Promise<void> | undefined

  constructor(options: KafkaLogOptions) {
    this.options = options
    this.partitions = options.partitions
    this.all = Array.from({ length: options.partitions }, (_, partition) => partition)
    this.asking = this.connect(logTopics)
  }

  /** Resolves once appends are taken; rejects with a StartError when that will never be, which `state()` says too. */
  async open(): Promise<void> {
    if (this.opening.state === 'ok') this.awaitAnswer()
    const { signal } = this.options
    const stop = linkSignals([this.ending.signal, ...(signal ? [signal] : [])])
    try {
      const onAway = (cause: string): void => {
        this.isAway = true
        if (this.opening.state === 'stalled') this.awaitAnswer(cause)
      }
      await untilTopicsAreThere(this.options, stop.signal, onAway)
      await untilAnswered(this.options, stop.signal, onAway, () => this.readReceivedAtMax())
    } catch (error) {
      if (!stop.signal.aborted) this.refuse(error as Error)
      throw error
    } finally {
      stop.release()
    }
    if (this.ending.signal.aborted) return
    this.producer = this.createProducer()
    this.tellState(ok)
  }

  private awaitAnswer(cause?: string): void {
    const brokers = this.options.endpoint.brokers.join(', ')
    const why = cause === undefined ? '' : ` (${cause})`
    const reason = `Kafka at ${brokers} has not answered yet${why}; nothing is taken until it does.`
    this.opening = { state: 'stalled', reason }
  }

  async openAgain(): Promise<void> {
    while (!this.ending.signal.aborted && !this.producer) {
      await delay(openAgainMs, undefined, { signal: this.ending.signal }).catch(() => {})
      await this.open().catch(() => {})
    }
  }

  append(topic: LogTopic, partition: Partition, rows: Uint8Array, count: number, receivedAt: number): Promise<Offset> {
    const { state } = this.opening
    if (!this.producer)
      return Promise.reject(
        new RetryableError(
          state === 'ok' ? 'this process reads the log and does not append to it' : this.opening.reason,
        ),
      )
    if (!(Number.isInteger(partition) && partition >= 0 && partition < this.partitions))
      return Promise.reject(new RangeError(`there is no partition ${partition}: the log has ${this.partitions}`))
    return this.producer.append(topic, partition, rows, count, receivedAt)
  }

  /** Joins the group meanwhile: the first read waits for the cluster, and for a coordinator that is still loading. */
  async subscribe(
    group: ConsumerGroup,
    topic: LogTopic,
    { startAt, keepsIn }: SubscribeOptions = {},
  ): Promise<LogConsumer> {
    const { sessionTimeoutMs, logger } = this.options
    const member = new KafkaMember({
      connection: this.connect([topic]),
      reader: this.openReader(topic, groupLingerMs, group),
      group,
      groupId: this.groupId(group, topic),
      topic,
      name: this.nameOf(topic),
      partitions: this.partitions,
      sessionTimeoutMs,
      end: () => this.end(topic),
      startAt: startAt ?? (() => 'committed'),
      keepsIn,
      logger,
    })
    this.held.add(member)
    return {
      read: (bytesMax, signal) => member.read(bytesMax, signal),
      commit: (position) => member.commit(position),
      lag: () => member.lag(),
      trouble: () => member.trouble(),
      close: () => {
        this.held.delete(member)
        return member.close()
      },
    }
  }

  tail(topic: LogTopic, from: LogPosition | 'end', signal: AbortSignal): AsyncIterable<readonly Chunk[]> {
    // The end is asked for now, not when the first chunk is.
    const start = from === 'end' ? this.endPatiently(topic, signal) : this.filledUp(topic, from, signal)
    start.catch(() => {})
    return this.follow(topic, start, signal)
  }

  async committed(group: ConsumerGroup, topic: LogTopic): Promise<LogPosition> {
    const groupId = this.groupId(group, topic)
    return this.ask(async () => {
      const broker = await this.asking.coordinator(groupId)
      const found = await fetchCommitted(broker, groupId, this.nameOf(topic), this.all)
      return new Map([...found].map(([partition, { offset }]) => [partition, offset]))
    })
  }

  async beginning(topic: LogTopic): Promise<LogPosition> {
    return sorted(await this.ask(() => this.asking.offsets(this.nameOf(topic), this.all, 'first')))
  }

  async end(topic: LogTopic): Promise<LogPosition> {
    return sorted(await this.ask(() => this.asking.offsets(this.nameOf(topic), this.all, 'next')))
  }

  receivedAtMax(topic: LogTopic, partition: Partition): number {
    return this.producer?.receivedAtMax(topic, partition) ?? 0
  }

  async newest(topic: LogTopic): Promise<ReadonlyMap<Partition, number>> {
    return this.ask(() => readNewest(this.asking, this.nameOf(topic), this.all))
  }

  /** The brokers' to watch. */
  bytesOnDisk(): undefined {}

  state(): LogState {
    if (this.producer || this.options.mode === 'append') return this.producer?.state ?? this.opening
    for (const each of this.held) {
      const reason = each.trouble()
      if (reason !== undefined) return { state: 'stalled', reason }
    }
    return ok
  }

  onState(listener: (state: LogState) => void): void {
    this.listeners.push(listener)
  }

  close(deadline?: AbortSignal): Promise<void> {
    this.closing ??= this.closeOnce(deadline)
    return this.closing
  }

  private async readReceivedAtMax(): Promise<void> {
    try {
      for (const topic of logTopics)
        for (const [partition, receivedAt] of await readNewest(this.asking, this.nameOf(topic), this.all))
          this.foundReceivedAtMax.set(`${topic} ${partition}`, receivedAt)
    } catch (error) {
      await this.asking.recover(error)
      throw error
    }
  }

  private createProducer(): KafkaProducer {
    const { logger, compression, endpoint, stallMs = stallMsDefault } = this.options
    return new KafkaProducer({
      connection: this.connect(logTopics),
      nameOf: (topic) => this.nameOf(topic),
      compression,
      requestTimeoutMs: endpoint.requestTimeoutMs,
      stallMs,
      receivedAtMax: (topic, partition) => this.foundReceivedAtMax.get(`${topic} ${partition}`) ?? 0,
      logger,
      onState: (state) => this.tellState(state),
    })
  }

  /** Somebody has to change something: a topic, a password. */
  private refuse({ message }: Error): void {
    if (message !== this.refusal) this.options.logger.error({}, message)
    this.refusal = message
    this.opening = { state: 'failed', reason: message }
    this.tellState(this.opening)
  }

  private tellState(state: LogState): void {
    for (const listener of this.listeners) listener(state)
  }

  /** All at once: each may wait for a cluster that is away, and together they have what a stop may take. */
  private async closeOnce(deadline: AbortSignal | undefined): Promise<void> {
    this.ending.abort()
    const held = [...this.held].map((each) => each.close())
    await Promise.all([this.producer?.close(deadline), ...held, this.asking.close()])
  }

  private async *follow(
    topic: LogTopic,
    start: Promise<LogPosition>,
    signal: AbortSignal,
  ): AsyncGenerator<readonly Chunk[]> {
    const either = linkSignals([signal, this.ending.signal])
    let reader: KafkaReader | undefined
    try {
      const from = await Promise.race([start, aborted(either.signal)])
      if (!from) return
      reader = this.openReader(topic, tailLingerMs)
      this.held.add(reader)
      for (const partition of this.all) reader.assign(partition, from.get(partition) ?? 0)
      while (!either.signal.aborted) {
        const chunks = await reader.read(tailBytesMax, either.signal)
        if (chunks.length > 0) yield chunks
      }
    } finally {
      either.release()
      if (reader) this.held.delete(reader)
      await reader?.close()
    }
  }

  /** Partitions that are missing stand at their beginning. */
  private async filledUp(topic: LogTopic, from: LogPosition, signal: AbortSignal): Promise<LogPosition> {
    const missing = this.all.filter((partition) => !from.has(partition))
    if (missing.length === 0) return from
    const first = await this.patiently(signal, () => this.asking.offsets(this.nameOf(topic), missing, 'first'))
    return new Map([...first, ...from])
  }

  private endPatiently(topic: LogTopic, signal: AbortSignal): Promise<LogPosition> {
    return this.patiently(signal, () => this.asking.offsets(this.nameOf(topic), this.all, 'next'))
  }

  private async patiently<Answer>(signal: AbortSignal, ask: () => Promise<Answer>): Promise<Answer> {
    const either = linkSignals([signal, this.ending.signal])
    const backOff = new BackOff(either.signal)
    try {
      for (;;) {
        try {
          return await ask()
        } catch (error) {
          if (either.signal.aborted) throw error
          await this.asking.recover(error)
          await backOff.wait()
        }
      }
    } finally {
      either.release()
    }
  }

  /** Who asks for a figure does not wait for ever: a broker that is frozen breaks no connection. */
  private ask<Answer>(question: () => Promise<Answer>): Promise<Answer> {
    const what = `an answer of Kafka at ${this.options.endpoint.brokers.join(', ')}`
    return within(askMsMax, this.askAgain(question), what)
  }

  /** A few tries. */
  private async askAgain<Answer>(question: () => Promise<Answer>): Promise<Answer> {
    const backOff = new BackOff(this.ending.signal)
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await question()
        this.asking.succeeded()
        return answer
      } catch (error) {
        if (attempt === askTriesMax || this.ending.signal.aborted)
          throw new RetryableError(`Kafka does not answer: ${describeError(error)}`, { cause: error })
        await this.asking.recover(error)
        await backOff.wait()
      }
    }
  }

  private openReader(topic: LogTopic, lingerMs: number, group?: ConsumerGroup): KafkaReader {
    const { queueBytes = queueBytesDefault, fetchBytes = fetchBytesDefault, logger } = this.options
    const { sureMs = sureMsDefault } = this.options
    return new KafkaReader({
      connection: this.connect([topic]),
      name: this.nameOf(topic),
      topic,
      group,
      queueBytes,
      fetchBytes,
      lingerMs,
      sureMs,
      logger,
    })
  }

  private connect(topics: readonly LogTopic[]): KafkaConnection {
    return new KafkaConnection(
      this.options.endpoint,
      topics.map((topic) => this.nameOf(topic)),
    )
  }

  private nameOf(topic: LogTopic): string {
    return topicName(this.options.prefix, topic)
  }

  private groupId(group: ConsumerGroup, topic: LogTopic): string {
    return groupIdOf(this.options.prefix, group, topic)
  }
}

function aborted(signal: AbortSignal): Promise<undefined> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve(undefined)
    signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
}

function sorted(position: ReadonlyMap<Partition, Offset>): LogPosition {
  return new Map([...position].sort(([a], [b]) => a - b))
}
