// Viewers that asked for the same: each frame is made once for all of them, so ten tabs of one page cost little more than one.
import type { Chunk } from '../../domain/event-log.ts'
import type { Micros, Tenant } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import { toMillis } from '../instant.ts'
import { matchesName, type NameFilter } from '../parameters.ts'
import type { LiveCursor } from './cursor.ts'
import type { LastValues } from './last-values.ts'
import { noSeries, type SeriesNames } from './series-directory.ts'
import type { Viewer } from './viewer.ts'

export const liveModes = ['latest', 'every'] as const
export type LiveMode = (typeof liveModes)[number]

export interface Subscription {
  readonly tenant: Tenant
  readonly device: NameFilter
  readonly metric: NameFilter
  readonly mode: LiveMode
}

export function matchesSeries(
  { tenant, device, metric }: Pick<Subscription, 'tenant' | 'device' | 'metric'>,
  names: SeriesNames,
): boolean {
  return tenant === names.tenant && matchesName(device, names.device) && matchesName(metric, names.metric)
}

/** Joined items of one frame; kept below this, so that a big chunk does not fill a viewer's queue by itself. */
const frameLengthMax = 256 * 1024

export class Channel {
  readonly key: string
  readonly subscription: Subscription
  readonly viewers = new Set<Viewer>()
  private pieces: string[] = []
  private length = 0

  constructor(subscription: Subscription) {
    this.subscription = subscription
    this.key = JSON.stringify(subscription)
  }

  add(item: string): void {
    this.pieces.push(item)
    this.length += item.length + 1
  }

  get isEmpty(): boolean {
    return this.pieces.length === 0
  }

  get isFull(): boolean {
    return this.length >= frameLengthMax
  }

  /** What was added, as one `readings` event to every viewer. */
  flush(cursor: string): void {
    if (this.pieces.length === 0) return
    const data = readingsJson(cursor, this.pieces)
    this.pieces = []
    this.length = 0
    for (const viewer of this.viewers) viewer.send('readings', cursor, data)
  }
}

export function readingsJson(cursor: string, items: readonly string[]): string {
  return `{"cursor":${JSON.stringify(cursor)},"items":[${items.join(',')}]}`
}

/** The JSON of live items, with what does not change within a series made once. */
export class ItemWriter {
  private heads: (string | undefined)[] = []
  private readonly lastValues: LastValues

  constructor(lastValues: LastValues) {
    this.lastValues = lastValues
  }

  reading(id: number, cursor: RowCursor): string {
    const value = cursor.isText() ? `"text":${JSON.stringify(cursor.text())}` : `"value":${cursor.value}`
    return `${this.head(id)}${toMillis(cursor.observedAt)},${value}}`
  }

  last(id: number): string {
    const { observedAt, value } = this.lastValues.last(id)
    const shown = typeof value === 'string' ? `"text":${JSON.stringify(value)}` : `"value":${value}`
    return `${this.head(id)}${toMillis(observedAt)},${shown}}`
  }

  /** When nobody looks any more. */
  forget(): void {
    this.heads = []
  }

  private head(id: number): string {
    const known = this.heads[id]
    if (known !== undefined) return known
    const { device, metric } = this.lastValues.namesOf(id)
    const head = `{"device":${JSON.stringify(device)},"metric":${JSON.stringify(metric)},"observedAt":`
    this.heads[id] = head
    return head
  }
}

/** What one viewer gets out of chunks that only it reads: while it catches up. One frame a chunk, each with the cursor just past it. */
export function* framesOf(
  chunks: readonly Chunk[],
  from: LiveCursor,
  subscription: Subscription,
  lastValues: LastValues,
  items: ItemWriter,
  /** Readings observed before this were not asked for. */
  observedFrom: Micros = 0,
): Generator<{ readonly cursor: LiveCursor; readonly items: readonly string[] }> {
  let position = from.position
  let receivedAt = from.receivedAt
  const matches = new Map<number, boolean>()
  for (const chunk of chunks) {
    position = new Map(position).set(chunk.partition, chunk.offset + 1)
    receivedAt = Math.max(receivedAt, chunk.receivedAt)
    const pieces: string[] = []
    const seen = new Set<number>()
    const row = new RowCursor(chunk.rows)
    while (row.next()) {
      if (row.observedAt < observedFrom) continue
      const id = lastValues.identify(chunk.rows, row)
      if (id === noSeries) continue
      let isMatch = matches.get(id)
      if (isMatch === undefined) {
        isMatch = matchesSeries(subscription, lastValues.namesOf(id))
        matches.set(id, isMatch)
      }
      if (!isMatch) continue
      if (subscription.mode === 'every') pieces.push(items.reading(id, row))
      else seen.add(id)
    }
    for (const id of seen) if (lastValues.hasValue(id)) pieces.push(items.last(id))
    yield { cursor: { position, receivedAt }, items: pieces }
  }
}
