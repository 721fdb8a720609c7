// What one socket may ask for, and what it is told beside its subscriptions: bounded too.
import { expect, it } from 'vitest'
import type { ServerSocket } from '../../runtime/web-server.ts'
import { LiveSocket, type LiveSocketHost, socketLimits } from './live-socket.ts'
import { Outbox } from './outbox.ts'
import type { Asked } from './subscription.ts'
import { Viewer } from './viewer.ts'

it('lets go of a peer that makes mistake after mistake and reads no answer', () => {
  let now = 0
  let unsent = 0
  let ended: [number, string] | undefined
  const host = {
    // As slowly as it takes to stay below every other limit.
    nowMs: () => (now += 1_000),
    connect: (transport) => new Outbox(transport),
    onClose: () => {},
    closed: () => {},
  } satisfies Partial<LiveSocketHost>
  const frozen = {
    isOpen: true,
    get bufferedBytes() {
      return unsent
    },
    send(message) {
      unsent += message.length
      return true
    },
    cork: (write) => write(),
    end(code, reason) {
      ended = [code, reason]
    },
    destroy: () => {},
  } satisfies ServerSocket
  const socket = new LiveSocket(host as unknown as LiveSocketHost, undefined, false)
  socket.opened(frozen)
  const mistake = Buffer.from(JSON.stringify({ type: 'unsubscribe', id: 'x'.repeat(100) }))
  for (let i = 0; i < 100_000 && ended === undefined; i++) socket.message(mistake, false)
  expect(ended).toEqual([4013, 'slow'])
  expect(unsent).toBeLessThan(socketLimits.unsentErrorBytesMax + 10_000)
})

it('refuses subscriptions that come and go too fast, in words, and takes them again later', () => {
  let now = 0
  const told: { id: number; problem?: string; status?: number; detail?: string }[] = []
  let opened = 0
  const host = {
    nowMs: () => now,
    connect: (transport) => new Outbox(transport),
    parse: () => ({}) as Asked,
    open: (_asked, outbox, id) => {
      opened++
      return new Viewer(outbox, id)
    },
    onClose: () => {},
    closed: () => {},
  } satisfies Partial<LiveSocketHost>
  const peer = {
    isOpen: true,
    bufferedBytes: 0,
    send: (message) => told.push(JSON.parse(message.toString())) > 0,
    cork: (write) => write(),
    end: (code) => expect.unreachable(`closed with ${code}`),
    destroy: () => {},
  } satisfies ServerSocket
  const socket = new LiveSocket(host as unknown as LiveSocketHost, undefined, false)
  socket.opened(peer)
  const say = (type: string, id: number): void => socket.message(Buffer.from(JSON.stringify({ type, id })), false)
  const { beginningsMax, framesWindowMs } = socketLimits
  say('subscribe', -1)
  for (let i = 1; i < beginningsMax + 5; i++) {
    say('subscribe', i)
    if (i < beginningsMax) say('unsubscribe', i)
  }
  const refused = told.filter(({ problem }) => problem !== undefined)
  expect(refused.map(({ id, problem, status }) => [id, problem, status])).toEqual(
    [0, 1, 2, 3, 4].map((i) => [beginningsMax + i, '/problems/subscription-rate', 429]),
  )
  expect(refused[0]!.detail).toMatch(/ask again in 10 s/)
  expect(opened).toBe(beginningsMax)
  // The one that it has goes on, and may be ended.
  say('unsubscribe', -1)
  now += framesWindowMs
  say('subscribe', 1)
  expect(opened).toBe(beginningsMax + 1)
})
