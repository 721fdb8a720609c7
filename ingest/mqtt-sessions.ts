// What the broker keeps for clients beyond a connection: sessions with their subscriptions and waiting messages, retained messages, wills.
// In memory, like the store that comes with aedes (whose interface this is), but with a bound on everything: that one keeps an entry for every
// client id it ever saw, and offline queues and retained messages without limit.
import { Readable } from 'node:stream'
import type { Clock } from '../runtime/clock.ts'
import type { DropCause } from './events.ts'
import { ingestLimits } from './limits.ts'
import { copyOf, keptBytes, type SessionPacket } from './mqtt-kept-packet.ts'
import { RetainedMessages } from './mqtt-retained.ts'
import { Shares } from './mqtt-shares.ts'
import { filterMatches } from './mqtt-topic.ts'

export interface SessionSubscription {
  topic: string
  qos: number
  rh?: number
  rap?: boolean
  nl?: boolean
  clientId?: string
}

interface ClientId {
  readonly id: string
}

interface Waiting {
  packet: SessionPacket
  readonly bytes: number
}

class Session {
  readonly subscriptions = new Map<string, SessionSubscription>()
  /** Whose it is; nobody else may have it. */
  readonly owner: string
  outgoing: Waiting[] = []
  outgoingBytes = 0
  /** When its connection was last seen to come or go. */
  touchedAt = 0

  constructor(owner: string) {
    this.owner = owner
  }
}

const room = { count: ingestLimits.sessionsMax, bytes: ingestLimits.sessionsBytesMax }

export interface SessionStoreOptions {
  readonly clock: Clock
  onDropped(cause: DropCause, fields: { clientId?: string; topic?: string }): void
  /** Whether a filter was granted to a client: aedes hands over a SUBSCRIBE's filters whole, with those that were refused. */
  isGranted(clientId: string, filter: string): boolean
  isConnected(clientId: string): boolean
  /** Of the client that is connected with this id. */
  ownerOf(clientId: string): string
  /** Devices are told apart: each has a share of the room, so that none can take that of the others. */
  readonly hasShares?: boolean
}

export class SessionStore {
  private readonly options: SessionStoreOptions
  private readonly sessions = new Map<string, Session>()
  private sessionsBytes = 0
  private readonly ofOwners: Shares
  /** Sessions by filter: those without wildcards are found by the topic itself. */
  private readonly exact = new Map<string, Map<string, SessionSubscription>>()
  private readonly wild = new Map<string, Map<string, SessionSubscription>>()
  private readonly retained: RetainedMessages
  /** QoS 2 publishes received and not released, by connected client; the front bounds their number and bytes. */
  private readonly incoming = new Map<string, Map<number, SessionPacket>>()
  private readonly wills = new Map<string, SessionPacket & { brokerId: string }>()
  private brokerId = ''

  constructor(options: SessionStoreOptions) {
    this.options = options
    const { hasShares = false } = options
    this.ofOwners = new Shares({ isLimited: hasShares })
    this.retained = new RetainedMessages({ onDropped: options.onDropped, ownerOf: options.ownerOf, hasShares })
  }

  /** For instruments. */
  counts(): { sessions: number; sessionsBytes: number; retained: number; retainedBytes: number; incoming: number } {
    return {
      sessions: this.sessions.size,
      sessionsBytes: this.sessionsBytes,
      ...this.retained.counts(),
      incoming: this.incoming.size,
    }
  }

  async setup(broker: { id: string }): Promise<void> {
    this.brokerId = broker.id
  }

  /** Forgets everything of a client: a clean session begins. */
  forget(clientId: string): void {
    const session = this.sessions.get(clientId)
    if (session !== undefined) {
      for (const filter of session.subscriptions.keys()) this.unindex(clientId, filter)
      this.sessionsBytes -= session.outgoingBytes
      this.ofOwners.add(session.owner, -1, -session.outgoingBytes)
      this.sessions.delete(clientId)
    }
    this.incoming.delete(clientId)
  }

  ownerOf(clientId: string): string | undefined {
    return this.sessions.get(clientId)?.owner
  }

  /** Forgets sessions whose client has been away for too long. */
  expire(): void {
    const before = this.options.clock.nowMicros() - ingestLimits.sessionIdleMsMax * 1000
    for (const [clientId, session] of this.sessions) {
      if (this.options.isConnected(clientId)) session.touchedAt = this.options.clock.nowMicros()
      else if (session.touchedAt < before) this.forget(clientId)
    }
  }

