// What could not be used: browse, and see the bytes.
import { z } from 'zod'
import { RequestError } from '../../runtime/errors.ts'
import { type ApiApp, type ApiContext, goneSignal, tenantOf } from '../context.ts'
import { toMillis } from '../instant.ts'
import { decodePage, encodePage } from '../page.ts'
import { afterParameter, deviceParameter, everyName, limitParameter, thingsLimitMax } from '../parameters.ts'
import { askDeadLetter, askDeadLetters, type DeadLetterRow } from '../queries/dead-letters.ts'
import { type DeadLetterAnswer, deadLetterDetailSchema, deadLettersSchema, problemSchema } from '../wire.ts'

export function deadLetterRoutes(app: ApiApp, { clickhouse }: ApiContext): void {
  app.get(
    '/v1/dead-letters',
    {
      schema: {
        summary: 'What could not be used, newest first',
        tags: ['dead letters'],
        querystring: z.strictObject({
          reason: z
            .union([z.string(), z.array(z.string()).max(100)])
            .transform((given) => (typeof given === 'string' ? [given] : given))
            .optional()
            .meta({ description: 'Slug of a reason; may be given several times' }),
          device: deviceParameter.optional(),
          limit: limitParameter(thingsLimitMax),
          after: afterParameter.optional(),
        }),
        response: { 200: deadLettersSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query: { reason: reasons = [], device = everyName, limit, after } }, reply) => {
      const page = after === undefined ? undefined : decodePage('dead-letters', ['number', 'string'], after)
      const question = {
        tenant: tenantOf(),
        device,
        reasons,
        after: page && { receivedAt: page[0], id: page[1] },
        limit: limit + 1,
      }
      const rows = await askDeadLetters(clickhouse, question, goneSignal(reply))
      const items = rows.slice(0, limit).map(deadLetterOfRow)
      const last = rows[limit - 1]
      if (rows.length <= limit || !last) return { items, next: null }
      return { items, next: encodePage('dead-letters', [last.receivedMicros, last.id]) }
    },
  )

  app.get(
    '/v1/dead-letters/:id',
    {
      schema: {
        summary: 'One dead letter, with its bytes',
        tags: ['dead letters'],
        params: z.object({ id: z.string() }),
        querystring: z.strictObject({}),
        response: { 200: deadLetterDetailSchema, 404: problemSchema, 503: problemSchema },
      },
    },
    async ({ params: { id } }, reply) => {
      // The id begins with when it was received, which is where the table keeps it.
      const receivedAt = /^[0-9a-f]{16}-[0-9a-f]{8}$/.test(id) ? Number.parseInt(id.slice(0, 16), 16) : Number.NaN
      const row = Number.isSafeInteger(receivedAt)
        ? await askDeadLetter(clickhouse, { tenant: tenantOf(), id, receivedAt }, goneSignal(reply))
        : undefined
      if (!row) throw new RequestError(404, 'unknown-dead-letter', 'No such dead letter', 'There is none with this id.')
      return { ...deadLetterOfRow(row), payload: row.payload }
    },
  )
}

function deadLetterOfRow({ receivedMicros, ...row }: DeadLetterRow): DeadLetterAnswer {
  const { id, device, reason, detail, metric, codec, origin } = row
  return { id, device, reason, detail, metric, codec, origin, receivedAt: toMillis(receivedMicros) }
}
