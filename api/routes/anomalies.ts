// What detectors found, with score, expected range and a sentence.
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
  scoreParameter,
  thingsLimitMax,
  toParameter,
} from '../parameters.ts'
import { askAnomalies, askAnomalyCounts } from '../queries/anomalies.ts'
import { anomaliesSchema, anomalyCountsSchema, problemSchema } from '../wire.ts'
import { anomalyOfRow } from './answers.ts'
import { rangeOf } from './range.ts'

const anomaliesAsked = {
  device: deviceParameter.optional(),
  metric: metricParameter.optional(),
  from: fromParameter.optional(),
  to: toParameter.optional(),
  minScore: scoreParameter.optional(),
}

export function anomalyRoutes(app: ApiApp, { clickhouse, clock }: ApiContext): void {
  app.get(
    '/v1/anomalies',
    {
      schema: {
        summary: 'What detectors found, in order of observedAt',
        tags: ['anomalies'],
        querystring: z.strictObject({
          ...anomaliesAsked,
          order: orderParameter,
          limit: limitParameter(thingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: anomaliesSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query }, reply) => {
      const { device = everyName, metric = everyName, minScore = 0, order, limit } = query
      const kind = `anomalies-${order}`
      const types = ['number', 'string', 'number', 'number'] as const
      const page = query.after === undefined ? undefined : decodePage(kind, types, query.after)
      const firstPage = page && { from: page[2], to: page[3] }
      const { from, to } = rangeOf(query, clock.nowMicros(), firstPage)
      const after = page && { observedAt: page[0], id: page[1] }
      const question = { tenant: tenantOf(), device, metric, from, to, minScore, order, after, limit: limit + 1 }
      const rows = await askAnomalies(clickhouse, question, goneSignal(reply))
      return pageOf(rows, limit, anomalyOfRow, ({ observedMicros, id }) => ({
        kind,
        key: [observedMicros, id, from, to],
      }))
    },
  )

  app.get(
    '/v1/anomalies/counts',
    {
      schema: {
        summary: 'How many anomalies there are, by device',
        tags: ['anomalies'],
        querystring: z.strictObject({
          ...anomaliesAsked,
          limit: limitParameter(thingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: anomalyCountsSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query }, reply) => {
      const { device = everyName, metric = everyName, minScore = 0, limit } = query
      const kind = 'anomaly-counts'
      const page = query.after === undefined ? undefined : decodePage(kind, ['string', 'number', 'number'], query.after)
      const { from, to } = rangeOf(query, clock.nowMicros(), page && { from: page[1], to: page[2] })
      const question = { tenant: tenantOf(), device, metric, from, to, minScore, after: page?.[0], limit: limit + 1 }
      const { total, rows } = await askAnomalyCounts(clickhouse, question, goneSignal(reply))
      const counts = pageOf(
        rows,
        limit,
        (row) => row,
        (last) => ({ kind, key: [last.device, from, to] }),
      )
      return { total, ...counts }
    },
  )
}
