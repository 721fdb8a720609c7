// What happens between the arrival of a message and the end of its turn: a socket over the real gathering and the real accepter, with the test in
// the place of the library, since only so can a token be revoked within that turn.
import { Buffer } from 'node:buffer'
import { afterEach, describe, expect, it } from 'vitest'
import { everyone } from '../domain/authority.ts'
import type { ServerSocket } from '../runtime/web-server.ts'
import { type DeviceAuth, openAuth } from './device-auth.ts'
import { createIngestEvents } from './events.ts'
import { GatheredMessages, type MessageTaker } from './gateway-gathered.ts'
import { IngestSocket, type IngestSocketHost } from './gateway-ingest-socket.ts'
import { ingestLimits } from './limits.ts'
import { closeAccepters, readingsOf, startAccepter } from './test-accepter.ts'

afterEach(closeAccepters)

function startSocket() {
  const { accepter, log, settled, instruments } = startAccepter()
  const gathered = new GatheredMessages()
  let stands = true
  const auth: DeviceAuth = { ...openAuth, stands: () => stands }
  const clock = { nowMicros: () => 0 }
  const silent = { error() {}, warn() {}, info() {}, debug() {}, child: () => silent }
  const nothing = (): void => {}
  const host: IngestSocketHost = {
    accepter,
    auth,
    events: createIngestEvents({ clock, logger: silent, instruments }),
    origins: {} as IngestSocketHost['origins'],
    rates: undefined,
    nowMs: 0,
    isDraining: false,
    isMemoryUsed: () => false,
    refusal: () => undefined,
    gather: (to, bytes, isBinary) => gathered.add(to, bytes, isBinary),
    takeGathered: () => gathered.takeAll(),
    awaitsDurable: nothing,
    admitted: nothing,
    awaitsRate: nothing,
    closed: nothing,
  }
  const socket = new IngestSocket(host, { device: 'd1', credential: { ...everyone }, peer: 'x' })
  const ends: number[] = []
  const wire: ServerSocket = {
    isOpen: true,
    bufferedBytes: 0,
    send: () => true,
    cork: (send) => send(),
    // As the library: the end is heard within.
    end(code) {
      ends.push(code)
      if (ends.length === 1) socket.ended()
    },
    destroy: nothing,
  }
  socket.opened(wire)
  const say = (text: string): void => socket.message(Buffer.from(text), false)
  const closes = async (): Promise<readonly (readonly [string | number | undefined, number])[]> =>
    (await instruments.snapshot())
      .filter(({ name }) => name === 'weir_gateway_sockets_closed_total')
      .flatMap(({ values }) => values.map(({ labels, value }) => [labels.cause, value] as const))
      .filter(([, count]) => count > 0)
  const revoke = (): void => {
    stands = false
    socket.onAuthChanged()
  }
  return { socket, say, revoke, ends, closes, log, settled, gathered }
}

describe('a message that was gathered', () => {
  it('before its token was revoked is taken, and nothing after it', async () => {
    const { say, revoke, ends, closes, log, settled, gathered } = startSocket()
    say('{"id":1,"payload":{"a":1}}')
    revoke()
    say('{"id":2,"payload":{"a":2}}')
    gathered.takeAll()
    await settled()
    expect(ends).toEqual([4403])
    expect(await closes()).toEqual([['revoked', 1]])
    expect(readingsOf(log).map(({ value }) => value)).toEqual([1])
  })

  it('and closes its socket when it is taken before a revocation closes it for that alone', async () => {
    const { say, revoke, ends, closes } = startSocket()
    say('nonsense')
    say('more nonsense')
    revoke()
    expect(ends).toEqual([4000])
    expect(await closes()).toEqual([['malformed', 1]])
  })

  it('is taken with all others in order of arrival, whole, however many come in one turn', () => {
    const gathered = new GatheredMessages()
    const taken: string[] = []
    const takers = ['x', 'y'].map(
      (name): MessageTaker => ({
        take: (bytes, start, end, isBinary) => taken.push(`${name}${isBinary} ${bytes.toString('utf8', start, end)}`),
      }),
    )
    const expected: string[] = []
    const add = (i: number, text: string): void => {
      gathered.add(takers[i % 2]!, Buffer.from(text), i % 3 === 0)
      expected.push(`${'xy'[i % 2]}${i % 3 === 0} ${text}`)
    }
    // More than fit in number, then more than fit in bytes.
    for (let i = 0; i < 5_000; i++) add(i, i % 7 === 0 ? '' : `${i}`)
    for (let i = 0; i < 5; i++) add(i, `${i}`.repeat(ingestLimits.ingestMessageBytesMax))
    gathered.takeAll()
    expect(gathered.isEmpty).toBe(true)
    expect(taken).toEqual(expected)
  })
})
