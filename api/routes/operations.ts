// For operators and their tools: alive, ready, instruments, and the path of readings stage by stage.
import { z } from 'zod'
import type { EventLog } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { readInstrument, renderInstruments } from '../../runtime/instruments.ts'
import { readinessOf, renderPartsUp, statusAgeMsMax } from '../../runtime/readiness.ts'
import type { ProcessStatus } from '../../runtime/status.ts'
import { type ApiApp, type ApiContext, tenantOf } from '../context.ts'
import { limitsHit } from '../limits-hit.ts'
import { hasReached } from '../live/cursor.ts'
import { isOnline, type LastValues } from '../live/last-values.ts'
import { detectedReadings, type PipelineRates, type StageTotals } from '../pipeline-rates.ts'
import {
  aliveSchema,
  type PipelineAnswer,
  pipelineSchema,
  problemSchema,
  type ReadyAnswer,
  readySchema,
} from '../wire.ts'

const waitingMsMax = 1_000
/** By their groups in the log. */
const consumers = [
  { group: 'writer', topic: 'readings' },
  { group: 'writer', topic: 'anomalies' },
  { group: 'writer', topic: 'dead-letters' },
  { group: 'detector', topic: 'readings' },
] as const

export function operationRoutes(app: ApiApp, context: ApiContext, rates: PipelineRates): void {
  const waiting = new WaitingChunks(context.log)
  app.get(
    '/healthz',
    {
      schema: {
        summary: 'The process is alive',
        tags: ['operations'],
        querystring: z.strictObject({}),
        response: { 200: aliveSchema, 400: problemSchema },
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
        querystring: z.strictObject({}),
        response: { 200: readySchema, 400: problemSchema, 503: readySchema },
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
        querystring: z.strictObject({}),
        response: {
          200: { description: 'Prometheus text 0.0.4', content: { 'text/plain': { schema: z.string() } } },
          400: problemSchema,
        },
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
        summary:
          'The path of readings: received, durable, stored, seen, detected, each with its rate and lag; what is not known is null',
        tags: ['operations'],
        querystring: z.strictObject({}),
        response: { 200: pipelineSchema, 500: problemSchema },
      },
    },
    () => pipeline(context, rates, waiting),
  )
}

async function readiness({ status, clock }: ApiContext): Promise<ReadyAnswer> {
  return readinessOf(await status.all(), clock.nowMicros() / 1000)
}

/** What a group of readers has still to commit; asked of the log at most about once a second, however many look. */
class WaitingChunks {
  private asked: Promise<PipelineAnswer['consumers']> | undefined
  private askedAt = 0
  private readonly log: EventLog

  constructor(log: EventLog) {
    this.log = log
  }

  read(): Promise<PipelineAnswer['consumers']> {
    const now = performance.now()
    if (this.asked === undefined || now - this.askedAt > waitingMsMax) {
      this.askedAt = now
      this.asked = Promise.all(consumers.map((each) => this.ask(each)))
    }
    return this.asked
  }

  private async ask({ group, topic }: (typeof consumers)[number]): Promise<PipelineAnswer['consumers'][number]> {
    try {
      const [end, committed] = await Promise.all([this.log.end(topic), this.log.committed(group, topic)])
      // A group that has never committed may stand at a beginning that retention has moved: that is not known here.
      if (committed.size === 0 && end.size > 0) return { group, topic, waitingChunks: null }
      let waitingChunks = 0
      for (const [partition, offset] of end) waitingChunks += Math.max(0, offset - (committed.get(partition) ?? 0))
      return { group, topic, waitingChunks }
    } catch {
      return { group, topic, waitingChunks: null }
    }
  }
}

