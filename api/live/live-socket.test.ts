// What one socket is told beside its subscriptions: bounded too.
import { expect, it } from 'vitest'
import type { ServerSocket } from '../../runtime/web-server.ts'
import { LiveSocket, type LiveSocketHost, socketLimits } from './live-socket.ts'
import { Outbox } from './outbox.ts'

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
