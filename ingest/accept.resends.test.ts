// A publish that is sent again, of a device with a clock and of one without.
import { afterEach, describe, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { closeAccepters, deadLettersOf, readingsOf, ScriptedLog, startAccepter } from './test-accepter.ts'

afterEach(closeAccepters)

describe('a publish that is sent again', () => {
  function resendable(options: Parameters<typeof startAccepter>[0] = {}) {
    const started = startAccepter(options)
    const publish = (
      payload: string,
      packetId: number,
      dup: boolean,
      clientId = 'c1',
      route = started.route,
    ): number => {
      const bytes = Buffer.from(payload)
      return started.accepter.acceptResendable(route, bytes, 0, bytes.length, clientId, packetId, dup)
    }
    return { ...started, publish }
  }

  it('is not written again where the device has no clock, and waits for the commit of the first', async () => {
    const log = new ScriptedLog()
    log.answer = () => undefined
    const { accepter, publish, settled } = resendable({ log })
    expect(publish('{"a":1}', 7, false)).toBe(1)
    await waitFor(() => log.appends.length === 1)
    expect(publish('{"a":2}', 8, false)).toBe(2)
    expect([publish('{"a":1}', 7, true), accepter.lastAccepted]).toEqual([1, 0])
    expect([publish('{"a":2}', 8, true), publish('{"a":2}', 8, true)]).toEqual([2, 2])
    log.answer = () => 'durable'
    log.appends[0]!.resolve()
    await settled()
    expect(publish('{"a":1}', 7, true)).toBe(1)
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1, 2])
  })

  it('is another when its bytes, its packet id or its client differ, or when the flag is not set', async () => {
    const { log, publish, settled } = resendable()
    publish('{"a":1}', 7, false)
    publish('{"a":2}', 7, true)
    publish('{"a":1}', 8, true)
    publish('{"a":1}', 7, true, 'c2')
    publish('{"a":1}', 7, false)
    await settled()
    expect(readingsOf(log).length).toBe(5)
  })

  it('is another on another topic, though a gateway that speaks for many uses its packet ids again', async () => {
    const { accepter, log, publish, settled } = resendable()
    publish('{"door":1}', 1, false)
    await settled()
    // Its first sending was lost on the way; the second one is known.
    const other = accepter.route('default', 'd2', 'json', 'devices/d2/telemetry')
    for (let i = 0; i < 2; i++) publish('{"door":1}', 1, true, 'c1', other)
    await settled()
    expect(readingsOf(log).map(({ device }) => device)).toEqual(['d1', 'd2'])
  })

  it('is never one whose packet id was used again since: that one was acknowledged', async () => {
    const { log, publish, settled } = resendable()
    for (const value of [1, 2]) publish(`{"a":${value}}`, 1, false)
    // Like the first, and its first sending was lost on the way.
    publish('{"a":1}', 1, true)
    await settled()
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1, 2, 1])
  })

  it('is the last one of its kind, not an earlier one that is durable already', async () => {
    const { log, publish, settled } = resendable()
    expect(publish('{"a":1}', 1, false)).toBe(1)
    await settled()
    log.answer = () => undefined
    expect(publish('{"a":1}', 1, false)).toBe(2)
    expect(publish('{"a":1}', 1, true)).toBe(2)
  })

  it('is written again where the device has a clock: the table makes one of the two', async () => {
    const { log, publish, settled } = resendable()
    publish('{"ts":1700000000000,"a":1}', 7, false)
    publish('{"ts":1700000000000,"a":1}', 7, true)
    await settled()
    expect(readingsOf(log).length).toBe(2)
  })

  it('is one dead letter, not two', async () => {
    const { accepter, log, publish, settled } = resendable()
    publish('garbage', 7, false)
    publish('garbage', 7, true)
    await settled()
    expect(deadLettersOf(log).length).toBe(1)
    expect(accepter.totals().received).toBe(1)
  })
})
