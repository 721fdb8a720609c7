// The publishes of one connection: telemetry goes to the accepter and its acknowledgement into the ring, all else to the broker; what has no credit,
// or owes for its rate, waits in the reader.
import type { DeviceCredential } from '../domain/authority.ts'
import type { Accepter } from './accept.ts'
import type { CloseCause, IngestEvents } from './events.ts'
import { ingestLimits as limits } from './limits.ts'
import { type AckRing, ackKinds } from './mqtt-acks.ts'
import type { MqttBroker } from './mqtt-broker.ts'
import { readText } from './mqtt-frames.ts'
import type { MqttPassage } from './mqtt-passage.ts'
import { blocks, type PacketReader } from './mqtt-reader.ts'
import { mayPublish, readMqttTopic, refusalHints } from './mqtt-topic.ts'
import { RememberedTopic, RememberedTopics } from './mqtt-topics-remembered.ts'
import type { RateBucket, RateLimits } from './rate-limits.ts'

/** What publishes ask of their connection. */
export interface PublishOwner {
  readonly clientId: string
  readonly credential: DeviceCredential
  /** The way to the broker, when it is open and has room; else the packet waits. */
  passageFor(bytes: number): MqttPassage | undefined
  refuse(cause: CloseCause): false
  close(cause: CloseCause, detail?: string): void
}

/** What all connections of a front share, of it what publishes need. */
export interface PublishHost {
  readonly accepter: Accepter
  readonly broker: MqttBroker
  readonly events: IngestEvents
  readonly topicsOpen: boolean
  readonly rates: RateLimits | undefined
}

export class MqttPublishes {
  private readonly owner: PublishOwner
  private readonly host: PublishHost
  private readonly reader: PacketReader
  private readonly ring: AckRing
  private topics: RememberedTopics | undefined
  /** What it waits for, while its device sends faster than it may. */
  private pacedBy: RateBucket | undefined
  /** QoS 2 telemetry received and not released: packet id, cycle. */
  private unreleased: Map<number, number> | undefined

  constructor(owner: PublishOwner, host: PublishHost, reader: PacketReader, ring: AckRing) {
    this.owner = owner
    this.host = host
    this.reader = reader
    this.ring = ring
  }

  /** False: not taken, it has to wait (or the connection was closed). */
  take(first: number, bytes: Buffer, at: number, body: number, end: number): boolean {
    const qos = (first >> 1) & 3
    if (qos === 3 || (qos === 0 && (first & 8) !== 0) || body + 2 > end) return this.owner.refuse('malformed-packet')
    const { ring, host } = this
    const size = end - at
    if (
      ring.publishes >= limits.publishesInFlightMax ||
      (ring.bytes > 0 && ring.bytes + size > limits.bytesInFlightMax)
    ) {
      this.reader.block(blocks.credit)
      return false
    }
    const topicStart = body + 2
    const topicEnd = topicStart + ((bytes[body]! << 8) | bytes[body + 1]!)
    const payload = qos === 0 ? topicEnd : topicEnd + 2
    if (payload > end || topicEnd === topicStart) return this.owner.refuse('malformed-packet')
    const packetId = qos === 0 ? 0 : (bytes[topicEnd]! << 8) | bytes[topicEnd + 1]!
    if (qos > 0 && packetId === 0) return this.owner.refuse('malformed-packet')
    const topic = this.topics?.find(bytes, topicStart, topicEnd) ?? this.learn(bytes, topicStart, topicEnd)
    if (topic === undefined) return false
    const { route } = topic
    if (route === undefined) return this.passPublish(qos, packetId, bytes, at, end)
    if (topic.bucket !== undefined && this.owes(topic.bucket, route.device)) return false
    if (qos === 2) {
      this.unreleased ??= new Map()
      const known = this.unreleased.get(packetId)
      if (known !== undefined) {
        // The same message again: its packet id is not released yet (MQTT 3.1.1 §4.3.3).
        ring.push(ackKinds.pubrec, packetId, known, size)
        return true
      }
      if (this.unreleased.size >= limits.unreleasedMax) return this.owner.refuse('unreleased')
    }
    const { accepter } = host
    const isResent = (first & 8) !== 0
    const cycle =
      qos === 0
        ? accepter.accept(route, bytes, payload, end)
        : accepter.acceptResendable(route, bytes, payload, end, this.owner.clientId, packetId, isResent)
    ring.push(qos === 1 ? ackKinds.puback : qos === 0 ? ackKinds.none : ackKinds.pubrec, packetId, cycle, size)
    if (qos === 2) this.unreleased!.set(packetId, cycle)
    if (topic.generation !== host.broker.generation) {
      topic.generation = host.broker.generation
      topic.isWanted = host.broker.isWanted(topic.topic)
    }
    if (topic.bucket !== undefined) this.pace(topic.bucket, route.device)
    if (topic.isWanted) host.broker.sendCopy(topic.topic, Buffer.from(bytes.subarray(payload, end)))
    return true
  }

