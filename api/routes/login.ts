// The way in for people: the admin token once, in a form, for a session in a cookie that scripts can't read and other sites' pages don't send.
// The form itself is a page (dashboards/login.tsx).
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { ViewerAccess } from '../../runtime/access/viewer-access.ts'
import type { ApiApp } from '../context.ts'

const formBytesMax = 4_096
const hidden = { schema: { hide: true } as object }

export function loginRoutes(app: ApiApp, access: ViewerAccess): void {
  app.register(async (scope) => {
    scope.removeAllContentTypeParsers()
    scope.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string', bodyLimit: formBytesMax },
      (_request, body, done) => done(null, new URLSearchParams(String(body))),
    )
    scope.post('/login', hidden, async (request, reply) => {
      const form = request.body instanceof URLSearchParams ? request.body : new URLSearchParams()
      const next = ownPath(form.get('next'))
      const cookie = access.sessionFor((form.get('token') ?? '').trim(), { isSecure: cameByTls(request) })
      if (cookie === undefined && access.isRequired)
        return reply.redirect(`/login?${new URLSearchParams({ next, wrong: '1' })}`, 303)
      if (cookie !== undefined) reply.header('set-cookie', cookie)
      return go(reply, next)
    })
    scope.post('/logout', hidden, async (request, reply) => {
      access.endSession(request.headers.cookie)
      reply.header('set-cookie', access.noSession)
      return go(reply, '/login')
    })
  })
}

function go(reply: FastifyReply, path: string): FastifyReply {
  return reply.header('cache-control', 'no-store').redirect(path, 303)
}

/** A path on this server and nothing else: what comes in a link must not lead elsewhere. */
function ownPath(path: string | null): string {
  if (path === null || !/^\/(?![/\\])[\x21-\x5b\x5d-\x7e]*$/.test(path)) return '/'
  const url = new URL(path, 'http://own.invalid')
  return url.host === 'own.invalid' && !url.pathname.startsWith('//') ? `${url.pathname}${url.search}` : '/'
}

/** Behind a proxy that adds TLS. Said by anybody it does no more than keep a cookie from plain connections. */
function cameByTls({ headers }: FastifyRequest): boolean {
  return headers['x-forwarded-proto'] === 'https'
}
