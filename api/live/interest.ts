// Which channels want a series. Found out when the series is heard of, and kept until channels come or go: opening or ending a channel looks at no series,
// so whoever subscribes and unsubscribes all day costs the readings of others little, and those of nobody nothing.
import type { Channel } from './channel.ts'

/** So many ended channels may be held by series that were not heard of since. */
const endedHeldMax = 4_096
const nobody: readonly Channel[] = []

export class Interest {
  private readonly wants: (channel: Channel, id: number) => boolean
  /** In the order in which they came. */
  private open: { readonly channel: Channel; readonly change: number }[] = []
  private readonly ended = new WeakSet<Channel>()
  private endedHeld = 0
  /** Counts channels that came or went. */
  private change = 0
  private lastEnd = 0
  /** By series; a list is never changed, because its channels may end while frames are handed out along it. */
  private channels: (readonly Channel[] | undefined)[] = []
  /** By series: `change` when its list was made. */
  private madeAt: number[] = []

  /** `wants`: whether the channel asks for this series. */
  constructor(wants: (channel: Channel, id: number) => boolean) {
    this.wants = wants
  }

  add(channel: Channel): void {
    this.open.push({ channel, change: ++this.change })
  }

  remove(channel: Channel): void {
    const index = this.open.findIndex((each) => each.channel === channel)
    if (index < 0) return
    this.open.splice(index, 1)
    this.ended.add(channel)
    this.lastEnd = ++this.change
    if (this.open.length === 0) this.forget()
    else if (++this.endedHeld >= endedHeldMax) this.sweep()
  }

  /** The channels that want this series. */
  of(id: number): readonly Channel[] {
    const known = this.channels[id]
    return known !== undefined && this.madeAt[id] === this.change ? known : this.renew(id, known)
  }

  private renew(id: number, known: readonly Channel[] = nobody): readonly Channel[] {
    const since = this.madeAt[id] ?? 0
    const isOpen = (channel: Channel): boolean => !this.ended.has(channel)
    const kept = this.lastEnd > since && !known.every(isOpen) ? known.filter(isOpen) : known
    const came: Channel[] = []
    for (let i = this.open.length - 1; i >= 0 && this.open[i]!.change > since; i--) {
      const { channel } = this.open[i]!
      if (this.wants(channel, id)) came.push(channel)
    }
    const channels = came.length === 0 ? kept : [...kept, ...came.reverse()]
    this.channels[id] = channels
    this.madeAt[id] = this.change
    return channels
  }

  private forget(): void {
    this.channels = []
    this.madeAt = []
    this.endedHeld = 0
  }

  /** Series that fell silent let go of what ended. */
  private sweep(): void {
    this.endedHeld = 0
    this.channels.forEach((channels, id) => {
      if (channels?.some((channel) => this.ended.has(channel))) this.renew(id, channels)
    })
  }
}
