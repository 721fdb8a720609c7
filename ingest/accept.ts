// The last step before durability: a payload is decoded, checked, stamped and encoded as rows, once, into the cycle that is being gathered, and
// acknowledged by whoever brought it once that cycle is durable (group commit: what arrives during one commit makes the next).
//
//   accept ──▶ gathering cycle ──(log idle: at the end of the turn)──▶ log.append per partition ──▶ durableCycle, listeners

import { crc32 } from 'node:zlib'
import { deadLetterId, encodeDeadLetter } from '../domain/dead-letter.ts'
import { type EventLog, partitionOf } from '../domain/event-log.ts'
import type { Rejection, RejectReason } from '../domain/outcome.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health } from '../runtime/service.ts'
import { Cycle } from './accept-cycle.ts'
import type { Codec, CodecName } from './codecs/codec.ts'
import { codecs, findCodec } from './codecs/index.ts'
import { type AcceptTotals, CycleCommitter } from './cycle-committer.ts'
import { PayloadSink, rejectionsMax } from './payload-sink.ts'
import { ResendWindow } from './resend-window.ts'
import { type SeriesCache, SeriesCaches } from './series-cache.ts'

export type { CodecName } from './codecs/codec.ts'
export type { AcceptTotals } from './cycle-committer.ts'

/** Everything that is the same for all payloads of one device by one codec; made once, kept by the connection's topic cache. */
export interface AcceptRoute {
  readonly tenant: string
  readonly device: string
  /** One that we have, or what was asked for: its payloads become dead letters (`unsupported-codec`). */
  readonly codec: CodecName | string
  /** Where it came in: an MQTT topic, or a route. Seen in dead letters. */
  readonly origin: string
  readonly partition: number
}

export interface Accepter {
  route(tenant: string, device: string, codec: CodecName | string, origin: string): AcceptRoute
  /**
   * Decodes bytes[start, end) and writes its readings, or its dead letter, into the cycle that is being gathered. Synchronous; never throws for bad
   * input; keeps nothing of `bytes`. Returns the number of the cycle that makes it durable: acknowledge once `durableCycle` has reached it.
   */
  accept(route: AcceptRoute, bytes: Buffer, start: number, end: number): number
  /**
   * As `accept`, for a QoS 1 publish: one of a device without a clock that was sent before (DUP flag, client id, topic, packet id and payload) is
   * not written again; the number is the cycle of the first.
   */
  acceptResendable(
    route: AcceptRoute,
    bytes: Buffer,
    start: number,
    end: number,
    clientId: string,
    packetId: number,
    dup: boolean,
  ): number
  /** Readings that the last call wrote, refused, and the id of its (first) dead letter; '' when it has none. */
  readonly lastAccepted: number
  readonly lastDeadLettered: number
  readonly lastDeadLetterId: string
  /** Why the last call refused the first of what it refused; '' when it refused nothing. */
  readonly lastReason: RejectReason | ''
  /** Every cycle up to this one is durable. */
  readonly durableCycle: number
  /** `bring` is called before a cycle goes to the log, and at the end of a turn for which something is expected: what it accepts goes with it. */
  beforeCommit(bring: () => void): void
  /** Something was gathered in this turn that `bring` will accept. */
  expect(): void
  /** Called once per durable cycle, after `durableCycle` moved. */
  onDurable(listener: (durableCycle: number) => void): void
  /** Bytes of rows and dead letters that are not durable yet. */
  readonly pendingBytes: number
  totals(): AcceptTotals
  health(): Health
  /** Resolves once everything accepted so far is durable, or when the deadline has come. */
  drain(deadline: AbortSignal): Promise<void>
  /** Lets go of timers; what is not durable then was never acknowledged. */
  close(): Promise<void>
}

export interface AccepterOptions {
  readonly log: EventLog
  readonly clock: Clock
  readonly logger: Logger
  readonly instruments: Instruments
}

export function createAccepter(options: AccepterOptions): Accepter {
  return new LogAccepter(options)
}

interface Route extends AcceptRoute {
  readonly decoder: Codec | undefined
  readonly series: SeriesCache
  /** What the check of a resend begins with: the same bytes on another topic are another message. */
  readonly originCrc: number
}

/** An unknown codec's name comes from outside: kept up to here. */
const codecNameLengthMax = 64
/** Copies of one payload kept in its dead letters, together; one is always kept. */
const copiesBytesMax = 256 * 1024

