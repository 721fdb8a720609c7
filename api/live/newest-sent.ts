// The newest reading that viewers were sent of each series: what is older, or differs in its place, is a revision. One for all channels, because
// viewers of one channel share its frames.
import type { Micros } from '../../domain/reading.ts'
import { enlarged } from './series-directory.ts'

export class NewestSentTable {
  private observedAt = new Float64Array(0)
  /** NaN: a text. */
  private value = new Float64Array(0)
  private readonly texts = new Map<number, string>()

  /** Something of this series was sent. */
  knows(id: number): boolean {
    return id < this.observedAt.length && this.observedAt[id] !== Number.NEGATIVE_INFINITY
  }

  /** Nothing newer was sent, and nothing else in its place. */
  isNewest(id: number, observedAt: Micros, value: number | string): boolean {
    if (id >= this.observedAt.length) return true
    const known = this.observedAt[id]!
    return observedAt > known || (observedAt === known && value === this.valueOf(id))
  }

  note(id: number, observedAt: Micros, value: number | string): void {
    if (id >= this.observedAt.length) this.grow(id)
    if (observedAt < this.observedAt[id]!) return
    this.observedAt[id] = observedAt
    if (Number.isNaN(this.value[id]!)) this.texts.delete(id)
    this.value[id] = typeof value === 'string' ? Number.NaN : value
    if (typeof value === 'string') this.texts.set(id, value)
  }

  /** When nobody looks any more. */
  forget(): void {
    this.observedAt = new Float64Array(0)
    this.value = new Float64Array(0)
    this.texts.clear()
  }

  private valueOf(id: number): number | string | undefined {
    const value = this.value[id]!
    return Number.isNaN(value) ? this.texts.get(id) : value
  }

  private grow(id: number): void {
    const before = this.observedAt.length
    const size = Math.max(1_024, 2 ** Math.ceil(Math.log2(id + 1)))
    this.observedAt = enlarged(this.observedAt, new Float64Array(size))
    this.value = enlarged(this.value, new Float64Array(size))
    this.observedAt.fill(Number.NEGATIVE_INFINITY, before)
  }
}
