// What could not be used: browse, see the bytes, put back.
import { z } from 'zod'
import { contentTypeOfCodec } from '../../domain/payload-codecs.ts'
import { RequestError } from '../../runtime/errors.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { type ApiApp, type ApiContext, goneSignal, tenantOf } from '../context.ts'
import { toMillis } from '../instant.ts'
import { decodePage, encodePage, pageOf } from '../page.ts'
import { afterParameter, deviceParameter, everyName, limitParameter, thingsLimitMax } from '../parameters.ts'
import { putBack } from '../put-back.ts'
import {
  askDeadLetter,
  askDeadLetterReasons,
  askDeadLetters,
  askPutBackMarks,
  type DeadLetterRow,
  notePutBack,
  type PutBackMark,
} from '../queries/dead-letters.ts'
import {
  type DeadLetterAnswer,
  deadLetterDetailSchema,
  deadLetterReasonsSchema,
  deadLettersSchema,
  type PutBackAnswer,
  problemSchema,
  putBackAllSchema,
  putBackSchema,
} from '../wire.ts'

/** Dead letters that one request puts back, and how long it goes on with that: `next` goes on, while there is still time to say so. */
const putBackMax = 1_000
const putBackMsMax = 8_000
/** The dead letters of one payload are this close together: it is put back once. */
const samePayloadMicros = 1_000

export function deadLetterRoutes(app: ApiApp, context: ApiContext): void {
  const { clickhouse, gatewayUrl, gatewayToken } = context
  const gateway = (): Gateway => ({ url: gatewayUrl(), token: gatewayToken })
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
      const signal = goneSignal(reply)
      const rows = await askDeadLetters(clickhouse, question, signal)
      const marks = await askPutBackMarks(clickhouse, { tenant: tenantOf(), ids: rows.map(({ id }) => id) }, signal)
      return pageOf(
        rows,
        limit,
        (row) => deadLetterOfRow(row, marks.get(row.id)),
        ({ receivedMicros, id }) => ({
          kind: 'dead-letters',
          key: [receivedMicros, id],
        }),
      )
    },
  )

  app.get(
    '/v1/dead-letters/reasons',
    {
      schema: {
        summary: 'How many are kept, by reason, most first',
        tags: ['dead letters'],
        querystring: z.strictObject({ device: deviceParameter.optional() }),
        response: { 200: deadLetterReasonsSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query: { device = everyName } }, reply) => {
      const rows = await askDeadLetterReasons(clickhouse, { tenant: tenantOf(), device }, goneSignal(reply))
      return {
        items: rows.map(({ reason, count, newestMicros }) => ({ reason, count, newestAt: toMillis(newestMicros) })),
      }
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
      const signal = goneSignal(reply)
      const row = await find(clickhouse, id, signal)
      const marks = await askPutBackMarks(clickhouse, { tenant: tenantOf(), ids: [id] }, signal)
      return { ...deadLetterOfRow(row, marks.get(id)), payload: row.payload }
    },
  )

  app.register(async (scope) => {
    // Whatever it says of itself, a body is the payload, byte by byte.
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body))
    putBackRoutes(scope as unknown as ApiApp, context, gateway)
  })
}

type Gateway = Parameters<typeof putBack>[0]

