import { describe, expect, it } from 'vitest'
import { challengeOf, createViewerAccess, insideToken, type ViewerAccess } from './viewer-access.ts'

const adminToken = 'an-admin-token-of-tests'
const time = { micros: 1_700_000_000_000_000 }
const clock = { nowMicros: () => time.micros }
const make = (more: object = {}): ViewerAccess =>
  createViewerAccess({
    config: { auth: 'required', host: '127.0.0.1', hostNames: undefined, adminToken, ...more },
    clock,
    isDeviceToken: (token) => token === 'device',
  })
const cookieOf = (access: ViewerAccess): string => access.sessionFor(adminToken, { isSecure: false })!.split(';', 1)[0]!

describe('who looks', () => {
  it.each([
    [{ authorization: `Bearer ${adminToken}` }, undefined],
    [{ authorization: `Bearer ${adminToken}x` }, 401],
    [{ authorization: `Basic ${adminToken}` }, 401],
    [{ authorization: 'Bearer device' }, 403],
    [{}, 401],
    [{ cookie: 'weir_session=' }, 401],
    [{ cookie: `weir_session=${adminToken}` }, 401],
    [{ cookie: 'weir_session=99999999999999.x.ä' }, 401],
    [{ cookie: 'x'.repeat(10_000) }, 401],
  ])('%j is answered with %j', (asking, status) => {
    const problem = make().authorizeViewer(asking, 'any')
    expect(problem?.status).toBe(status)
    if (problem?.status === 401) expect(challengeOf(problem)).toMatch(/^Bearer realm="weir"/)
    else expect(problem && challengeOf(problem)).toBeUndefined()
  })

  it('a session is good for half a day, with the key that it was made with', () => {
    const access = make()
    const cookie = cookieOf(access)
    expect(access.authorizeViewer({ cookie: `a=b; ${cookie}; c=d` }, 'any')).toBeUndefined()
    expect(make().authorizeViewer({ cookie }, 'any')).toBeUndefined()
    expect(make({ adminToken: 'another-admin-token' }).authorizeViewer({ cookie }, 'any')?.status).toBe(401)
    time.micros += 13 * 3_600_000_000
    expect(access.authorizeViewer({ cookie }, 'any')?.status).toBe(401)
    expect(access.sessionFor(`${adminToken}x`, { isSecure: true })).toBeUndefined()
    expect(access.sessionFor(adminToken, { isSecure: true })).toMatch(/; HttpOnly; SameSite=Strict; .*; Secure$/)
    expect(cookie).not.toContain(adminToken)
  })

  it('a session that was signed out of is over, and others are not', () => {
    const access = make()
    const [out, other] = [cookieOf(access), cookieOf(access)]
    const [sessionOut, sessionOther] = [access.sessionOf({ cookie: out }), access.sessionOf({ cookie: other })]
    const isOver = () => [sessionOut?.isOver(), sessionOther?.isOver()]
    expect(isOver()).toEqual([false, false])
    access.endSession(`${other}x`)
    access.endSession(undefined)
    access.endSession(out)
    expect(isOver()).toEqual([true, false])
    expect(access.authorizeViewer({ cookie: out }, 'any')?.status).toBe(401)
    expect(access.authorizeViewer({ cookie: other }, 'any')).toBeUndefined()
    time.micros += 13 * 3_600_000_000
    expect(isOver()).toEqual([true, true])
    // A token is no session, and nobody is asked where everybody may look.
    expect(access.sessionOf({ authorization: `Bearer ${adminToken}`, cookie: other })).toBeUndefined()
    expect(make({ auth: 'open' }).sessionOf({ cookie: other })).toBeUndefined()
  })

  it.each([
    ['any', undefined, undefined],
    ['same-port', undefined, 403],
    ['same-port', 'http://weir.local:8080', undefined],
    ['same-port', 'https://weir.local:8080', undefined],
    ['same-port', 'http://weir.local:9090', 403],
    ['same-host', 'http://weir.local:9090', undefined],
    ['same-host', 'http://evil.example', 403],
    ['same-host', undefined, 403],
    ['same-host', 'null', 403],
  ] as const)('a session where the page must be %s and is %j: %j', (page, origin, status) => {
    const access = make()
    const asking = { cookie: cookieOf(access), origin, host: 'weir.local:8080' }
    expect(access.authorizeViewer(asking, page)?.status).toBe(status)
  })

  it('a program with the token needs no origin', () => {
    expect(make().authorizeViewer({ authorization: `Bearer ${adminToken}` }, 'same-port')).toBeUndefined()
  })

  it('this process may ask itself, and no other', () => {
    const access = make()
    expect(access.authorizeViewer({ authorization: access.ownAuthorization }, 'any')).toBeUndefined()
    expect(make().authorizeViewer({ authorization: access.ownAuthorization }, 'any')?.status).toBe(401)
  })

  it('what our processes show to the intake is not the admin token, and the same wherever that is known', () => {
    expect(insideToken(adminToken)).toBe(insideToken(adminToken))
    expect(insideToken(adminToken)).not.toBe(insideToken(`${adminToken}x`))
    expect(make().authorizeViewer({ authorization: `Bearer ${insideToken(adminToken)}` }, 'any')?.status).toBe(401)
  })
})

describe('without authentication', () => {
  const open = (more: object = {}): ViewerAccess => make({ auth: 'open', adminToken: undefined, ...more })

  it.each([
    ['127.0.0.1:8080', undefined],
    ['localhost', undefined],
    ['[::1]:8080', undefined],
    ['weir', undefined],
    ['', undefined],
    ['weir.example:8080', undefined],
    ['WEIR.example', undefined],
    ['evil.example', 421],
    ['127.0.0.1.evil.example', 421],
    ['10.0.0.1', 421],
    ['[2001:db8::1]', 421],
    ['a b', 421],
  ])('the host %j is answered with %j', (host, status) => {
    expect(open({ hostNames: ['weir.example'] }).authorizeViewer({ host }, 'any')?.status).toBe(status)
  })

  it('a page of another site changes nothing', () => {
    const ask = (origin: string | undefined) =>
      open().authorizeViewer({ host: 'localhost:8080', origin }, 'same-port')?.status
    expect([
      ask(undefined),
      ask('http://localhost:8080'),
      ask('http://localhost:1'),
      ask('http://evil.example'),
    ]).toEqual([undefined, undefined, 403, 403])
  })
})