class LogAccepter implements Accepter {
  private readonly log: EventLog
  private readonly clock: Clock
  private readonly sink = new PayloadSink()
  private readonly seriesCaches = new SeriesCaches()
  private readonly resends = new ResendWindow()
  private readonly committer: CycleCommitter
  /** The last receivedAt of each partition; rows are stamped above it. */
  private readonly receivedAtLast: Float64Array
  /** The first receivedAt stamped in each partition while the log did not tell how far it had come; undefined: it has told. */
  private firstUnsure: Float64Array | undefined
  /** One for all partitions, since ids are made of it. */
  private deadLetterAtLast = 0
  private now = 0
  private isTurnOpen = false
  private readonly resent: ReturnType<Instruments['counter']>
  lastAccepted = 0
  lastDeadLettered = 0
  lastDeadLetterId = ''

  constructor({ log, clock, logger, instruments }: AccepterOptions) {
    this.log = log
    this.clock = clock
    this.receivedAtLast = new Float64Array(log.partitions)
    this.firstUnsure = log.state().state === 'ok' ? undefined : new Float64Array(log.partitions)
    this.goOnAbove()
    // One that was away when we started tells only now what it holds.
    log.onState(({ state }) => {
      if (state === 'ok') this.raiseUnsure()
      this.goOnAbove()
    })
    this.committer = new CycleCommitter({
      log,
      clock,
      logger,
      instruments,
      cycles: [new Cycle(log.partitions), new Cycle(log.partitions)],
    })
    instruments.gauge('weir_ingest_series_cache_bytes', 'Bytes held for names of series', () => this.seriesCaches.bytes)
    instruments.gauge('weir_ingest_resend_window_bytes', 'Bytes held to recognise resends', () => this.resends.bytes)
    this.resent = instruments.counter('weir_ingest_resends_total', 'Resent publishes that were not written again')
  }

  private goOnAbove(): void {
    const { log, receivedAtLast } = this
    for (let partition = 0; partition < log.partitions; partition++) {
      receivedAtLast[partition] = Math.max(receivedAtLast[partition]!, log.receivedAtMax('readings', partition))
      this.deadLetterAtLast = Math.max(this.deadLetterAtLast, log.receivedAtMax('dead-letters', partition))
    }
  }

  /**
   * The log has told how far it had come: what was accepted before, and it has not taken yet, goes above that. By a clock that was set back
   * meanwhile a correction would else be older than what it corrects, and the table would keep the old value.
   */
  private raiseUnsure(): void {
    const { log, receivedAtLast, firstUnsure } = this
    this.firstUnsure = undefined
    for (const [partition, first] of firstUnsure?.entries() ?? []) {
      const micros = log.receivedAtMax('readings', partition) + 1 - first
      if (first === 0 || micros <= 0) continue
      this.committer.raiseReceivedAt(partition, micros)
      receivedAtLast[partition]! += micros
    }
  }

  route(tenant: string, device: string, codec: CodecName | string, origin: string): AcceptRoute {
    const decoder = findCodec(codec)
    const route: Route = {
      tenant,
      device,
      codec: decoder?.name ?? codec.slice(0, codecNameLengthMax),
      origin,
      partition: partitionOf(tenant, device, this.log.partitions),
      decoder,
      series: this.seriesCaches.of(tenant, device),
      originCrc: crc32(origin),
    }
    return route
  }

  accept(route: AcceptRoute, bytes: Buffer, start: number, end: number): number {
    if (!this.isTurnOpen) this.openTurn()
    const { sink } = this
    const { decoder, series, partition } = route as Route
    const cycle = this.committer.gathering
    const writer = cycle.rows[partition]!.writable()
    const last = this.receivedAtLast[partition]!
    sink.open(series, writer, this.now > last ? this.now : last + 1, this.now)
    if (decoder === undefined || start >= end) this.refuseWhole(route, start >= end)
    else decoder.decode(bytes, start, end, sink)
    sink.finish()
    const { accepted } = sink
    if (accepted > 0) {
      if (this.firstUnsure?.[partition] === 0) this.firstUnsure[partition] = sink.receivedAtNext - accepted
      this.receivedAtLast[partition] = sink.receivedAtNext - 1
      cycle.readings += accepted
      cycle.bytes += sink.writtenBytes
    }
    cycle.payloads++
    this.lastAccepted = accepted
    this.lastDeadLettered = sink.rejected
    if (sink.rejected > 0) this.keepDeadLetters(route, cycle, bytes.subarray(start, end))
    else this.lastDeadLetterId = ''
    return this.committer.touched(this.now)
  }

