// Before any route: who asks, by which name, and from which page. What needs nobody to be known is open: whether the process lives and is ready,
// and the way in.
import type { FastifyRequest } from 'fastify'
import { type Asking, challengeOf, type ViewerAccess } from '../runtime/access/viewer-access.ts'
import type { RequestError } from '../runtime/errors.ts'
import type { ApiApp } from './context.ts'

const openRoutes: ReadonlySet<string | undefined> = new Set([
  '/healthz',
  '/readyz',
  '/login',
  '/logout',
  '/assets/:version/:name',
])
const questions: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS'])

export function guardRequests(app: ApiApp, access: ViewerAccess): void {
  app.addHook('onRequest', async (request, reply) => {
    const asking = askingOf(request)
    const page = questions.has(request.method) ? 'any' : 'same-port'
    const isOpen = openRoutes.has(request.routeOptions.url)
    const problem = isOpen ? access.refuseForeign(asking, page) : access.authorizeViewer(asking, page)
    if (problem === undefined) return
    if (problem.status === 401 && wantsPage(request)) {
      return reply.redirect(`/login?${new URLSearchParams({ next: request.url })}`, 303)
    }
    refuse(problem, (name, value) => reply.header(name, value))
  })
}

function askingOf({ headers: { authorization, cookie, host, origin } }: FastifyRequest): Asking {
  return { authorization, cookie, host, origin }
}

function refuse(problem: RequestError, header: (name: string, value: string) => void): never {
  const challenge = challengeOf(problem)
  if (challenge !== undefined) header('www-authenticate', challenge)
  throw problem
}

/** A person in a browser is shown the way in; a program is told. */
function wantsPage({ method, url, headers }: FastifyRequest): boolean {
  if (method !== 'GET' || url.startsWith('/v1/') || headers.authorization !== undefined) return false
  return headers.accept?.includes('text/html') === true
}
