// The headers of every page: nothing but our own files runs or loads, so a hostile metric name that slipped through unescaped would still do nothing.
import type { FastifyReply, FastifyRequest } from 'fastify'

/** `live`: where the page may open its WebSocket, beside its own address. */
function policy(live: string | undefined): string {
  return [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    `connect-src 'self'${live === undefined ? '' : ` ${live}`}`,
    "base-uri 'none'",
    "form-action 'self'",
    "frame-ancestors 'none'",
  ].join('; ')
}

export type SendPage = (reply: FastifyReply, html: string, status?: number) => FastifyReply

export function pageSender(liveOf: (request: FastifyRequest) => string | undefined): SendPage {
  return (reply, html, status = 200) =>
    withPageHeaders(reply, liveOf(reply.request)).code(status).type('text/html; charset=utf-8').send(html)
}

export function withPageHeaders(reply: FastifyReply, live?: string): FastifyReply {
  return reply
    .header('content-security-policy', policy(live))
    .header('x-content-type-options', 'nosniff')
    .header('referrer-policy', 'same-origin')
    .header('cross-origin-opener-policy', 'same-origin')
    .header('cache-control', 'no-store')
}