async function pipeline(
  { status, log, feed, hub, lastValues, clock }: ApiContext,
  rates: PipelineRates,
  waiting: WaitingChunks,
): Promise<PipelineAnswer> {
  const now = clock.nowMicros()
  const nowMs = now / 1000
  const statuses = await status.all()
  rates.add(statuses, feed.seenReadings, nowMs)
  const ingest = heard(statuses, nowMs, 'ingest', (each) => each.ingest)
  const writer = heard(statuses, nowMs, 'writer', (each) => each.stored)
  const detector = heard(statuses, nowMs, 'detector', detectionOf)
  const end = await log.end('readings').catch(() => hub.position)
  const isSeen = hasReached(hub.position, end)
  const { total, online } = countDevices(lastValues, now)
  const stage = (name: keyof StageTotals, readings: number | undefined, lagMs: number | undefined) => ({
    total: readings ?? null,
    perSecond: readings === undefined ? null : rates.perSecond(name),
    lagMs: lagMs === undefined ? null : Math.max(0, Math.round(lagMs)),
  })
  const reachedAt = detector.value?.reachedAt
  const hasDetected = reachedAt !== undefined && reachedAt >= feed.seenReceivedAt - 1
  return {
    at: nowMs,
    stages: {
      received: stage('received', ingest.value?.receivedReadings, ingest.value && 0),
      durable: stage('durable', ingest.value?.durableReadings, ingest.value?.durableLagMs),
      stored: stage('stored', writer.value?.storedReadings, writer.value?.storedLagMs),
      seen: stage('seen', feed.seenReadings, isSeen ? 0 : (now - feed.seenReceivedAt) / 1000),
      detected: stage(
        'detected',
        detector.value?.readings,
        reachedAt === undefined ? undefined : hasDetected ? 0 : (now - reachedAt) / 1000,
      ),
    },
    connections: ingest.value?.connections ?? null,
    doors: ingest.status ? doorsOf(ingest.status) : null,
    viewers: hub.viewerCount,
    deadLettered: ingest.value?.deadLettered ?? null,
    refused: ingest.value?.refused ?? null,
    devices: { total, online },
    series: lastValues.seriesCount,
    consumers: await waiting.read(),
    log: ingest.status ? logOf(ingest.status) : null,
    limits: limitsHit(statuses),
    unknown: { ingest: ingest.why, writer: writer.why, detector: detector.why },
  }
}

/** What a role says of itself, or why nobody here knows. */
function heard<Value>(
  statuses: readonly ProcessStatus[],
  nowMs: number,
  role: string,
  read: (status: ProcessStatus) => Value | undefined,
): { readonly value?: Value; readonly status?: ProcessStatus; readonly why: string | null } {
  for (const status of statuses) {
    const value = read(status)
    if (value === undefined) continue
    const ageMs = nowMs - status.at
    if (ageMs <= statusAgeMsMax) return { value, status, why: null }
    return { why: `The process ${status.process} has said nothing for ${Math.round(ageMs / 1000)} s.` }
  }
  return { why: `The role ${role} does not run together with this api, or has not said anything yet.` }
}

function detectionOf({ parts, instruments }: ProcessStatus) {
  if (!('detector' in parts)) return undefined
  const readings = readInstrument(instruments, detectedReadings)
  const reachedSeconds = readInstrument(instruments, 'weir_detector_reached_seconds')
  if (readings === undefined) return undefined
  return {
    readings,
    reachedAt: reachedSeconds === undefined || reachedSeconds === 0 ? undefined : reachedSeconds * 1e6,
  }
}

function doorsOf({ instruments }: ProcessStatus): PipelineAnswer['doors'] {
  const mqtt = readInstrument(instruments, 'weir_mqtt_connections')
  const gateway = readInstrument(instruments, 'weir_gateway_sockets')
  return mqtt === undefined || gateway === undefined ? null : { mqtt, gateway }
}

function logOf({ instruments }: ProcessStatus): PipelineAnswer['log'] {
  const bytes = readInstrument(instruments, 'weir_log_bytes')
  const quotaBytes = readInstrument(instruments, 'weir_log_quota_bytes')
  return bytes === undefined || bytes === 0 || quotaBytes === undefined ? null : { bytes, quotaBytes }
}

function countDevices(lastValues: LastValues, now: Micros): PipelineAnswer['devices'] {
  const tenant = tenantOf()
  let total = 0
  let online = 0
  for (const device of lastValues.devices.values()) {
    if (device.tenant !== tenant || device.lastReceivedAt === 0) continue
    total++
    if (isOnline(device, now)) online++
  }
  return { total, online }
}
