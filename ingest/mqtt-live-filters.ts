// Filters of live subscribers that could match telemetry, counted: whether a publish is wanted by anybody is asked of them.
import { filterMatches, mayMatchTelemetry } from './mqtt-topic.ts'

export class LiveFilters {
  private readonly filters = new Map<string, number>()
  generation = 0

  get size(): number {
    return this.filters.size
  }

  add(filter: string): void {
    if (!mayMatchTelemetry(filter)) return
    const count = this.filters.get(filter) ?? 0
    this.filters.set(filter, count + 1)
    if (count === 0) this.generation++
  }

  remove(filter: string): void {
    const count = this.filters.get(filter)
    if (count === undefined) return
    if (count > 1) {
      this.filters.set(filter, count - 1)
      return
    }
    this.filters.delete(filter)
    this.generation++
  }

  matches(topic: string): boolean {
    for (const filter of this.filters.keys()) if (filterMatches(filter, topic)) return true
    return false
  }
}
