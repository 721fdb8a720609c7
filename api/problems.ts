// Every error as application/problem+json (RFC 9457), in one place: what callers did wrong is explained to them, what went wrong here is logged
// and said without its insides.
import { STATUS_CODES } from 'node:http'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { z } from 'zod'
import { RequestError, RetryableError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import type { RejectedError } from '../storage/classify-error.ts'
import { isWithoutTables } from './queries/question.ts'
import type { Problem } from './wire.ts'

export const problemMediaType = 'application/problem+json; charset=utf-8'

export function invalidParameters(error: z.ZodError): RequestError {
  const errors = error.issues.flatMap((issue) =>
    issue.code === 'unrecognized_keys'
      ? issue.keys.map((key) => ({ path: key, message: 'is not a parameter of this route' }))
      : // Only a body can be wrong as a whole.
        [{ path: issue.path.join('.') || 'body', message: issue.message }],
  )
  // What is wrong with the first of them: an answer must not be many times as long as what was asked.
  const told = errors.slice(0, errorsMax).map(({ path, message }) => ({ path: path.slice(0, pathLengthMax), message }))
  const more = errors.length > told.length ? `; and ${errors.length - told.length} more` : ''
  const detail = told.map(({ path, message }) => `${path} ${message}`).join('; ') + more
  return new RequestError(400, 'invalid-parameter', 'A parameter is not usable', detail, told)
}

const errorsMax = 20
const pathLengthMax = 100

/** ClickHouse's TIMEOUT_EXCEEDED and MEMORY_LIMIT_EXCEEDED. */
const costCodes = new Set(['159', '241'])
/** ClickHouse's TOO_MANY_SIMULTANEOUS_QUERIES. */
const busyCode = '202'
/** A question may take ten seconds: a place is free before long. */
const busyRetrySeconds = 5

/** The store can't be asked at the moment, or not for so much. */
function storeProblem(error: RetryableError | RejectedError): RequestError & { readonly retryAfterSeconds: number } {
  const code = String((error.cause as { code?: unknown } | undefined)?.code)
  if (code === busyCode)
    return Object.assign(
      new RequestError(
        503,
        'store-busy',
        'The table is busy with other questions',
        'All places for questions are held by others that take long, and none became free in time. Nothing is wrong with this question: ask again in a few seconds. If it stays so, somebody asks for too much: shorter ranges, fewer series and coarser resolutions take less. Readings are still taken in and kept, and /v1/latest and live go on.',
      ),
      { cause: error, retryAfterSeconds: busyRetrySeconds },
    )
  const isTooCostly = costCodes.has(code)
  const problem = isTooCostly
    ? new RequestError(
        503,
        'question-too-costly',
        'The question took more than it may',
        'The table ended it at the limit on time or memory. Ask for fewer series, a shorter range or a coarser resolution, or try again later.',
      )
    : new RequestError(
        503,
        'store-away',
        'The table cannot be asked at the moment',
        'Readings are still taken in and kept, and the latest values are answered. Try again in a moment.',
      )
  const waitMs = error instanceof RetryableError ? error.retryAfterMs : 0
  return Object.assign(problem, { cause: error, retryAfterSeconds: Math.max(1, Math.ceil(waitMs / 1000)) })
}

export function installProblems(app: FastifyInstance, logger: Logger): void {
  const routes: { readonly method: string; readonly pattern: RegExp }[] = []
  app.addHook('onRoute', (route) => {
    const pattern = new RegExp(
      `^${route.url
        .replace(/[.]/g, '\\.')
        .replace(/:[^/]+/g, '[^/]+')
        .replace(/\*/g, '.*')}$`,
    )
    for (const method of [route.method].flat()) routes.push({ method, pattern })
  })
  app.setErrorHandler((error: FastifyError, request, reply) => sendError(error, request, reply, logger))
  app.setNotFoundHandler((request, reply) => {
    const path = request.url.split('?', 1)[0]!
    const allowed = [...new Set(routes.filter(({ pattern }) => pattern.test(path)).map(({ method }) => method))]
    if (allowed.length > 0) {
      const detail = `${request.method} is not possible on ${path}; ${allowed.join(', ')} is.`
      reply.header('allow', allowed.join(', '))
      return sendProblem(reply, new RequestError(405, 'method-not-allowed', 'Not with this method', detail))
    }
    const detail = `There is nothing at ${path}. /docs lists every route.`
    return sendProblem(reply, new RequestError(404, 'unknown-route', 'No such route', detail))
  })
}

export function sendError(
  error: FastifyError,
  request: FastifyRequest,
  reply: FastifyReply,
  logger: Logger,
): FastifyReply {
  // Nobody waits any more; what was asked of the store for it was ended, which is this error.
  if (reply.raw.destroyed) return reply
  if (error instanceof RequestError) return sendProblem(reply, error)
  const cause: unknown = error
  if (cause instanceof RetryableError || isWithoutTables(cause)) return sendProblem(reply, storeProblem(cause))
  const status = error.statusCode ?? 500
  if (status >= 400 && status < 500) {
    const title = STATUS_CODES[status] ?? 'The request is not usable'
    const slug = title.toLowerCase().replace(/[^a-z]+/g, '-')
    return sendProblem(reply, new RequestError(status, slug, title, error.message))
  }
  logger.error({ error, route: request.routeOptions.url, request: request.id }, 'a request failed')
  const detail = `Something failed on our side; it is logged as request ${request.id}.`
  return sendProblem(reply, new RequestError(500, 'internal-error', 'Something failed on our side', detail))
}

function sendProblem(reply: FastifyReply, error: RequestError): FastifyReply {
  return reply.send(asProblem(reply, error))
}

export function problemOf({ slug, title, status, message, errors }: RequestError): Problem {
  const problem = { type: `/problems/${slug}`, title, status, detail: message }
  return errors.length > 0 ? { ...problem, errors: [...errors] } : problem
}

/** Makes the answer one of a problem, and gives its body. */
export function asProblem(reply: FastifyReply, error: RequestError): Problem {
  const problem = problemOf(error)
  if (error.status === 503) {
    const { retryAfterSeconds = 1 } = error as { retryAfterSeconds?: number }
    reply.header('retry-after', String(retryAfterSeconds))
  }
  reply.status(error.status).type(problemMediaType)
  return problem
}
