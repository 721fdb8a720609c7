// The routes of dead letters: list, one, its bytes, and the form that puts it back. That the form is one of ours is seen before any route, with all that
// changes something (api/guard.ts).
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { DeadLetterDetailAnswer } from '../api/wire.ts'
import type { NotAnswered, Questions } from './ask.ts'
import type { Assets } from './assets.ts'
import { DeadLetterPage, NoDeadLetter, type PutBackOutcome } from './dead-letter.tsx'
import { type DeadLetterFilter, DeadLettersPage } from './dead-letters.tsx'
import { mendedPayload, viewPayload } from './payload-view.ts'
import { type SendPage, withPageHeaders } from './security.ts'

export interface DeadLetterPagesOptions {
  readonly questions: Questions
  readonly assetsFor: (request: FastifyRequest) => Assets
  readonly send: SendPage
  readonly now: () => number
}

const listedMax = 50
/** A payload that may be mended, as base64 and percent-encoded. */
const formBytesMax = 512 * 1024
const hidden = { schema: { hide: true } as object }

interface WithId {
  Params: { id: string }
}

export function registerDeadLetterPages(app: FastifyInstance, options: DeadLetterPagesOptions): void {
  const { questions, assetsFor, send, now } = options
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string' }, (_request, body, done) =>
    done(null, new URLSearchParams(String(body))),
  )

  app.get('/dead-letters', hidden, async (request, reply) => {
    const filter = filterOf(request.query)
    const { reason, device, after } = filter
    const [letters, reasons] = await Promise.all([
      questions.deadLetters({
        reason: reason || undefined,
        device: device || undefined,
        after: after || undefined,
        limit: listedMax,
      }),
      questions.deadLetterReasons(),
    ])
    const assets = assetsFor(request)
    const page = <DeadLettersPage assets={assets} letters={letters} reasons={reasons} filter={filter} now={now()} />
    return send(reply, await page, letters.ok || letters.status === 400 ? 200 : 503)
  })

  app.get<WithId>('/dead-letters/:id', hidden, async (request, reply) => {
    const letter = await questions.deadLetter(request.params.id)
    if (!letter.ok) return sendNone(request, reply, letter)
    return sendLetter(request, reply, { letter: letter.value, outcome: outcomeOf(request.query) })
  })

  for (const form of ['bytes', 'base64'] as const) {
    app.get<WithId>(`/dead-letters/:id/${form}`, hidden, async (request, reply) => {
      const letter = await questions.deadLetter(request.params.id)
      if (!letter.ok) return sendNone(request, reply, letter)
      const { id, payload } = letter.value
      const name = `dead-letter-${id}.${form === 'bytes' ? 'bin' : 'base64.txt'}`
      return withPageHeaders(reply)
        .header('content-disposition', `attachment; filename="${name}"`)
        .type(form === 'bytes' ? 'application/octet-stream' : 'text/plain; charset=utf-8')
        .send(form === 'bytes' ? Buffer.from(payload, 'base64') : payload)
    })
  }

  app.post<WithId>('/dead-letters/:id/put-back', { ...hidden, bodyLimit: formBytesMax }, async (request, reply) => {
    const { id } = request.params
    const letter = await questions.deadLetter(id)
    if (!letter.ok) return sendNone(request, reply, letter)
    const form = request.body instanceof URLSearchParams ? request.body : new URLSearchParams()
    const draft = form.get('as') === 'mended' ? (form.get('payload') ?? '') : undefined
    const payload = payloadOf(form, draft)
    if (typeof payload === 'string') {
      return sendLetter(
        request,
        reply,
        { letter: letter.value, outcome: { kind: 'failed', detail: payload }, draft },
        422,
      )
    }
    const done = await questions.putBack(id, payload, form.get('codec') || undefined)
    if (!done.ok) {
      const outcome: PutBackOutcome = { kind: 'failed', detail: done.detail }
      return sendLetter(request, reply, { letter: letter.value, outcome, draft }, done.status === 422 ? 422 : 503)
    }
    // Loading the page again must not put it back again.
    const { accepted, deadLettered } = done.value
    const query = new URLSearchParams({ accepted: String(accepted), deadLettered: String(deadLettered) })
    return reply.redirect(`/dead-letters/${encodeURIComponent(id)}?${query}`, 303)
  })

  async function sendNone(request: FastifyRequest, reply: FastifyReply, why: NotAnswered): Promise<FastifyReply> {
    const isUnknown = why.status === 404
    const title = isUnknown ? 'There is none with this id' : "It can't be looked up just now"
    const page = <NoDeadLetter assets={assetsFor(request)} title={title} detail={why.detail} />
    return send(reply, await page, isUnknown ? 404 : 503)
  }

  async function sendLetter(
    request: FastifyRequest,
    reply: FastifyReply,
    shown: { letter: DeadLetterDetailAnswer; outcome: PutBackOutcome | undefined; draft?: string | undefined },
    status = 200,
  ): Promise<FastifyReply> {
    const { letter, outcome, draft } = shown
    const assets = assetsFor(request)
    const view = viewPayload(letter.payload)
    const page = <DeadLetterPage assets={assets} letter={letter} view={view} outcome={outcome} draft={draft} />
    return send(reply, await page, status)
  }
}

/** What is put back; or a sentence about what is wrong with the form. */
function payloadOf(form: URLSearchParams, draft: string | undefined): Uint8Array | string {
  if (draft === undefined) return new Uint8Array()
  const payload = mendedPayload(draft, form.get('encoding') === 'base64' ? 'base64' : 'text')
  if (payload === undefined) return 'What stands in the form is not base64.'
  // To the API an empty body means the kept bytes, which is not what was asked for.
  return payload.length === 0 ? 'There is nothing in the form to be put back.' : payload
}

function filterOf(query: unknown): DeadLetterFilter {
  const { reason = '', device = '', after = '' } = query as Record<string, unknown>
  const text = (given: unknown, length: number): string => String(given).trim().slice(0, length)
  return { reason: text(reason, 64), device: text(device, 129), after: text(after, 1_024) }
}

function outcomeOf(query: unknown): PutBackOutcome | undefined {
  const { accepted, deadLettered } = query as Record<string, unknown>
  const counts = [Number(accepted ?? Number.NaN), Number(deadLettered ?? Number.NaN)]
  if (!counts.every((count) => Number.isSafeInteger(count) && count >= 0)) return undefined
  return { kind: 'done', accepted: counts[0]!, deadLettered: counts[1]! }
}
