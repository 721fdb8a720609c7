// What the gateway says no with: problem+json (RFC 9457), as everywhere over HTTP.
import { challengeOf } from '../runtime/access/viewer-access.ts'
import { RequestError } from '../runtime/errors.ts'
import type { Answer } from '../runtime/web-server.ts'

/** `more`: members of the problem beyond RFC 9457's own. */
export function problemAnswer(
  refusal: RequestError,
  more: { readonly headers?: Readonly<Record<string, string>>; readonly deadLetter?: string; close?: boolean } = {},
): Answer {
  const { headers, deadLetter, close = false } = more
  const { status, slug, title, message, errors } = refusal
  const challenge = challengeOf(refusal)
  const problem = {
    ...{ type: `/problems/${slug}`, title, status, detail: message },
    ...(errors.length > 0 && { errors }),
    ...(deadLetter && { deadLetter }),
  }
  return {
    status,
    headers: {
      'content-type': 'application/problem+json; charset=utf-8',
      ...(status === 503 && { 'retry-after': '1' }),
      ...(challenge !== undefined && { 'www-authenticate': challenge }),
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

/** `waitMs`: until what the device sent before is paid for. */
export function rateLimited(waitMs: number): { problem: RequestError; headers: Readonly<Record<string, string>> } {
  const seconds = Math.max(1, Math.ceil(waitMs / 1000))
  const detail = `The device sends more readings a second than it may. Nothing of this request was kept; send it again in ${seconds} s.`
  const problem = new RequestError(429, 'rate-limit', 'Too fast', detail)
  return { problem, headers: { 'retry-after': String(seconds) } }
}

/** The device of a path or an address. */
export function invalidDeviceName(): RequestError {
  const message = 'must have 1 to 128 characters of A-Z a-z 0-9 . _ : - and @, and not be “.” or “..”'
  const errors = [{ path: 'device', message }]
  return new RequestError(400, 'invalid-device-name', 'No such name for a device', `The device ${message}.`, errors)
}

export function invalidParameter(name: string, message: string): RequestError {
  const path = name.slice(0, 100)
  return new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `${path} ${message}`, [
    { path, message },
  ])
}
