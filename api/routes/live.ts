// Live readings as server-sent events: `curl -N` works, a browser's EventSource reconnects by itself and resumes where it was.
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'
import { z } from 'zod'
import type { ViewerAccess } from '../../runtime/access/viewer-access.ts'
import { LimitError } from '../../runtime/errors.ts'
import { type ApiApp, type ApiContext, tenantOf } from '../context.ts'
import type { LiveFrame } from '../live/frame.ts'
import type { ViewerTransport } from '../live/outbox.ts'
import { parseStart, subscriptionQuery, tooManyViewers } from '../live/subscription.ts'
import { everyName } from '../parameters.ts'
import { problemSchema } from '../wire.ts'

const keepAliveMs = 15_000
/** How long an ordered close may take to go out. */
const endMsMax = 2_000

export function liveRoutes(app: ApiApp, { hub, anomalies, log, clock }: ApiContext, access: ViewerAccess): void {
  app.get(
    '/v1/live',
    {
      exposeHeadRoute: false,
      schema: {
        summary: 'Live readings as server-sent events',
        description:
          'Events: `readings` {cursor, items: [{device, metric, observedAt, value or text}]}, `revision` {cursor, device, metric, observedAt, value or text, resolution, from, to} ' +
          '(older than the newest sent of its series, or a correction), `anomaly` (as in /v1/anomalies), `caught-up` {cursor} (once), `gap` {cause, from, to}, ' +
          '`bye` {reason, cursor} before every ordered close. `id:` is the cursor. A viewer that stays behind gets `bye` with the reason `slow`. ' +
          'The same over WebSocket on the live port.',
        tags: ['live'],
        querystring: subscriptionQuery,
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
      const start = parseStart(asked, { partitions: log.partitions, now: clock.nowMicros() })
      try {
        hub.requireRoom()
        const transport = new SseTransport(reply.raw)
        transport.begin(reply)
        const { authorization, cookie } = request.headers
        const outbox = hub.connect(transport, access.sessionOf({ authorization, cookie }))
        reply.raw.on('drain', () => outbox.onWritable())
        reply.raw.on('close', () => outbox.leave())
        const viewer = hub.open({ tenant: tenantOf(), device, metric, mode }, outbox, start)
        if (request.query.anomalies === 'true') anomalies.watch({ tenant: tenantOf(), device, metric }, viewer, start)
        // It went away while we looked.
        if (reply.raw.destroyed) outbox.leave()
      } catch (error) {
        if (!(error instanceof LimitError)) throw error
        throw tooManyViewers(error.message)
      }
    },
  )
}

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

  sizeOf(frame: LiveFrame): number {
    return frame.streamBytes().length
  }

  write(frame: LiveFrame): boolean {
    return this.response.write(frame.streamBytes())
  }

  end(): void {
    clearInterval(this.keepAlive)
    this.response.end()
    // What the peer never reads would keep the connection for ever.
    setTimeout(() => this.response.destroy(), endMsMax).unref()
  }
}
