// The newest reading of each series, by the device's clock, from memory: also while the store is away.
import { z } from 'zod'
import { type ApiApp, type ApiContext, requireLatest, tenantOf } from '../context.ts'
import { decodePage, encodePage } from '../page.ts'
import {
  afterParameter,
  deviceParameter,
  everyName,
  limitParameter,
  matchesName,
  metricParameter,
  readingsLimitMax,
} from '../parameters.ts'
import { latestSchema, problemSchema, type ReadingAnswer } from '../wire.ts'
import { readingOfLast } from './answers.ts'

export function latestRoutes(app: ApiApp, { lastValues, feed }: ApiContext): void {
  app.get(
    '/v1/latest',
    {
      schema: {
        summary: 'The newest reading of each series, by device, then metric',
        tags: ['readings'],
        querystring: z.strictObject({
          device: deviceParameter.optional(),
          metric: metricParameter.optional(),
          limit: limitParameter(readingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: latestSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query: { device = everyName, metric = everyName, limit, after } }) => {
      requireLatest(feed)
      const tenant = tenantOf()
      const [afterDevice, afterMetric] =
        after === undefined ? ['', ''] : decodePage('latest', ['string', 'string'], after)
      // Exact names are looked up; only beginnings and "all" walk the list.
      const names =
        device.prefixes.length > 0 || device.names.length === 0
          ? lastValues.deviceNames(tenant)
          : [...new Set(device.names)].sort()
      const items: ReadingAnswer[] = []
      for (const name of names) {
        if (name < afterDevice || !matchesName(device, name)) continue
        const state = lastValues.device(tenant, name)
        if (!state) continue
        for (const id of lastValues.seriesOf(state)) {
          const names = lastValues.namesOf(id)
          if (!lastValues.hasValue(id) || !matchesName(metric, names.metric)) continue
          if (name === afterDevice && names.metric <= afterMetric) continue
          if (items.length === limit) {
            const last = items.at(-1)!
            return { items, next: encodePage('latest', [last.device, last.metric]) }
          }
          items.push(readingOfLast(lastValues.last(id)))
        }
      }
      return { items, next: null }
    },
  )
}
