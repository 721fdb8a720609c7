// Live readings as server-sent events: `curl -N` works, a browser's EventSource reconnects by itself and resumes where it was.
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import type { Micros } from '../../domain/reading.ts'
import { LimitError, RequestError } from '../../runtime/errors.ts'
import { type ApiApp, type ApiContext, tenantOf } from '../context.ts'
import { parseInstant, resolveInstant } from '../instant.ts'
import { liveModes } from '../live/channel.ts'
import { cursorLengthMax, decodeCursor } from '../live/cursor.ts'
import { decodeHistoryCursor } from '../live/history.ts'
import type { LiveStart } from '../live/hub.ts'
import type { LiveEventName, ViewerTransport } from '../live/viewer.ts'
import { deviceParameter, everyName, metricParameter } from '../parameters.ts'
import { problemSchema } from '../wire.ts'

const keepAliveMs = 15_000
/** How long an ordered close may take to go out. */
const endMsMax = 2_000

export function liveRoutes(app: ApiApp, { hub, anomalies, log, clock }: ApiContext): void {
  app.get(
    '/v1/live',
    {
      exposeHeadRoute: false,
      schema: {
        summary: 'Live readings as server-sent events',
        description:
          'Events: `readings` {cursor, items: [{device, metric, observedAt, value or text}]}, `anomaly` (as in /v1/anomalies), `caught-up` {cursor} (once), `gap` {cause, from, to}, ' +
          '`bye` {reason, cursor} before every ordered close. `id:` is the cursor. A viewer that stays behind gets `bye` with the reason `slow`.',
        tags: ['live'],
        querystring: z.strictObject({
          device: deviceParameter.optional(),
          metric: metricParameter.optional(),
          mode: z.enum(liveModes, 'must be latest or every').default('latest').meta({
            description:
              '`latest`: at most 20 frames a second, the newest value a series; `every`: each reading once, in log order',
          }),
          anomalies: z.enum(['true', 'false'], 'must be true or false').default('false').meta({
            description: 'Anomalies of these series too, as they are found; those of the past are in /v1/anomalies',
          }),
          since: z.string().max(cursorLengthMax).optional().meta({
            description:
              'A cursor, or an instant (history by observedAt, then live); default: now. The header Last-Event-ID leads',
          }),
        }),
        response: {
          200: {
            description: 'Events, until either side ends it',
            content: { 'text/event-stream': { schema: z.string() } },
          },
          400: problemSchema,
          503: problemSchema,
        },
      },
    },
    async (request, reply) => {
      const { device = everyName, metric = everyName, mode, since } = request.query
      const lastEventId = request.headers['last-event-id']
      const asked = typeof lastEventId === 'string' && lastEventId !== '' ? lastEventId : since
      const start = startOf(asked, log.partitions, clock.nowMicros())
      const transport = new SseTransport(reply.raw)
      try {
        const viewer = hub.open({ tenant: tenantOf(), device, metric, mode }, transport, start)
        transport.begin(reply)
        if (request.query.anomalies === 'true') anomalies.watch({ tenant: tenantOf(), device, metric }, viewer)
        reply.raw.on('drain', () => viewer.onWritable())
        reply.raw.on('close', () => viewer.leave())
        // It went away while we looked.
        if (reply.raw.destroyed) viewer.leave()
      } catch (error) {
        if (!(error instanceof LimitError)) throw error
        throw new RequestError(503, 'too-many-viewers', 'There are too many live viewers', error.message)
      }
    },
  )
}

function startOf(since: string | undefined, partitions: number, now: Micros): LiveStart {
  if (since === undefined || since === 'now') return 'now'
  const cursor = decodeCursor(since) ?? decodeHistoryCursor(since, partitions)
  if (cursor) return cursor
  const asked = parseInstant(since)
  if (!('problem' in asked)) return { instant: resolveInstant(asked, now) }
  const message = `is neither a cursor of this stream nor an instant: it ${asked.problem}`
  throw new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `since ${message}`, [
    { path: 'since', message },
  ])
}

/** Server-sent events (WHATWG HTML, 9.2). JSON has no line breaks, so each event has one data line. */
class SseTransport implements ViewerTransport {
  private readonly response: ServerResponse
  private keepAlive: NodeJS.Timeout | undefined

  constructor(response: ServerResponse) {
    this.response = response
  }

  begin(reply: FastifyReply): void {
    reply.hijack()
    this.response.writeHead(200, {
      ...(reply.getHeaders() as Record<string, string>),
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store',
      // The stream's end is the connection's: a peer sees it, and a drain needs not wait.
      connection: 'close',
      'x-accel-buffering': 'no',
    })
    this.response.write('retry: 1000\n\n')
    // A quiet stream looks dead to proxies; and only writing shows that a peer has gone.
    this.keepAlive = setInterval(() => {
      if (!this.response.writableNeedDrain) this.response.write(': keep-alive\n\n')
    }, keepAliveMs)
    this.keepAlive.unref()
    this.response.on('close', () => clearInterval(this.keepAlive))
  }

  write(event: LiveEventName, cursor: string, data: string): boolean {
    const id = cursor === '' ? '' : `id: ${cursor}\n`
    return this.response.write(`event: ${event}\n${id}data: ${data}\n\n`)
  }

  end(): void {
    clearInterval(this.keepAlive)
    this.response.end()
    // What the peer never reads would keep the connection for ever.
    setTimeout(() => this.response.destroy(), endMsMax).unref()
  }
}
