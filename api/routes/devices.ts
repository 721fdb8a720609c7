// Devices that were heard of, from memory: also while the store is away.
import { z } from 'zod'
import type { Micros } from '../../domain/reading.ts'
import { RequestError } from '../../runtime/errors.ts'
import { type ApiApp, type ApiContext, requireLatest, tenantOf } from '../context.ts'
import { toMillis } from '../instant.ts'
import { type DeviceState, isOnline, type LastValues } from '../live/last-values.ts'
import { decodePage, encodePage } from '../page.ts'
import { afterParameter, limitParameter, thingsLimitMax } from '../parameters.ts'
import { type DeviceAnswer, deviceDetailSchema, devicesSchema, problemSchema } from '../wire.ts'
import { readingOfLast } from './answers.ts'

export function deviceRoutes(app: ApiApp, { lastValues, feed, clock, registry }: ApiContext): void {
  app.get(
    '/v1/devices',
    {
      schema: {
        summary: 'Devices that were heard of, by name',
        tags: ['devices'],
        querystring: z.strictObject({
          search: z.string().max(200).optional().meta({ description: 'Part of the name, in any case' }),
          limit: limitParameter(thingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: devicesSchema, 503: problemSchema },
      },
    },
    async ({ query: { search = '', limit, after } }) => {
      requireLatest(feed)
      const tenant = tenantOf()
      const names = lastValues.deviceNames(tenant)
      const wanted = search.toLowerCase()
      const now = clock.nowMicros()
      const items: DeviceAnswer[] = []
      let at = after === undefined ? 0 : firstAfter(names, decodePage('devices', ['string'], after)[0])
      for (; at < names.length; at++) {
        const name = names[at]!
        if (wanted !== '' && !name.toLowerCase().includes(wanted)) continue
        const device = lastValues.device(tenant, name)!
        if (!isKnown(device)) continue
        if (items.length === limit) return { items, next: encodePage('devices', [items.at(-1)!.device]) }
        items.push(deviceAnswer(lastValues, device, now))
      }
      return { items, next: null }
    },
  )

  app.get(
    '/v1/devices/:device',
    {
      schema: {
        summary: 'One device, with the newest reading of each of its metrics',
        tags: ['devices'],
        params: z.object({ device: z.string() }),
        querystring: z.strictObject({}),
        response: { 200: deviceDetailSchema, 404: problemSchema, 503: problemSchema },
      },
    },
    async ({ params }) => {
      requireLatest(feed)
      const device = lastValues.device(tenantOf(), params.device)
      if (!device || !isKnown(device)) {
        const detail = 'No reading was ever received from a device of this name.'
        throw new RequestError(404, 'unknown-device', 'No such device', detail)
      }
      const latest = lastValues
        .seriesOf(device)
        .filter((id) => lastValues.hasValue(id))
        .map((id) => {
          const { device: _, ...reading } = readingOfLast(lastValues.last(id))
          return reading
        })
      const labels = registry?.device(params.device)?.labels
      const hasLabels = labels !== undefined && Object.keys(labels).length > 0
      return {
        ...deviceAnswer(lastValues, device, clock.nowMicros()),
        ...(hasLabels && { labels: { ...labels } }),
        latest,
      }
    },
  )
}

/** A name that only a viewer ahead of us has read yet comes with the next batch. */
function isKnown(device: DeviceState): boolean {
  return device.lastReceivedAt > 0
}

function deviceAnswer(lastValues: LastValues, device: DeviceState, now: Micros): DeviceAnswer {
  return {
    device: device.device,
    firstReceivedAt: toMillis(device.firstReceivedAt),
    lastReceivedAt: toMillis(device.lastReceivedAt),
    metrics: lastValues
      .seriesOf(device)
      .filter((id) => lastValues.hasValue(id))
      .map((id) => lastValues.namesOf(id).metric),
    online: isOnline(device, now),
  }
}

/** Index of the first name beyond this one. */
function firstAfter(names: readonly string[], name: string): number {
  let low = 0
  let high = names.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (names[middle]! <= name) low = middle + 1
    else high = middle
  }
  return low
}
