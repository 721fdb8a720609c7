// What each owner holds of a room that all have in common, so that none can take that of the others.
import { ingestLimits } from './limits.ts'

interface Amount {
  readonly count: number
  readonly bytes: number
}

export class Shares {
  private readonly held = new Map<string, Amount>()
  private readonly isLimited: boolean

  constructor({ isLimited }: { readonly isLimited: boolean }) {
    this.isLimited = isLimited
  }

  /** Whether an owner would hold more than its share of `room` with `more`. */
  isFull(owner: string, more: Amount, room: Amount): boolean {
    if (!this.isLimited) return false
    const { sessionsShareMax: share } = ingestLimits
    const { count, bytes } = this.of(owner)
    return count + more.count > room.count * share || bytes + more.bytes > room.bytes * share
  }

  add(owner: string, count: number, bytes: number): void {
    const before = this.of(owner)
    const after = { count: before.count + count, bytes: before.bytes + bytes }
    if (after.count <= 0) this.held.delete(owner)
    else this.held.set(owner, after)
  }

  private of(owner: string): Amount {
    return this.held.get(owner) ?? { count: 0, bytes: 0 }
  }
}
