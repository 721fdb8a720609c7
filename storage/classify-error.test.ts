import { describe, expect, it } from 'vitest'
import { RetryableError } from '../runtime/errors.ts'
import { classifyError, clickHouseCode, RejectedError } from './classify-error.ts'

/** As the official client throws them. */
const storeError = (code: number, type: string): Error =>
  Object.assign(new Error('what was wrong\nand a second line'), { code: String(code), type })

describe('classifyError', () => {
  it.each([202, 209, 241, 243, 252, 319, 394, 159, 516])('code %i passes by itself', (code) => {
    const error = classifyError(storeError(code, 'SOME_NAME'))
    expect(error).toBeInstanceOf(RetryableError)
    expect(clickHouseCode(error)).toBe(code)
  })

  it.each([27, 33, 60, 62, 117, 164, 115, 48])('code %i is a refusal', (code) => {
    const error = classifyError(storeError(code, 'SOME_NAME'))
    expect(error).toBeInstanceOf(RejectedError)
    expect(error).toMatchObject({ code, type: 'SOME_NAME', message: `SOME_NAME (${code}): what was wrong` })
  })

  it.each(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOSPC'])('%s is the store being away', (code) => {
    expect(classifyError(Object.assign(new Error('no'), { code }))).toBeInstanceOf(RetryableError)
  })

  it('an answer that the client could not take apart is judged by its code', () => {
    expect(clickHouseCode(classifyError(new Error('Code: 62. DB::Exception: Syntax error')))).toBe(62)
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