  acceptResendable(
    route: AcceptRoute,
    bytes: Buffer,
    start: number,
    end: number,
    clientId: string,
    packetId: number,
    dup: boolean,
  ): number {
    const { originCrc } = route as Route
    let crc = -1
    if (dup) {
      crc = crc32(bytes.subarray(start, end), originCrc)
      const cycle = this.resends.find(clientId, packetId, crc, end - start)
      if (cycle >= 0) {
        this.resent.inc()
        this.lastAccepted = 0
        this.lastDeadLettered = 0
        this.lastDeadLetterId = ''
        return cycle
      }
    }
    const cycle = this.accept(route, bytes, start, end)
    // A dead letter has no clock either: sent again, it would be kept twice.
    if (this.sink.clockless || this.sink.rejected > 0) {
      if (crc < 0) crc = crc32(bytes.subarray(start, end), originCrc)
      this.resends.remember(clientId, packetId, crc, end - start, cycle, this.now)
    }
    return cycle
  }

  get lastReason(): RejectReason | '' {
    return this.lastDeadLettered > 0 ? this.sink.rejections[0]!.reason : ''
  }

  get durableCycle(): number {
    return this.committer.durableCycle
  }

  beforeCommit(bring: () => void): void {
    this.committer.beforeCommit(bring)
  }

  expect(): void {
    this.committer.expect()
  }

  onDurable(listener: (durableCycle: number) => void): void {
    this.committer.onDurable(listener)
  }

  get pendingBytes(): number {
    return this.committer.pendingBytes
  }

  totals(): AcceptTotals {
    return this.committer.totals()
  }

  health(): Health {
    return this.committer.health()
  }

  drain(deadline: AbortSignal): Promise<void> {
    return this.committer.drain(deadline)
  }

  close(): Promise<void> {
    return this.committer.close()
  }

  /** The clock is asked once a turn of the event loop: a turn's payloads came in one read of the sockets. */
  private openTurn(): void {
    this.isTurnOpen = true
    this.now = this.clock.nowMicros()
    setImmediate(this.closeTurn)
  }

  private readonly closeTurn = (): void => {
    this.isTurnOpen = false
  }

  private refuseWhole(route: AcceptRoute, isEmpty: boolean): void {
    if (isEmpty) {
      this.sink.reject('empty-payload', 'the payload has no bytes')
      return
    }
    const known = codecs.map(({ name }) => name).join(', ')
    this.sink.reject('unsupported-codec', `no codec is called ${JSON.stringify(route.codec)}; there are ${known}`)
  }

  /** The payload is copied: its bytes are the socket's. */
  private keepDeadLetters(route: AcceptRoute, cycle: Cycle, payload: Buffer): void {
    const { rejections, rejectionCounts, rejected } = this.sink
    const crc = crc32(payload)
    const kept = Math.max(1, Math.min(rejections.length, rejectionsMax, Math.floor(copiesBytesMax / payload.length)))
    const chunks = cycle.deadLetters[route.partition]!
    this.lastDeadLetterId = ''
    let told = 0
    for (let i = 0; i < kept; i++) {
      const rejection = rejections[i]!
      told += rejectionCounts[i]!
      const untold = i === kept - 1 ? rejected - told : 0
      const id = this.keepDeadLetter(route, chunks.writable(), rejection, untold, crc, payload)
      if (i === 0) this.lastDeadLetterId = id
      const { reason } = rejection
      cycle.deadLetteredBy.set(reason, (cycle.deadLetteredBy.get(reason) ?? 0) + rejectionCounts[i]! + untold)
    }
    cycle.deadLettered += rejected
  }

  private keepDeadLetter(
    route: AcceptRoute,
    writer: { encoded(rows: Uint8Array, count: number, receivedAt: number): void },
    rejection: Rejection,
    untold: number,
    crc: number,
    payload: Buffer,
  ): string {
    const receivedAt = Math.max(this.deadLetterAtLast + 1, this.now)
    this.deadLetterAtLast = receivedAt
    const id = deadLetterId(receivedAt, crc)
    const row = encodeDeadLetter({
      tenant: route.tenant,
      device: route.device,
      id,
      reason: rejection.reason,
      detail: untold > 0 ? `${rejection.detail} (and ${untold} more readings of this payload)` : rejection.detail,
      metric: rejection.metric ?? '',
      codec: route.codec,
      origin: route.origin,
      receivedAt,
      payload,
    })
    writer.encoded(row, 1, receivedAt)
    this.committer.gathering.bytes += row.length
    return id
  }
}
