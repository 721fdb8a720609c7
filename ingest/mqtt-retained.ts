// Retained messages: the last of each topic that said so, for those who subscribe later. Bounded in number and bytes, for each device too.
import type { DropCause } from './events.ts'
import { ingestLimits } from './limits.ts'
import { copyOf, keptBytes, type SessionPacket } from './mqtt-kept-packet.ts'
import { Shares } from './mqtt-shares.ts'
import { filterMatches } from './mqtt-topic.ts'

export interface RetainedOptions {
  onDropped(cause: DropCause, fields: { topic?: string }): void
  readonly hasShares: boolean
}

const room = { count: ingestLimits.retainedMessagesMax, bytes: ingestLimits.retainedBytesMax }

export class RetainedMessages {
  private readonly options: RetainedOptions
  private readonly byTopic = new Map<string, SessionPacket>()
  private readonly ofDevices: Shares
  private bytes = 0

  constructor(options: RetainedOptions) {
    this.options = options
    this.ofDevices = new Shares({ isLimited: options.hasShares })
  }

  counts(): { retained: number; retainedBytes: number } {
    return { retained: this.byTopic.size, retainedBytes: this.bytes }
  }

  /** In the place of the one before; one without a payload only removes that. */
  store(packet: SessionPacket): void {
    const { topic } = packet
    const device = deviceOf(topic)
    const before = this.byTopic.get(topic)
    if (before !== undefined) {
      this.byTopic.delete(topic)
      this.bytes -= keptBytes(before)
      this.ofDevices.add(device, -1, -keptBytes(before))
    }
    if (packet.payload.length === 0) return
    const bytes = keptBytes(packet)
    if (
      this.byTopic.size >= room.count ||
      this.bytes + bytes > room.bytes ||
      (topic.startsWith('devices/') && this.ofDevices.isFull(device, { count: 1, bytes }, room))
    ) {
      this.options.onDropped('retained-full', { topic })
      return
    }
    this.byTopic.set(topic, copyOf(packet))
    this.bytes += bytes
    this.ofDevices.add(device, 1, bytes)
  }

  *matching(filters: readonly string[]): Generator<SessionPacket> {
    for (const filter of filters) {
      const packet = this.byTopic.get(filter)
      if (packet !== undefined) yield packet
      else if (filter.includes('+') || filter.includes('#')) {
        for (const [topic, each] of this.byTopic) if (filterMatches(filter, topic)) yield each
      }
    }
  }

  clear(): void {
    this.byTopic.clear()
  }
}

/** Whose topic it is. */
function deviceOf(topic: string): string {
  return topic.split('/', 2)[1] ?? ''
}
