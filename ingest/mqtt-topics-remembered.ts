// The topics that a connection published to last, by their bytes, with what was decided about them: a device says the same few topics over and
// over, so its messages need no string, no parsing and no lookup by name.
import type { AcceptRoute } from './accept.ts'
import { ingestLimits } from './limits.ts'
import type { RateBucket } from './rate-limits.ts'

export class RememberedTopic {
  readonly bytes: Buffer
  readonly topic: string
  /** Where its telemetry goes; undefined: an ordinary message, which the broker takes. */
  readonly route: AcceptRoute | undefined
  /** Whether a live subscriber matches, as of `generation` of the broker's filters. */
  isWanted = false
  generation = -1
  /** Where the device's rate is limited. */
  readonly bucket: RateBucket | undefined

  constructor(bytes: Buffer, topic: string, route: AcceptRoute | undefined, bucket: RateBucket | undefined) {
    this.bytes = bytes
    this.topic = topic
    this.route = route
    this.bucket = bucket
  }
}

export class RememberedTopics {
  private readonly list: RememberedTopic[] = []
  /** Place by hash; a collision costs a miss, never a wrong answer. */
  private readonly byHash = new Map<number, number>()
  private last = 0
  private nextOut = 0

  /** Tries the topic of the message before and the one that followed it last time round, then looks by hash. */
  find(bytes: Buffer, start: number, end: number): RememberedTopic | undefined {
    const { list } = this
    if (list.length === 0) return undefined
    let entry = list[this.last]!
    if (isSame(entry.bytes, bytes, start, end)) return entry
    const following = this.last + 1 === list.length ? 0 : this.last + 1
    entry = list[following]!
    if (isSame(entry.bytes, bytes, start, end)) {
      this.last = following
      return entry
    }
    const at = this.byHash.get(hashOf(bytes, start, end))
    if (at === undefined) return undefined
    entry = list[at]!
    if (!isSame(entry.bytes, bytes, start, end)) return undefined
    this.last = at
    return entry
  }

  add(entry: RememberedTopic): void {
    let at = this.list.length
    if (at >= ingestLimits.topicsRememberedMax) {
      at = this.nextOut
      this.nextOut = at + 1 === ingestLimits.topicsRememberedMax ? 0 : at + 1
      const before = this.list[at]!.bytes
      const hash = hashOf(before, 0, before.length)
      if (this.byHash.get(hash) === at) this.byHash.delete(hash)
    }
    this.list[at] = entry
    this.byHash.set(hashOf(entry.bytes, 0, entry.bytes.length), at)
    this.last = at
  }
}

function isSame(known: Buffer, bytes: Buffer, start: number, end: number): boolean {
  const length = known.length
  if (end - start !== length) return false
  // From the middle outwards would be cleverer; topics of one connection mostly differ in length or are equal.
  for (let i = 0; i < length; i++) if (known[i] !== bytes[start + i]) return false
  return true
}

/** FNV-1a. */
function hashOf(bytes: Buffer, start: number, end: number): number {
  let hash = 0x811c9dc5
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ bytes[i]!, 0x01000193)
  return hash
}