function putBackRoutes(app: ApiApp, { clickhouse, clock, logger }: ApiContext, gateway: () => Gateway): void {
  type Marked = PutBackMark & { readonly device: string }
  const markOf = ({ id, device }: Pick<DeadLetterRow, 'id' | 'device'>, done: PutBackAnswer): Marked => ({
    ...{ id, device, accepted: done.accepted, deadLettered: done.deadLettered },
    putBackMicros: clock.nowMicros(),
  })
  /** It was put back, whether or not that can be written down. */
  const note = async (marks: readonly Marked[]): Promise<void> => {
    try {
      await notePutBack(clickhouse, marks, { tenant: tenantOf() })
    } catch (error) {
      logger.warn(
        { error, ids: marks.slice(0, 10).map(({ id }) => id) },
        'dead letters were put back and could not be marked',
      )
    }
  }
  app.post(
    '/v1/dead-letters/:id/replay',
    {
      schema: {
        summary: 'Put one back: as it was kept, or as the body says',
        description:
          'An empty body puts the kept bytes back; any other is the mended payload, in the same codec unless `codec` says another.',
        tags: ['dead letters'],
        params: z.object({ id: z.string() }),
        querystring: z.strictObject({
          codec: z
            .enum(Object.keys(contentTypeOfCodec))
            .optional()
            .meta({ description: 'What it is read as; default: what it was sent as' }),
        }),
        response: { 200: putBackSchema, 404: problemSchema, 422: problemSchema, 503: problemSchema },
      },
    },
    async ({ params: { id }, query: { codec: readAs }, body }, reply) => {
      const signal = goneSignal(reply)
      const { device, codec, payload } = await find(clickhouse, id, signal)
      const mended = Buffer.isBuffer(body) && body.length > 0 ? body : Buffer.from(payload, 'base64')
      const done = await putBack(gateway(), { device, codec: readAs ?? codec, payload: mended }, signal)
      await note([markOf({ id, device }, done)])
      return done
    },
  )

  app.post(
    '/v1/dead-letters/replay',
    {
      schema: {
        summary: 'Put back all with a reason, newest first, up to 1,000 a request',
        tags: ['dead letters'],
        querystring: z.strictObject({
          reason: z.string().meta({ description: 'Slug of a reason' }),
          device: deviceParameter.optional(),
          after: afterParameter.optional(),
        }),
        response: { 200: putBackAllSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query: { reason, device = everyName, after } }, reply) => {
      const signal = goneSignal(reply)
      const until = performance.now() + putBackMsMax
      const page = after === undefined ? undefined : decodePage('put-back', ['number', 'string', 'string'], after)
      const from = page && { receivedAt: page[0], id: page[1] }
      const question = { tenant: tenantOf(), device, reasons: [reason], after: from, limit: putBackMax + 1 }
      const rows = await askDeadLetters(clickhouse, question, signal)
      const some = rows.slice(0, putBackMax)
      const done = { replayed: 0, accepted: 0, deadLettered: 0, unusable: 0 }
      // The page before this one may have ended amid the dead letters of a payload that it put back.
      let before: PutBackRow | undefined = page && { receivedMicros: page[0], id: page[1], device: page[2] }
      let last: DeadLetterRow | undefined
      const marks: Marked[] = []
      let came: PutBackAnswer | undefined
      try {
        for (const row of some) {
          if (last && performance.now() > until) break
          last = row
          if (before && isSamePayload(row, before)) {
            if (came) marks.push(markOf(row, came))
            continue
          }
          before = row
          came = undefined
          const { payload } = await find(clickhouse, row.id, signal)
          try {
            const { device, codec } = row
            came = await putBack(gateway(), { device, codec, payload: Buffer.from(payload, 'base64') }, signal)
            marks.push(markOf(row, came))
            done.replayed++
            done.accepted += came.accepted
            done.deadLettered += came.deadLettered
          } catch (error) {
            if (!(error instanceof RequestError) || error.status === 503) throw error
            done.unusable++
          }
        }
      } finally {
        await note(marks)
      }
      const isAll = last === rows.at(-1)
      const next = last && !isAll ? encodePage('put-back', [last.receivedMicros, last.id, last.device]) : null
      return { ...done, next }
    },
  )
}

async function find(clickhouse: ClickHouse, id: string, signal: AbortSignal) {
  // The id begins with when it was received, which is where the table keeps it.
  const receivedAt = /^[0-9a-f]{16}-[0-9a-f]{8}$/.test(id) ? Number.parseInt(id.slice(0, 16), 16) : Number.NaN
  const row = Number.isSafeInteger(receivedAt)
    ? await askDeadLetter(clickhouse, { tenant: tenantOf(), id, receivedAt }, signal)
    : undefined
  if (!row) throw new RequestError(404, 'unknown-dead-letter', 'No such dead letter', 'There is none with this id.')
  return row
}

type PutBackRow = Pick<DeadLetterRow, 'receivedMicros' | 'id' | 'device'>

/** An id ends with the CRC32 of its payload. */
function isSamePayload(row: PutBackRow, before: PutBackRow): boolean {
  return (
    row.device === before.device &&
    row.id.slice(-8) === before.id.slice(-8) &&
    before.receivedMicros - row.receivedMicros < samePayloadMicros
  )
}

function deadLetterOfRow({ receivedMicros, ...row }: DeadLetterRow, mark: PutBackMark | undefined): DeadLetterAnswer {
  const { id, device, reason, detail, metric, codec, origin } = row
  const putBack = mark
    ? { at: toMillis(mark.putBackMicros), accepted: mark.accepted, deadLettered: mark.deadLettered }
    : null
  return { id, device, reason, detail, metric, codec, origin, receivedAt: toMillis(receivedMicros), putBack }
}
