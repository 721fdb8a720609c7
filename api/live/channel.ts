// Viewers that asked for the same: each frame is made once for all of them, so ten tabs of one page cost little more than one.
import type { Tenant } from '../../domain/reading.ts'
import { toMillis } from '../instant.ts'
import { matchesName, type NameFilter } from '../parameters.ts'
import { LiveFrame, LiveItem, type Revised, SeriesLabel } from './frame.ts'
import type { LastValues, LateReadings } from './last-values.ts'
import type { SeriesNames } from './series-directory.ts'
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

/** About as many characters of JSON one frame may have, so that a big chunk does not fill a viewer's queue by itself. */
export const frameLengthMax = 256 * 1024

export class Channel {
  readonly key: string
  readonly subscription: Subscription
  readonly viewers = new Set<Viewer>()
  private items: LiveItem[] = []
  private revisions: Revised[] = []
  private length = 0

  constructor(subscription: Subscription) {
    this.subscription = subscription
    this.key = JSON.stringify(subscription)
  }

  add(item: LiveItem): void {
    this.items.push(item)
    this.length += item.length
  }

  /** Goes out before the items. */
  addRevision(revised: Revised): void {
    this.revisions.push(revised)
  }

  get isFull(): boolean {
    return this.length >= frameLengthMax
  }

  get isEmpty(): boolean {
    return this.items.length === 0 && this.revisions.length === 0
  }

  /** What was added, to every viewer. */
  flush(before: string, cursor: string): void {
    if (this.isEmpty) return
    const frames = framesOf(before, cursor, this.revisions, this.items)
    this.items = []
    this.revisions = []
    this.length = 0
    for (const frame of frames) this.send(frame)
  }

  send(frame: LiveFrame): void {
    for (const viewer of this.viewers) viewer.send(frame)
  }
}

/** Only the last frame moves a viewer on to `cursor`: who is cut off before it gets all of them again. */
export function framesOf(
  before: string,
  cursor: string,
  revisions: readonly Revised[],
  items: readonly LiveItem[],
): LiveFrame[] {
  const frames = revisions.map((revised, index) => {
    const isLast = items.length === 0 && index === revisions.length - 1
    return LiveFrame.revision(isLast ? cursor : before, revised)
  })
  if (items.length > 0) frames.push(LiveFrame.readings(cursor, items))
  return frames
}

/** The items of frames, with what does not change within a series made once. */
export class ItemMaker {
  private labels: (SeriesLabel | undefined)[] = []
  private readonly lastValues: LastValues

  constructor(lastValues: LastValues) {
    this.lastValues = lastValues
  }

  make(id: number, observedAt: number, value: number | string): LiveItem {
    return new LiveItem(this.labelOf(id), toMillis(observedAt), value)
  }

  /** Of a series that there was no room for. */
  unknown(device: string, metric: string, observedAt: number, value: number | string): LiveItem {
    return new LiveItem(new SeriesLabel(device, metric), toMillis(observedAt), value)
  }

  revised(id: number, { observedAt, value, from, to }: LateReadings): Revised {
    return { item: this.make(id, observedAt, value), from: toMillis(from), to: toMillis(to + 1) }
  }

  /** Its newest reading. */
  last(id: number): LiveItem {
    const { observedAt, value } = this.lastValues.last(id)
    return this.make(id, observedAt, value)
  }

  /** When nobody looks any more. */
  forget(): void {
    this.labels = []
  }

  private labelOf(id: number): SeriesLabel {
    const known = this.labels[id]
    if (known !== undefined) return known
    const { device, metric } = this.lastValues.namesOf(id)
    const label = new SeriesLabel(device, metric)
    this.labels[id] = label
    return label
  }
}
