// Retained messages: the last of each topic that said so, for those who subscribe later. Bounded in number and bytes, for each device too.
import type { DropCause } from './events.ts'
import { ingestLimits } from './limits.ts'
import { copyOf, keptBytes, type SessionPacket } from './mqtt-kept-packet.ts'
import { Shares } from './mqtt-shares.ts'
import { filterMatches } from './mqtt-topic.ts'

interface Retained {
  readonly packet: SessionPacket
  readonly owner: string
}

export interface RetainedOptions {
  onDropped(cause: DropCause, fields: { topic?: string }): void
  /** Of the client that is connected with this id. */
  ownerOf(clientId: string): string
  readonly hasShares: boolean
}

const room = { count: ingestLimits.retainedMessagesMax, bytes: ingestLimits.retainedBytesMax }

export class RetainedMessages {
  private readonly options: RetainedOptions
  private readonly byTopic = new Map<string, Retained>()
  private readonly ofOwners: Shares
  private bytes = 0

  constructor(options: RetainedOptions) {
    this.options = options
    this.ofOwners = new Shares({ isLimited: options.hasShares })
  }

  counts(): { retained: number; retainedBytes: number } {
    return { retained: this.byTopic.size, retainedBytes: this.bytes }
  }

  /** In the place of the one before; one without a payload only removes that. */
  store(packet: SessionPacket): void {
    const { topic } = packet
    const before = this.byTopic.get(topic)
    if (before !== undefined) {
      this.byTopic.delete(topic)
      this.bytes -= keptBytes(before.packet)
      this.ofOwners.add(before.owner, -1, -keptBytes(before.packet))
    }
    if (packet.payload.length === 0) return
    const bytes = keptBytes(packet)
    const owner = this.ownerOf(packet)
    if (
      this.byTopic.size >= room.count ||
      this.bytes + bytes > room.bytes ||
      this.ofOwners.isFull(owner, { count: 1, bytes }, room)
    ) {
      this.options.onDropped('retained-full', { topic })
      return
    }
    const { clientId: _, ...kept } = copyOf(packet)
    this.byTopic.set(topic, { packet: kept, owner })
    this.bytes += bytes
    this.ofOwners.add(owner, 1, bytes)
  }

  *matching(filters: readonly string[]): Generator<SessionPacket> {
    for (const filter of filters) {
      const found = this.byTopic.get(filter)
      if (found !== undefined) yield found.packet
      else if (filter.includes('+') || filter.includes('#')) {
        for (const [topic, { packet }] of this.byTopic) if (filterMatches(filter, topic)) yield packet
      }
    }
  }

  clear(): void {
    this.byTopic.clear()
  }

  /** Below `devices/` a topic is its device's, whoever publishes there; any other is whoever's who published last. */
  private ownerOf({ topic, clientId }: SessionPacket): string {
    if (topic.startsWith('devices/')) return `devices/${deviceOf(topic)}`
    return clientId === undefined ? '' : this.options.ownerOf(clientId)
  }
}

/** Whose topic it is. */
function deviceOf(topic: string): string {
  return topic.split('/', 2)[1] ?? ''
}