  async storeRetained(packet: SessionPacket): Promise<void> {
    this.retained.store(packet)
  }

  createRetainedStreamCombi(filters: string[]): Readable {
    return Readable.from(this.retained.matching(filters))
  }

  // --- subscriptions of sessions that outlive their connection ---

  async addSubscriptions(client: ClientId, subscriptions: readonly SessionSubscription[]): Promise<void> {
    const session = this.open(client.id)
    if (session === undefined) throw new Error('too many sessions')
    for (const { topic, qos, rh, rap, nl } of subscriptions) {
      if (!this.options.isGranted(client.id, topic)) continue
      const kept = {
        topic,
        qos,
        clientId: client.id,
        ...(rh !== undefined && { rh }),
        ...(rap !== undefined && { rap }),
        ...(nl !== undefined && { nl }),
      }
      session.subscriptions.set(topic, kept)
      this.unindex(client.id, topic)
      if (qos > 0) this.index(client.id, kept)
    }
  }

  async removeSubscriptions(client: ClientId, filters: readonly string[]): Promise<void> {
    const session = this.sessions.get(client.id)
    for (const filter of filters) {
      session?.subscriptions.delete(filter)
      this.unindex(client.id, filter)
    }
  }

  async subscriptionsByClient(client: ClientId): Promise<SessionSubscription[]> {
    const session = this.sessions.get(client.id)
    if (session === undefined) return []
    session.touchedAt = this.options.clock.nowMicros()
    return [...session.subscriptions.values()].map(({ clientId: _, ...rest }) => rest)
  }

  async cleanSubscriptions(client: ClientId): Promise<void> {
    this.forget(client.id)
  }

  /** Of sessions that want it at QoS 1 or 2, each client once. */
  async subscriptionsByTopic(topic: string): Promise<SessionSubscription[]> {
    const found = new Map<string, SessionSubscription>()
    for (const [clientId, subscription] of this.exact.get(topic) ?? []) found.set(clientId, subscription)
    for (const [filter, subscribers] of this.wild) {
      if (!filterMatches(filter, topic)) continue
      for (const [clientId, subscription] of subscribers) if (!found.has(clientId)) found.set(clientId, subscription)
    }
    return [...found.values()]
  }

  private index(clientId: string, subscription: SessionSubscription): void {
    const filter = subscription.topic
    const by = filter.includes('+') || filter.includes('#') ? this.wild : this.exact
    const subscribers = by.get(filter) ?? new Map<string, SessionSubscription>()
    by.set(filter, subscribers.set(clientId, subscription))
  }

  private unindex(clientId: string, filter: string): void {
    for (const by of [this.exact, this.wild]) {
      const subscribers = by.get(filter)
      if (subscribers?.delete(clientId) && subscribers.size === 0) by.delete(filter)
    }
  }

  // --- messages that wait for a session's client ---

  async outgoingEnqueue(subscription: { clientId: string }, packet: SessionPacket): Promise<void> {
    this.enqueue(subscription.clientId, packet)
  }

  async outgoingEnqueueCombi(subscriptions: readonly SessionSubscription[], packet: SessionPacket): Promise<void> {
    for (const { clientId } of subscriptions) if (clientId !== undefined) this.enqueue(clientId, packet)
  }

  private enqueue(clientId: string, packet: SessionPacket): void {
    const session = this.sessions.get(clientId)
    if (session === undefined) return
    const bytes = keptBytes(packet)
    if (
      session.outgoing.length >= ingestLimits.sessionMessagesMax ||
      session.outgoingBytes + bytes > ingestLimits.sessionBytesMax ||
      this.sessionsBytes + bytes > room.bytes ||
      this.ofOwners.isFull(session.owner, { count: 0, bytes }, room)
    ) {
      this.options.onDropped('session-full', { clientId, topic: packet.topic })
      return
    }
    session.outgoing.push({ packet: { ...copyOf(packet), messageId: undefined }, bytes })
    session.outgoingBytes += bytes
    this.sessionsBytes += bytes
    this.ofOwners.add(session.owner, 0, bytes)
  }

