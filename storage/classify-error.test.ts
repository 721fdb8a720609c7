import { describe, expect, it } from 'vitest'
import { RetryableError } from '../runtime/errors.ts'
import { classifyError, clickHouseCode, isUntrusted, RejectedError } from './classify-error.ts'

/** As the official client throws them. */
const storeError = (code: number, type: string): Error =>
  Object.assign(new Error('what was wrong\nand a second line'), { code: String(code), type })

describe('classifyError', () => {
  it.each([159, 202, 209, 210, 225, 241, 242, 243, 252, 254, 279, 285, 286, 289, 319, 394, 516, 517, 999])(
    'code %i passes by itself',
    (code) => {
      const error = classifyError(storeError(code, 'SOME_NAME'))
      expect(error).toBeInstanceOf(RetryableError)
      expect(clickHouseCode(error)).toBe(code)
    },
  )

  it.each([27, 33, 62, 117, 164, 115, 48, 701])('code %i is a refusal', (code) => {
    const error = classifyError(storeError(code, 'SOME_NAME'))
    expect(error).toBeInstanceOf(RejectedError)
    expect(error).toMatchObject({ code, type: 'SOME_NAME', message: `SOME_NAME (${code}): what was wrong` })
  })

  it.each([
    'ECONNREFUSED',
    'ECONNRESET',
    'EPIPE',
    'ETIMEDOUT',
    'ENOSPC',
    'EPROTO',
    'HPE_INVALID_CONSTANT',
    'ERR_SSL_WRONG_VERSION_NUMBER',
    'SELF_SIGNED_CERT_IN_CHAIN',
    'ERR_TLS_CERT_ALTNAME_INVALID',
  ])('%s is the store being away', (code) => {
    expect(classifyError(Object.assign(new Error('no'), { code }))).toBeInstanceOf(RetryableError)
  })

  it('an answer that the client could not take apart is judged by its code', () => {
    expect(clickHouseCode(classifyError(new Error('Code: 62. DB::Exception: Syntax error')))).toBe(62)
  })

  it.each([60, 81])('code %i, no table, is a refusal that says who makes it', (code) => {
    const error = classifyError(storeError(code, 'SOME_NAME'))
    expect(error).toBeInstanceOf(RejectedError)
    expect(error.message).toMatch(/^SOME_NAME \(\d+\): what was wrong \(no writer has made its tables: .* same store, /)
  })

  it('a right that is missing is a refusal that says where to read on', () => {
    const error = classifyError(storeError(497, 'ACCESS_DENIED'))
    expect(error).toBeInstanceOf(RejectedError)
    expect(error.message).toContain('docs/storage.md')
  })

  it.each(['<html>\n<body>502 Bad Gateway</body></html>', 'upstream connect error', ''])(
    'an answer that is no ClickHouse’s (%j) is the store being away',
    (body) => {
      for (const thrown of [new Error(body), new SyntaxError(body)]) {
        const error = classifyError(thrown)
        expect(error).toBeInstanceOf(RetryableError)
        expect(error.message).not.toContain('\n')
      }
    },
  )

  it.each([
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', true],
    ['CERT_HAS_EXPIRED', true],
    ['ERR_TLS_CERT_ALTNAME_INVALID', true],
    ['ECONNREFUSED', false],
    ['EPROTO', false],
  ])('%s: the certificate is not trusted: %s', (code, expected) => {
    expect(isUntrusted(classifyError(Object.assign(new Error('no'), { code })))).toBe(expected)
  })

  it('a bug stays what it is', () => {
    const bug = new TypeError('undefined is not a function')
    expect(classifyError(bug)).toBe(bug)
    expect(classifyError('text')).toBeInstanceOf(Error)
  })

  it('what was classified is not classified again', () => {
    const once = classifyError(storeError(62, 'SYNTAX_ERROR'))
    expect(classifyError(once)).toBe(once)
  })
})
