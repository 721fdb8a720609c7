// Who may look: programs by the admin token as a bearer, people by a session that they get for it at /login. One check for REST, server-sent events,
// pages and live WebSockets. Of sessions only those are kept that were signed out of: a cookie says until when it is good, and a key derived from the
// admin token signs it.
import { createHmac, randomBytes } from 'node:crypto'
import type { Clock } from '../clock.ts'
import { type AccessOptions, requiresAuth } from '../config.ts'
import { RequestError } from '../errors.ts'
import { bearerOf, isSameSecret, sha256Of } from './device-token.ts'
import { foreignHost, foreignOrigin, type OriginRules } from './request-origin.ts'

/** The headers of a request, or of the upgrade to a WebSocket. */
export interface Asking {
  readonly authorization?: string | undefined
  readonly cookie?: string | undefined
  readonly host?: string | undefined
  readonly origin?: string | undefined
}

/**
 * What the page that asks must be, when a page asks: a browser hides answers from other sites' pages, but lets them send anything and open any
 * WebSocket. `any` for a question, `same-port` for a change, `same-host` for a WebSocket on a port of its own.
 */
export type PageRule = 'any' | 'same-host' | 'same-port'

export interface ViewerSession {
  /** Signed out of, or run out. */
  isOver(): boolean
}

export interface ViewerAccess {
  readonly isRequired: boolean
  /** Why a viewer may not have this, as the problem to answer with (401, 403, 421; header: `challengeOf`); undefined: it may. */
  authorizeViewer(asking: Asking, page: PageRule): RequestError | undefined
  /** The part of it that does not ask who it is: the name that we are reached by, and the page that asks. */
  refuseForeign(asking: Asking, page: PageRule): RequestError | undefined
  /** The cookie for whoever gave this token; undefined: it is not the admin token. */
  sessionFor(token: string, options: { readonly isSecure: boolean }): string | undefined
  /** The session that a request rests on, for connections that might outlive it; undefined: on none, but a token, or nobody is asked. */
  sessionOf(asking: Asking): ViewerSession | undefined
  /** Signs out: the session is good no more, in this process. */
  endSession(cookie: string | undefined): void
  /** The cookie that ends a session. */
  readonly noSession: string
  /** For a request that this process makes to itself. */
  readonly ownAuthorization: string
}

const cookieName = 'weir_session'
const sessionMs = 12 * 60 * 60 * 1000
const cookieAttributes = 'Path=/; HttpOnly; SameSite=Strict'
const cookieLengthMax = 8_192
/** Sessions that were signed out of before they ran out; beyond it those that run out first are forgotten. Each took the admin token to make. */
const endedSessionsMax = 10_000

export function originRulesOf(config: AccessOptions): OriginRules {
  const { host, hostNames = [] } = config
  return { host, hostNames, checksHost: !requiresAuth(config) }
}

export interface ViewerAccessOptions {
  readonly config: AccessOptions
  readonly clock: Clock
  /** Whether a token is a device's: whoever shows one is told that it is not for looking. */
  readonly isDeviceToken?: (token: string) => boolean
}