  /** Sets the packet id that a waiting message got, or replaces it by its PUBREL. */
  async outgoingUpdate(client: ClientId, packet: SessionPacket): Promise<void> {
    for (const waiting of this.sessions.get(client.id)?.outgoing ?? []) {
      const known = waiting.packet
      if (known.brokerId === packet.brokerId) {
        if (known.brokerCounter === packet.brokerCounter) {
          known.messageId = packet.messageId
          return
        }
      } else if (known.messageId === packet.messageId) {
        waiting.packet = packet
        return
      }
    }
    throw new Error('no such packet')
  }

  async outgoingClearMessageId(client: ClientId, packet: SessionPacket): Promise<SessionPacket | undefined> {
    const session = this.sessions.get(client.id)
    if (session === undefined) return undefined
    const at = session.outgoing.findIndex((waiting) => waiting.packet.messageId === packet.messageId)
    const [found] = at < 0 ? [] : session.outgoing.splice(at, 1)
    if (found === undefined) return undefined
    session.outgoingBytes -= found.bytes
    this.sessionsBytes -= found.bytes
    this.ofOwners.add(session.owner, 0, -found.bytes)
    return found.packet
  }

  outgoingStream(client: ClientId): Readable {
    return Readable.from((this.sessions.get(client.id)?.outgoing ?? []).map((waiting) => waiting.packet))
  }

  // --- QoS 2 from a client ---

  async incomingStorePacket(client: ClientId, packet: SessionPacket): Promise<void> {
    let packets = this.incoming.get(client.id)
    if (packets === undefined) {
      packets = new Map()
      this.incoming.set(client.id, packets)
      if (this.incoming.size > ingestLimits.sessionsMax) this.forgetIncomingOfAbsent()
    }
    // Only its id is asked for again: the message itself is on its way already.
    packets.set(packet.messageId!, { topic: packet.topic, payload: '', messageId: packet.messageId })
  }

  private forgetIncomingOfAbsent(): void {
    for (const clientId of this.incoming.keys()) {
      if (!this.options.isConnected(clientId)) this.incoming.delete(clientId)
    }
  }

  async incomingGetPacket(client: ClientId, packet: SessionPacket): Promise<SessionPacket> {
    const found = this.incoming.get(client.id)?.get(packet.messageId!)
    if (found === undefined) throw new Error('no such packet')
    return found
  }

  async incomingDelPacket(client: ClientId, packet: SessionPacket): Promise<void> {
    const packets = this.incoming.get(client.id)
    if (!packets?.delete(packet.messageId!)) throw new Error('no such packet')
    if (packets.size === 0) this.incoming.delete(client.id)
  }

  async cleanIncoming(client: ClientId): Promise<void> {
    this.incoming.delete(client.id)
  }

  // --- wills ---

  async putWill(client: ClientId, packet: SessionPacket): Promise<void> {
    packet.brokerId = this.brokerId
    packet.clientId = client.id
    this.wills.set(client.id, packet as SessionPacket & { brokerId: string })
  }

  async getWill(client: ClientId): Promise<SessionPacket | undefined> {
    return this.wills.get(client.id)
  }

  async delWill(client: ClientId): Promise<SessionPacket | undefined> {
    const will = this.wills.get(client.id)
    this.wills.delete(client.id)
    return will
  }

  streamWill(brokers: Record<string, unknown> = {}): Readable {
    return Readable.from([...this.wills.values()].filter((will) => brokers[will.brokerId] === undefined))
  }

  async destroy(): Promise<void> {
    this.sessions.clear()
    this.retained.clear()
    this.incoming.clear()
    this.wills.clear()
  }

  private isFullFor(owner: string): boolean {
    return this.sessions.size >= room.count || this.ofOwners.isFull(owner, { count: 1, bytes: 0 }, room)
  }

  private open(clientId: string): Session | undefined {
    let session = this.sessions.get(clientId)
    if (session === undefined) {
      const owner = this.options.ownerOf(clientId)
      if (this.isFullFor(owner)) this.expire()
      if (this.isFullFor(owner)) {
        this.options.onDropped('sessions-max', { clientId })
        return undefined
      }
      session = new Session(owner)
      this.sessions.set(clientId, session)
      this.ofOwners.add(owner, 1, 0)
    }
    session.touchedAt = this.options.clock.nowMicros()
    return session
  }
}
