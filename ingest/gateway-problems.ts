// What the gateway says no with: problem+json (RFC 9457), as everywhere over HTTP.
import { RequestError } from '../runtime/errors.ts'
import type { Answer } from '../runtime/web-server.ts'

/** `more`: members of the problem beyond RFC 9457's own. */
export function problemAnswer(
  { status, slug, title, message }: RequestError,
  more: { readonly headers?: Readonly<Record<string, string>>; readonly deadLetter?: string; close?: boolean } = {},
): Answer {
  const { headers, deadLetter, close = false } = more
  const problem = { type: `/problems/${slug}`, title, status, detail: message, ...(deadLetter && { deadLetter }) }
  return {
    status,
    headers: {
      'content-type': 'application/problem+json; charset=utf-8',
      ...(status === 503 && { 'retry-after': '1' }),
      ...headers,
    },
    body: JSON.stringify(problem),
    close,
  }
}

export const unavailable = {
  logRefuses: (reason: string) =>
    new RequestError(
      503,
      'log-refuses',
      'Nothing can be kept at the moment',
      `${reason.replace(/\.$/, '')}. Nothing of this request was kept; send it again later.`,
    ),
  memoryUsed: () =>
    new RequestError(
      503,
      'intake-busy',
      'The intake has its hands full',
      'What is not durable yet uses all its memory. Nothing of this request was kept; send it again in a moment.',
    ),
  stopping: () =>
    new RequestError(503, 'stopping', 'Weir is stopping', 'Nothing of this request was kept; send it again later.'),
  notDurable: () =>
    new RequestError(
      503,
      'not-durable-yet',
      'It is not known yet whether this is kept',
      'The log has not answered in time. Send it again: a reading with a time of its own is stored once.',
    ),
}

/** A page of another site must not send readings through a person's browser. Programs send no Origin. */
export function foreignOrigin(origin: string, host: string): RequestError | undefined {
  if (origin === '' || hostnameOf(origin) === hostnameOf(`http://${host}`)) return undefined
  return new RequestError(
    403,
    'foreign-origin',
    'Not from a page of another site',
    `The page at ${origin.slice(0, 200)} may not send readings here; pages of this host may, on any port.`,
  )
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined
}
