// Appends to Kafka. Each partition is a lane: one batch of chunks on its way, the next one gathering behind it, so nothing is ever reordered;
// requests of many lanes travel at once, those to one leader together. A batch that got no answer is sent again as it was, with the same sequence
// number, for as long as it takes: a broker that has it already says so instead of storing it twice.
//
//   append ─▶ lane: pending ─▶ batch ──produce (acks=all)──▶ offsets ─▶ promises resolve
//                                ▲            │ no answer, no leader, no quorum
//                                └── wait ◀───┘

import type { LogState, LogTopic, Offset, Partition } from '../../domain/event-log.ts'
import { LimitError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { encodeMessage } from './kafka-chunk.ts'
import type { KafkaConnection } from './kafka-client.ts'
import { describeError, reasonOf } from './kafka-errors.ts'
import { encodeBatch, type KafkaCompression, type RecordToWrite } from './kafka-records.ts'
import { produce } from './kafka-requests.ts'
import { BackOff } from './kafka-wait.ts'

export interface KafkaProducerOptions {
  readonly connection: KafkaConnection
  readonly nameOf: (topic: LogTopic) => string
  readonly compression: KafkaCompression
  readonly requestTimeoutMs: number
  readonly stallMs: number
  readonly receivedAtMax: (topic: LogTopic, partition: Partition) => number
  readonly logger: Logger
  readonly onState: (state: LogState) => void
}

/** Most bytes that wait for an acknowledgement; past it an append is refused. */
export const bytesInFlightMax = 64 * 1024 * 1024
export const chunkBytesMax = 8 * 1024 * 1024
const batchBytesMax = 1024 * 1024
const stallCheckMs = 250
const closeWaitMs = 5_000

interface Append {
  readonly message: RecordToWrite
  readonly bytes: number
  readonly at: number
  readonly resolve: (offset: Offset) => void
  readonly reject: (error: Error) => void
}

/** What the brokers know us by; sequence numbers count within it. */
interface Identity {
  readonly producerId: bigint
  readonly producerEpoch: number
}

interface Lane {
  readonly topic: LogTopic
  readonly partition: Partition
  readonly name: string
  pending: Append[]
  /** Taken from `pending`; stays as it is until it is acknowledged. */
  batch: Append[] | undefined
  isSending: boolean
  identity: Identity | undefined
  sequence: number
  receivedAtMax: number
  /** After an error that names no partition, lanes go one by one until each has been answered. */
  isAlone: boolean
  batchLengthMax: number
}

const ok: LogState = { state: 'ok' }
const sequenceMax = 2 ** 31
/** What the brokers know of our sequence is gone, or is not what we think. */
const identityLost = new Set([
  'UNKNOWN_PRODUCER_ID',
  'OUT_OF_ORDER_SEQUENCE_NUMBER',
  'INVALID_PRODUCER_EPOCH',
  'INVALID_PRODUCER_ID_MAPPING',
  'DUPLICATE_SEQUENCE_NUMBER',
])
const tooLarge = new Set(['MESSAGE_TOO_LARGE', 'RECORD_LIST_TOO_LARGE'])

export class KafkaProducer {
  state: LogState = ok
  private readonly options: KafkaProducerOptions
  private readonly lanes = new Map<string, Lane>()
  private identity: Identity | undefined
  private identifying: Promise<Identity> | undefined
  private bytesInFlight = 0
  private isScheduled = false
  private isClosing = false
  private idle: (() => void)[] = []
  private lastTrouble = 'no broker has answered'
  private isTroubled = false
  private readonly ending = new AbortController()
  private readonly backOff = new BackOff(this.ending.signal)
  private readonly timer: NodeJS.Timeout

  constructor(options: KafkaProducerOptions) {
    this.options = options
    this.timer = setInterval(() => this.watchForStall(), stallCheckMs).unref()
    // Before it is needed: a broker that has just started takes a moment to give one out.
    this.identify().catch(() => {})
  }

  append(topic: LogTopic, partition: Partition, rows: Uint8Array, count: number, receivedAt: number): Promise<Offset> {
    const refused = this.refusal(rows.length)
    if (refused) return Promise.reject(refused)
    const lane = this.lane(topic, partition)
    if (receivedAt > lane.receivedAtMax) lane.receivedAtMax = receivedAt
    const message = encodeMessage(rows, count, receivedAt, lane.receivedAtMax)
    this.bytesInFlight += rows.length
    const appended = new Promise<Offset>((resolve, reject) => {
      lane.pending.push({ message, bytes: rows.length, at: performance.now(), resolve, reject })
    })
    this.schedule()
    return appended
  }

  receivedAtMax(topic: LogTopic, partition: Partition): number {
    return this.lane(topic, partition).receivedAtMax
  }

  /** Waits for what is on its way, but not for ever, and not beyond the deadline: a cluster that is away may stay away. */
  async close(deadline?: AbortSignal): Promise<void> {
    if (!this.isClosing) {
      this.isClosing = true
      if (this.bytesWaiting()) await this.untilIdle(deadline)
      this.ending.abort()
      clearInterval(this.timer)
      await this.options.connection.close()
    } else if (this.bytesWaiting()) await new Promise<void>((resolve) => this.idle.push(resolve))
  }

  private async untilIdle(deadline: AbortSignal | undefined): Promise<void> {
    const isIdle = new Promise<void>((resolve) => this.idle.push(resolve))
    const giveUp = (): void => this.giveUp()
    const timer = setTimeout(giveUp, closeWaitMs)
    deadline?.addEventListener('abort', giveUp, { once: true })
    if (deadline?.aborted) giveUp()
    await isIdle
    clearTimeout(timer)
    deadline?.removeEventListener('abort', giveUp)
  }

  private bytesWaiting(): boolean {
    return [...this.lanes.values()].some(({ batch, pending }) => batch !== undefined || pending.length > 0)
  }

  private refusal(bytes: number): Error | undefined {
    if (this.isClosing) return new RetryableError('the log is closed')
    if (this.state.state !== 'ok') return new RetryableError(this.state.reason, { retryAfterMs: 1_000 })
    if (bytes > chunkBytesMax)
      return new LimitError(
        'log-chunk-bytes',
        `a chunk of ${bytes} bytes is more than the log takes at once (${chunkBytesMax} bytes)`,
      )
    if (this.bytesInFlight + bytes > bytesInFlightMax)
      return new LimitError(
        'log-pending-bytes',
        `${bytesInFlightMax} bytes wait to be acknowledged by Kafka already: it does not keep up; try again`,
      )
    return undefined
  }

  private lane(topic: LogTopic, partition: Partition): Lane {
    const key = `${topic} ${partition}`
    let lane = this.lanes.get(key)
    if (!lane) {
      lane = {
        topic,
        partition,
        name: this.options.nameOf(topic),
        pending: [],
        batch: undefined,
        isSending: false,
        identity: undefined,
        sequence: 0,
        receivedAtMax: this.options.receivedAtMax(topic, partition),
        isAlone: false,
        batchLengthMax: Number.POSITIVE_INFINITY,
      }
      this.lanes.set(key, lane)
    }
    return lane
  }

  /** At the end of the turn, so that what came with it travels together. */
  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    setImmediate(() => {
      this.isScheduled = false
      const due = [...this.lanes.values()].filter((lane) => !lane.isSending && (lane.batch || lane.pending.length > 0))
      if (due.length === 0) return
      for (const lane of due) {
        lane.isSending = true
        lane.batch ??= takeBatch(lane)
      }
      for (const lane of due) if (lane.isAlone) void this.send([lane])
      const together = due.filter(({ isAlone }) => !isAlone)
      if (together.length > 0) void this.send(together)
    })
  }

  /** Lanes by their leaders; those whose leader is not known wait and are asked for again. */
  private async send(lanes: readonly Lane[]): Promise<void> {
    try {
      const identity = this.identity ?? (await this.identify())
      for (const lane of lanes) lane.identity ??= identity
      const requests = new Map<string, Lane[]>()
      for (const name of new Set(lanes.map((lane) => lane.name))) {
        const ofTopic = lanes.filter((lane) => lane.name === name)
        const leaders = await this.options.connection.leaders(
          name,
          ofTopic.map(({ partition }) => partition),
        )
        for (const [leader, led] of leaders)
          for (const lane of ofTopic.filter(({ partition }) => led.includes(partition))) {
            // One request carries one identity.
            const key = `${leader} ${lane.identity!.producerId}`
            const request = requests.get(key)
            if (request) request.push(lane)
            else requests.set(key, [lane])
          }
      }
      for (const [key, together] of requests) void this.sendTo(key.slice(0, key.indexOf(' ')), together)
    } catch (error) {
      await this.failed(lanes, error)
    }
  }

  private async sendTo(leader: string, lanes: readonly Lane[]): Promise<void> {
    const { connection, requestTimeoutMs, compression } = this.options
    try {
      const broker = await connection.broker(leader)
      const { producerId, producerEpoch } = lanes[0]!.identity!
      const at = Date.now()
      const names = [...new Set(lanes.map(({ name }) => name))]
      const offsets = await produce(broker, {
        timeoutMs: requestTimeoutMs,
        topics: names.map((topic) => ({
          topic,
          partitions: lanes
            .filter(({ name }) => name === topic)
            .map(({ partition, sequence: firstSequence, batch }) => {
              const records = batch!.map(({ message }) => message)
              const encoded = encodeBatch({ records, producerId, producerEpoch, firstSequence, compression, at })
              return { partition, batch: encoded }
            }),
        })),
      })
      // Given up meanwhile: nobody waits for it any more.
      if (this.ending.signal.aborted) return
      connection.succeeded()
      const unanswered: Lane[] = []
      for (const lane of lanes) {
        const first = offsets.get(`${lane.name} ${lane.partition}`)
        if (first === undefined || first < 0) unanswered.push(lane)
        else this.acknowledged(lane, first)
      }
      if (unanswered.length > 0) await this.failed(unanswered, new Error('the broker answered without an offset'))
      this.answered()
    } catch (error) {
      await this.failed(lanes, error)
    }
  }

  private acknowledged(lane: Lane, first: Offset): void {
    const batch = lane.batch!
    lane.sequence = (lane.sequence + batch.length) % sequenceMax
    lane.batch = undefined
    lane.isSending = false
    lane.isAlone = false
    for (let i = 0; i < batch.length; i++) {
      this.bytesInFlight -= batch[i]!.bytes
      batch[i]!.resolve(first + i)
    }
  }

  private answered(): void {
    if (this.isTroubled) this.options.logger.info({}, 'Kafka acknowledges again')
    this.isTroubled = false
    this.backOff.succeeded()
    this.watchForStall()
    this.goOn()
  }

  private goOn(): void {
    this.schedule()
    if (this.isClosing && !this.bytesWaiting()) for (const done of this.idle.splice(0)) done()
  }

  /** Nothing is known of these batches: they may be stored or not. Each is sent again as it was. */
  private async failed(lanes: readonly Lane[], error: unknown): Promise<void> {
    if (this.ending.signal.aborted) return
    const reason = reasonOf(error)
    this.lastTrouble = describeError(error)
    if (!this.isTroubled)
      this.options.logger.warn({ error: this.lastTrouble }, 'Kafka does not acknowledge; sending again')
    this.isTroubled = true
    const [lane] = lanes
    if (lanes.length > 1) for (const each of lanes) each.isAlone = true
    else if (identityLost.has(reason)) this.renew(lane!)
    else if (tooLarge.has(reason)) this.shrink(lane!)
    await this.options.connection.recover(error)
    await this.backOff.wait()
    for (const each of lanes) each.isSending = false
    this.goOn()
  }

  /** Sequence numbers begin anew under another identity: what was stored and not acknowledged is stored again (rows are idempotent). */
  private renew(lane: Lane): void {
    const { logger } = this.options
    logger.warn(
      { topic: lane.name, partition: lane.partition },
      'Kafka no longer knows this producer: what it stored and did not acknowledge is stored twice',
    )
    if (this.identity === lane.identity) this.identity = undefined
    lane.identity = undefined
    lane.sequence = 0
  }

  /** The topic takes less at once than we do: the same chunks in smaller batches, and one that is too large alone is refused. */
  private shrink(lane: Lane): void {
    const batch = lane.batch!
    lane.batch = undefined
    if (batch.length > 1) {
      lane.pending = [...batch, ...lane.pending]
      lane.batchLengthMax = Math.ceil(batch.length / 2)
      return
    }
    const [refused] = batch as [Append]
    this.bytesInFlight -= refused.bytes
    refused.reject(
      new LimitError(
        'log-chunk-bytes',
        `a chunk of ${refused.bytes} bytes is more than max.message.bytes of the Kafka topic ${lane.name}; \`weir topics\` says what it should be`,
      ),
    )
  }

  private identify(): Promise<Identity> {
    this.identifying ??= (async () => {
      const broker = await this.options.connection.anyBroker()
      const { producerId, producerEpoch } = await broker.initProducerId({ transactionTimeout: 60_000 })
      this.identity = { producerId: BigInt(producerId), producerEpoch }
      return this.identity
    })().finally(() => {
      this.identifying = undefined
    })
    return this.identifying
  }

  /** A cluster without a quorum gives no error for long: refuse rather than let the senders wait without a word. */
  private watchForStall(): void {
    const now = performance.now()
    let oldest: Lane | undefined
    let since = now - this.options.stallMs
    for (const lane of this.lanes.values()) {
      const at = (lane.batch ?? lane.pending)[0]?.at
      if (at === undefined || at > since) continue
      since = at
      oldest = lane
    }
    if (oldest && this.state.state === 'ok') {
      const seconds = Math.round((now - since) / 1_000)
      const reason = `Kafka has not acknowledged partition ${oldest.partition} of ${oldest.name} for ${seconds} s (${this.lastTrouble}); nothing more is taken until it does.`
      this.options.logger.error({}, reason)
      this.setState({ state: 'stalled', reason })
    } else if (!oldest && this.state.state === 'stalled') {
      this.options.logger.info({}, 'Kafka acknowledges again; the log takes appends')
      this.lastTrouble = 'no broker has answered'
      this.setState(ok)
    }
  }

  private setState(state: LogState): void {
    this.state = state
    this.options.onState(state)
  }

  private giveUp(): void {
    this.ending.abort()
    for (const lane of this.lanes.values()) {
      for (const append of [...(lane.batch ?? []), ...lane.pending])
        append.reject(new RetryableError('the log was closed before Kafka acknowledged: it may be stored or not'))
      lane.batch = undefined
      lane.pending = []
    }
    for (const done of this.idle.splice(0)) done()
  }
}

function takeBatch(lane: Lane): Append[] {
  let bytes = 0
  let length = 0
  for (const append of lane.pending) {
    if (length > 0 && (bytes + append.bytes > batchBytesMax || length >= lane.batchLengthMax)) break
    bytes += append.bytes
    length++
  }
  return lane.pending.splice(0, length)
}
