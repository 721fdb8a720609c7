// The channels that are open: who asks the same shares one, and each series knows which of them want it.
import { Channel, matchesSeries, type Subscription } from './channel.ts'
import { Interest } from './interest.ts'
import type { LastValues } from './last-values.ts'
import type { Viewer } from './viewer.ts'

export interface ChannelsOptions {
  readonly lastValues: LastValues
  /** The first channel of `latest` has come, or the last of them has gone. */
  readonly onLatest: (isWanted: boolean) => void
  /** The last channel of all has gone. */
  readonly onEmpty: () => void
}

export class Channels implements Iterable<Channel> {
  everyCount = 0
  latestCount = 0
  private readonly byKey = new Map<string, Channel>()
  private readonly interest: Interest
  private readonly options: ChannelsOptions

  constructor(options: ChannelsOptions) {
    const { lastValues } = options
    this.options = options
    this.interest = new Interest((channel, id) => matchesSeries(channel.subscription, lastValues.namesOf(id)))
  }

  [Symbol.iterator](): Iterator<Channel> {
    return this.byKey.values()
  }

  /** Those that want this series; the list is never changed. */
  of(id: number): readonly Channel[] {
    return this.interest.of(id)
  }

  /** From here on it gets what its channel does, until it is gone. */
  join(viewer: Viewer, subscription: Subscription): void {
    const { key } = new Channel(subscription)
    const channel = this.byKey.get(key) ?? this.open(subscription)
    channel.viewers.add(viewer)
    viewer.gone.addEventListener('abort', () => {
      channel.viewers.delete(viewer)
      if (channel.viewers.size === 0) this.close(channel)
    })
  }

  private open(subscription: Subscription): Channel {
    const channel = new Channel(subscription)
    this.byKey.set(channel.key, channel)
    this.interest.add(channel)
    this.count(channel, 1)
    return channel
  }

  private close(channel: Channel): void {
    if (this.byKey.get(channel.key) !== channel) return
    this.byKey.delete(channel.key)
    this.interest.remove(channel)
    this.count(channel, -1)
    if (this.byKey.size === 0) this.options.onEmpty()
  }

  private count(channel: Channel, more: 1 | -1): void {
    if (wantsEvery(channel)) {
      this.everyCount += more
      return
    }
    const wasWanted = this.latestCount > 0
    this.latestCount += more
    const isWanted = this.latestCount > 0
    if (isWanted !== wasWanted) this.options.onLatest(isWanted)
  }
}

export function wantsEvery({ subscription }: Channel): boolean {
  return subscription.mode === 'every'
}
