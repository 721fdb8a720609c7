// The token of a device: an id that may be shown and 256 random bits that may not. At rest there is only its SHA-256: what was drawn by chance from
// 2^256 can't be guessed from a fast hash, so no slow one is needed (docs/decisions/0030-device-tokens.md).
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'

/** `weir_`, id, `_`, secret: of one length, so that anything else is refused unread. */
const tokenPattern = /^weir_([0-9a-f]{16})_[A-Za-z0-9_-]{43}$/
const tokenLength = 65
const tokenIdPattern = /^[0-9a-f]{16}$/
const hashPattern = /^[A-Za-z0-9_-]{43}$/

export interface NewToken {
  readonly id: string
  /** Shown once, kept nowhere. */
  readonly token: string
  readonly hash: string
}

export function createDeviceToken(): NewToken {
  const id = randomBytes(8).toString('hex')
  const token = `weir_${id}_${randomBytes(32).toString('base64url')}`
  return { id, token, hash: hash('sha256', token, 'base64url') }
}

/** The id inside a text that has the form of a token. */
export function tokenIdOf(text: string): string | undefined {
  return text.length === tokenLength ? tokenPattern.exec(text)?.[1] : undefined
}

/** In a time that does not tell how much of it is right. */
export function isSameSecret(text: string, sha256: Uint8Array): boolean {
  return timingSafeEqual(sha256Of(text), sha256)
}

export function sha256Of(text: string): Buffer {
  return hash('sha256', text, 'buffer')
}

export function isTokenId(text: unknown): text is string {
  return typeof text === 'string' && tokenIdPattern.test(text)
}

export function isTokenHash(text: unknown): text is string {
  return typeof text === 'string' && hashPattern.test(text)
}

const bearerPattern = /^bearer +([\x21-\x7e]+) *$/i
const authorizationLengthMax = 400

/** The token of an `Authorization: Bearer …` (RFC 6750 §2.1); undefined when there is none. */
export function bearerOf(authorization: string | undefined): string | undefined {
  if (authorization === undefined || authorization.length > authorizationLengthMax) return undefined
  return bearerPattern.exec(authorization)?.[1]
}
