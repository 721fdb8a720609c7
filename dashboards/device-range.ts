// Which stretch of time a device page shows: what the URL says, or else the shortest range in which this device has something to show.
import type { DeviceDetailAnswer } from '../api/wire.ts'
import type { Questions } from './ask.ts'
import { ranges } from './format.ts'

export type ShownRange =
  /** Ends now and goes on live. */
  | { readonly kind: 'live'; readonly name: string; readonly from: number; readonly to: number }
  | { readonly kind: 'fixed'; readonly from: number; readonly to: number }

/** As many readings as make a chart worth looking at: ten minutes of one a second, a month of one an hour. */
const readingsWanted = 600

export interface RangeQuery {
  readonly range?: string | undefined
  readonly from?: string | undefined
  readonly to?: string | undefined
}

/** Undefined when the URL says nothing, or nothing usable. */
export function rangeFromQuery(query: RangeQuery, now: number): ShownRange | undefined {
  const from = Number(query.from)
  const to = Number(query.to)
  if (
    query.from &&
    query.to &&
    Number.isFinite(from) &&
    Number.isFinite(to) &&
    from >= 0 &&
    from < to &&
    to < 8.64e15
  ) {
    return { kind: 'fixed', from, to }
  }
  const named = ranges.find(({ name }) => name === query.range)
  return named ? { kind: 'live', name: named.name, from: now - named.ms, to: now } : undefined
}

export async function defaultRange(questions: Questions, device: DeviceDetailAnswer, now: number): Promise<ShownRange> {
  const newest = newestReading(device)
  const shortest = liveRange(now, 3_600_000)
  if (!newest) return shortest
  const answer = await questions.readings({
    device: device.device,
    metric: newest.metric,
    order: 'desc',
    limit: readingsWanted,
  })
  const items = answer.ok ? answer.value.items : []
  const oldestAt = items.at(-1)?.observedAt ?? newest.observedAt
  const longest = ranges.at(-1)!
  if (now - newest.observedAt > longest.ms) return rangeAround(oldestAt, newest.observedAt)
  return liveRange(now, Math.max(Math.min(now - oldestAt, longest.ms), 900_000))
}

/** The live range that reaches back this far. */
export function liveRange(now: number, ms: number): ShownRange {
  const named = ranges.find((range) => range.ms >= ms * 0.98) ?? ranges.at(-1)!
  return { kind: 'live', name: named.name, from: now - named.ms, to: now }
}

/** For a device whose readings are all older than the longest live range. */
export function rangeAround(oldestAt: number, newestAt: number): ShownRange {
  const margin = Math.max((newestAt - oldestAt) * 0.04, 60_000)
  return { kind: 'fixed', from: Math.max(0, Math.floor(oldestAt - margin)), to: Math.ceil(newestAt + margin) }
}

export function newestReading(device: DeviceDetailAnswer): DeviceDetailAnswer['latest'][number] | undefined {
  let newest: DeviceDetailAnswer['latest'][number] | undefined
  for (const reading of device.latest) {
    if (reading.value !== undefined && (!newest || reading.observedAt > newest.observedAt)) newest = reading
  }
  return newest
}
