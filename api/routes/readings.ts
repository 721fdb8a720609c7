// Raw readings, each once and in order, a page at a time.
import { z } from 'zod'
import { type ApiApp, type ApiContext, goneSignal, tenantOf } from '../context.ts'
import { decodePage, pageOf } from '../page.ts'
import {
  afterParameter,
  deviceParameter,
  everyName,
  fromParameter,
  limitParameter,
  metricParameter,
  orderParameter,
  readingsLimitMax,
  toParameter,
} from '../parameters.ts'
import { askReadings } from '../queries/readings.ts'
import { problemSchema, readingsSchema } from '../wire.ts'
import { readingOfRow } from './answers.ts'
import { rangeOf } from './range.ts'

export function readingRoutes(app: ApiApp, { clickhouse, clock }: ApiContext): void {
  app.get(
    '/v1/readings',
    {
      schema: {
        summary: 'Raw readings in order of observedAt, then device and metric',
        tags: ['readings'],
        querystring: z.strictObject({
          device: deviceParameter.optional(),
          metric: metricParameter.optional(),
          from: fromParameter.optional(),
          to: toParameter.optional(),
          order: orderParameter,
          limit: limitParameter(readingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: readingsSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query }, reply) => {
      const { device = everyName, metric = everyName, order, limit } = query
      const kind = `readings-${order}`
      const types = ['number', 'string', 'string', 'number', 'number'] as const
      const page = query.after === undefined ? undefined : decodePage(kind, types, query.after)
      const firstPage = page && { from: page[3], to: page[4] }
      const { from, to } = rangeOf(query, clock.nowMicros(), firstPage)
      const after = page && { observedAt: page[0], device: page[1], metric: page[2] }
      const question = { tenant: tenantOf(), device, metric, from, to, order, after, limit: limit + 1 }
      const rows = await askReadings(clickhouse, question, goneSignal(reply))
      return pageOf(rows, limit, readingOfRow, (last) => ({
        kind,
        key: [last.observedMicros, last.device, last.metric, from, to],
      }))
    },
  )
}