export function createViewerAccess({ config, clock, isDeviceToken = () => false }: ViewerAccessOptions): ViewerAccess {
  const isRequired = requiresAuth(config)
  const rules = originRulesOf(config)
  const { adminToken } = config
  const admin = adminToken === undefined ? undefined : sha256Of(adminToken)
  const sessionKey = derive(adminToken ?? randomBytes(32).toString('hex'), 'session')
  const own = randomBytes(32).toString('base64url')
  const ownHash = sha256Of(own)

  const isToken = (token: string): boolean => admin !== undefined && isSameSecret(token, admin)
  const nowMs = (): number => clock.nowMicros() / 1000

  /** By content: until when it would have been good. In order of that, but for a clock that was set. */
  const ended = new Map<string, number>()

  /** What a session's cookie says, when we signed it. */
  function contentOf(cookie: string | undefined): string | undefined {
    const [until = '', chance = '', signature = ''] = sessionOf(cookie)?.split('.') ?? []
    const content = `${until}.${chance}`
    return isSameSecret(signature, sha256Of(sign(sessionKey, content))) ? content : undefined
  }

  const isOver = (content: string): boolean => ended.has(content) || Number.parseInt(content, 10) <= nowMs()

  function isSession(cookie: string | undefined): boolean {
    const content = contentOf(cookie)
    return content !== undefined && !isOver(content)
  }

  const access: ViewerAccess = {
    isRequired,

    refuseForeign({ host, origin }, page) {
      const { hostNames } = rules
      return (
        foreignHost(host, rules) ??
        (page === 'any' ? undefined : foreignOrigin(origin, host, { hostNames, samePort: page === 'same-port' }))
      )
    },

    authorizeViewer(asking, page) {
      const foreign = access.refuseForeign(asking, page)
      if (foreign !== undefined || !isRequired) return foreign
      const token = bearerOf(asking.authorization)
      if (token !== undefined) {
        if (isToken(token) || isSameSecret(token, ownHash)) return undefined
        return isDeviceToken(token) ? deviceToken() : wrongToken()
      }
      if (!isSession(asking.cookie)) return unauthorised()
      // A browser adds the cookie by itself, so what is more than a question must show that it comes from a page of ours.
      return page !== 'any' && !asking.origin ? withoutOrigin() : undefined
    },

    sessionFor(token, { isSecure }) {
      if (!isToken(token)) return undefined
      const content = `${Math.floor(nowMs()) + sessionMs}.${randomBytes(12).toString('base64url')}`
      const session = `${content}.${sign(sessionKey, content)}`
      return `${cookieName}=${session}; ${cookieAttributes}; Max-Age=${sessionMs / 1000}${isSecure ? '; Secure' : ''}`
    },

    sessionOf({ authorization, cookie }) {
      if (!isRequired || bearerOf(authorization) !== undefined) return undefined
      const content = contentOf(cookie)
      return content === undefined ? undefined : { isOver: () => isOver(content) }
    },

    endSession(cookie) {
      const content = contentOf(cookie)
      if (content === undefined || isOver(content)) return
      for (const [each, until] of ended) if (until <= nowMs()) ended.delete(each)
      ended.set(content, Number.parseInt(content, 10))
      if (ended.size <= endedSessionsMax) return
      const [first] = [...ended].reduce((a, b) => (a[1] <= b[1] ? a : b))
      ended.delete(first)
    },

    noSession: `${cookieName}=; ${cookieAttributes}; Max-Age=0`,
    ownAuthorization: `Bearer ${own}`,
  }
  return access
}

/** Whom our own processes say that they are, where a name goes with the token. No device can have it. */
export const insideName = '(weir)'

/**
 * What our own processes show to the intake: derived from the admin token, so that those that share it know it, also on other machines, and none
 * sends the admin token itself.
 */
export function insideToken(adminToken: string): string {
  return derive(adminToken, 'inside').toString('base64url')
}

function derive(secret: string, purpose: string): Buffer {
  return createHmac('sha256', secret).update(`weir ${purpose} v1`).digest()
}

function sign(key: Buffer, content: string): string {
  return createHmac('sha256', key).update(content).digest('base64url')
}

function sessionOf(cookie: string | undefined): string | undefined {
  if (cookie === undefined || cookie.length > cookieLengthMax) return undefined
  for (const each of cookie.split(';')) {
    const [name, value] = each.trim().split('=', 2)
    if (name === cookieName) return value
  }
  return undefined
}

function unauthorised(): RequestError {
  const detail =
    'Send the admin token (WEIR_ADMIN_TOKEN) as the header Authorization: Bearer …, or open /login in a browser.'
  return new RequestError(401, 'unauthorised', 'Who are you?', detail)
}

function deviceToken(): RequestError {
  const detail = 'The token of a device is good for sending its own telemetry alone; looking takes the admin token.'
  return new RequestError(403, 'device-token', 'Not with the token of a device', detail)
}

function wrongToken(): RequestError {
  return new RequestError(401, 'wrong-token', 'Not with this token', 'This is not the admin token (WEIR_ADMIN_TOKEN).')
}

function withoutOrigin(): RequestError {
  const detail = 'A change that rests on a session must say which page it comes from (Origin); programs send the token.'
  return new RequestError(403, 'foreign-origin', 'Not without an origin', detail)
}

/** RFC 6750 §3. */
export function challengeOf(problem: RequestError): string | undefined {
  if (problem.status !== 401) return undefined
  return `Bearer realm="weir"${problem.slug === 'wrong-token' ? ', error="invalid_token"' : ''}`
}
