// For operators and their tools: alive, ready, instruments, and the path of readings stage by stage.
import { z } from 'zod'
import { renderInstruments } from '../../runtime/instruments.ts'
import { readinessOf, renderPartsUp } from '../../runtime/readiness.ts'
import { type ApiApp, type ApiContext, tenantOf } from '../context.ts'
import { hasReached } from '../live/cursor.ts'
import { isOnline } from '../live/last-values.ts'
import type { PipelineRates } from '../pipeline-rates.ts'
import {
  aliveSchema,
  type PipelineAnswer,
  pipelineSchema,
  problemSchema,
  type ReadyAnswer,
  readySchema,
} from '../wire.ts'

export function operationRoutes(app: ApiApp, context: ApiContext, rates: PipelineRates): void {
  app.get(
    '/healthz',
    {
      schema: {
        summary: 'The process is alive',
        tags: ['operations'],
        response: { 200: aliveSchema },
      },
    },
    async () => ({ status: 'ok' as const }),
  )

  app.get(
    '/readyz',
    {
      schema: {
        summary: 'Ready to do its job, with the state of each part',
        tags: ['operations'],
        response: { 200: readySchema, 503: readySchema },
      },
    },
    async (_request, reply) => {
      const answer = await readiness(context)
      if (answer.status === 'not-ready') reply.header('retry-after', '1')
      return reply.status(answer.status === 'ready' ? 200 : 503).send(answer)
    },
  )

  app.get(
    '/metrics',
    {
      schema: {
        summary: 'Instruments of all processes, as Prometheus text',
        tags: ['operations'],
        response: { 200: { description: 'Prometheus text 0.0.4', content: { 'text/plain': { schema: z.string() } } } },
      },
    },
    async (_request, reply) => {
      const statuses = await context.status.all()
      const { parts } = await readiness(context)
      return reply
        .type('text/plain; version=0.0.4; charset=utf-8')
        .send(renderInstruments(statuses.map(({ instruments }) => instruments)) + renderPartsUp(parts))
    },
  )

  app.get(
    '/v1/pipeline',
    {
      schema: {
        summary: 'The path of readings: received, durable, stored, seen, each with its rate and lag',
        tags: ['operations'],
        querystring: z.strictObject({}),
        response: { 200: pipelineSchema, 500: problemSchema },
      },
    },
    () => pipeline(context, rates),
  )
}

async function readiness({ status, clock }: ApiContext): Promise<ReadyAnswer> {
  return readinessOf(await status.all(), clock.nowMicros() / 1000)
}

async function pipeline(
  { status, log, feed, hub, lastValues, clock }: ApiContext,
  rates: PipelineRates,
): Promise<PipelineAnswer> {
  const now = clock.nowMicros()
  const statuses = await status.all()
  rates.add(statuses, feed.seenReadings, now / 1000)
  const ingest = statuses.find((each) => each.ingest)?.ingest
  const stored = statuses.find((each) => each.stored)?.stored
  const end = await log.end('readings').catch(() => hub.position)
  const isSeen = hasReached(hub.position, end)
  const durableLagMs = ingest?.durableLagMs ?? 0
  const tenant = tenantOf()
  let total = 0
  let online = 0
  for (const device of lastValues.devices.values()) {
    if (device.tenant !== tenant || device.lastReceivedAt === 0) continue
    total++
    if (isOnline(device, now)) online++
  }
  const stage = (name: Parameters<PipelineRates['perSecond']>[0], readings: number | undefined, lagMs: number) => ({
    total: readings ?? 0,
    perSecond: rates.perSecond(name),
    lagMs: Math.max(0, Math.round(lagMs)),
  })
  return {
    at: now / 1000,
    stages: {
      received: stage('received', ingest?.receivedReadings, 0),
      durable: stage('durable', ingest?.durableReadings, durableLagMs),
      stored: stage('stored', stored?.storedReadings, stored?.storedLagMs ?? 0),
      seen: stage('seen', feed.seenReadings, isSeen ? 0 : (now - feed.seenReceivedAt) / 1000),
    },
    connections: ingest?.connections ?? 0,
    viewers: hub.viewerCount,
    deadLettered: ingest?.deadLettered ?? 0,
    refused: ingest?.refused ?? 0,
    devices: { total, online },
    series: lastValues.seriesCount,
  }
}