  /** A topic that is new to this connection: checked once. Undefined: refused, the connection is closed. */
  private learn(bytes: Buffer, start: number, end: number): RememberedTopic | undefined {
    const text = readText(bytes, start, end)
    if (text === undefined) {
      this.owner.close('malformed-packet', 'a topic that is not UTF-8 or has U+0000')
      return undefined
    }
    const { host, owner } = this
    const { credential } = owner
    const topic = readMqttTopic(text, host.topicsOpen)
    if (topic.kind === 'refused' || !mayPublish(credential, topic, text)) {
      const cause = topic.kind === 'refused' ? topic.cause : 'topic-foreign'
      host.events.publishRefused(cause, {
        clientId: this.owner.clientId,
        topic: text.slice(0, 200),
        hint: refusalHints[cause],
      })
      this.owner.close('publish-refused', cause)
      return undefined
    }
    const { tenant } = credential
    const isTelemetry = topic.kind === 'telemetry'
    const route = isTelemetry ? host.accepter.route(tenant, topic.device, topic.codec, text) : undefined
    const bucket = isTelemetry ? host.rates?.of(tenant, topic.device) : undefined
    const remembered = new RememberedTopic(Buffer.from(bytes.subarray(start, end)), text, route, bucket)
    this.topics ??= new RememberedTopics()
    this.topics.add(remembered)
    return remembered
  }

  /** What was taken counts; beyond the rate nothing more is read until it is paid for. */
  private pace(bucket: RateBucket, device: string): void {
    const { accepter } = this.host
    const waitMs = bucket.spend(accepter.lastAccepted + accepter.lastDeadLettered)
    if (waitMs > 0) this.waitForRate(bucket, device, waitMs)
  }

  /** What it sent on a connection before, or through another door, counts as well: to come again is no way past. */
  private owes(bucket: RateBucket, device: string): boolean {
    const waitMs = bucket.waitMs()
    if (waitMs > 0) this.waitForRate(bucket, device, waitMs)
    return waitMs > 0
  }

  private waitForRate(bucket: RateBucket, device: string, waitMs: number): void {
    if (this.pacedBy === undefined) this.host.events.rateLimited('mqtt', { device, waitMs: Math.ceil(waitMs) })
    this.pacedBy = bucket
    this.reader.block(blocks.rate)
  }

  private passPublish(qos: number, packetId: number, bytes: Buffer, at: number, end: number): boolean {
    const passage = this.owner.passageFor(end - at)
    if (passage === undefined) return false
    if (qos === 2 && !passage.noteUnreleased(packetId)) return this.owner.refuse('unreleased')
    if (qos > 0) this.ring.pushPassed(qos === 1 ? ackKinds.puback : ackKinds.pubrec, packetId, end - at)
    passage.pass(bytes, at, end)
    return true
  }

  /** PUBREL: true when it was telemetry that is released by it. */
  release(packetId: number): boolean {
    return this.unreleased?.delete(packetId) ?? false
  }

  /** Goes on once the rate is paid for. */
  onTick(): void {
    if (this.pacedBy?.waitMs() !== 0) return
    this.pacedBy = undefined
    this.reader.unblock(blocks.rate)
  }
}
