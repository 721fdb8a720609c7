// What outlives a connection is bounded, expires, and finds its subscribers.
import { describe, expect, it } from 'vitest'
import type { DropCause } from './events.ts'
import { ingestLimits } from './limits.ts'
import type { SessionPacket } from './mqtt-kept-packet.ts'
import { SessionStore } from './mqtt-sessions.ts'

function store(more: { ownerOf?: (clientId: string) => string; hasShares?: boolean } = {}) {
  const dropped: DropCause[] = []
  const connected = new Set<string>()
  const time = { micros: 1_000_000 }
  const sessions = new SessionStore({
    clock: { nowMicros: () => time.micros },
    onDropped: (cause) => dropped.push(cause),
    isGranted: (_, filter) => filter !== 'refused',
    isConnected: (clientId) => connected.has(clientId),
    ownerOf: () => 'default/d1',
    ...more,
  })
  return { sessions, dropped, connected, time }
}

const packet = (topic: string, size = 10, counter = 1): SessionPacket => ({
  cmd: 'publish',
  topic,
  payload: Buffer.alloc(size),
  qos: 1,
  brokerId: 'b',
  brokerCounter: counter,
})
const subscription = (topic: string, qos = 1) => ({ topic, qos })

async function waiting(sessions: SessionStore, id: string): Promise<SessionPacket[]> {
  const found: SessionPacket[] = []
  for await (const each of sessions.outgoingStream({ id })) found.push(each)
  return found
}

describe('SessionStore', () => {
  it('finds sessions by topic, each once, and only those that want more than QoS 0', async () => {
    const { sessions } = store()
    await sessions.addSubscriptions({ id: 'a' }, [subscription('x/y'), subscription('x/+'), subscription('refused')])
    await sessions.addSubscriptions({ id: 'b' }, [subscription('x/#', 2)])
    await sessions.addSubscriptions({ id: 'c' }, [subscription('x/y', 0)])
    const clients = async (topic: string) =>
      (await sessions.subscriptionsByTopic(topic)).map(({ clientId }) => clientId).sort()
    expect(await clients('x/y')).toEqual(['a', 'b'])
    expect(await clients('refused')).toEqual([])
    expect((await sessions.subscriptionsByClient({ id: 'a' })).map(({ topic }) => topic)).toEqual(['x/y', 'x/+'])
    await sessions.removeSubscriptions({ id: 'a' }, ['x/y', 'x/+'])
    sessions.forget('b')
    expect(await clients('x/y')).toEqual([])
  })

  it('keeps at most a thousand messages and a mebibyte a session, and says what it dropped', async () => {
    const { sessions, dropped } = store()
    for (const id of ['many', 'large']) await sessions.addSubscriptions({ id }, [subscription(`${id}/#`)])
    for (let i = 0; i < ingestLimits.sessionMessagesMax + 5; i++)
      await sessions.outgoingEnqueue({ clientId: 'many' }, packet('many/x', 10, i))
    for (let i = 0; i < 20; i++) await sessions.outgoingEnqueue({ clientId: 'large' }, packet('large/x', 100_000, i))
    expect(await waiting(sessions, 'many')).toHaveLength(ingestLimits.sessionMessagesMax)
    expect(await waiting(sessions, 'large')).toHaveLength(10)
    expect(dropped).toEqual(Array(15).fill('session-full'))
    sessions.forget('many')
    sessions.forget('large')
    expect(sessions.counts()).toMatchObject({ sessions: 0, sessionsBytes: 0 })
  })

  it('gives a waiting message its packet id, and lets it go when acknowledged', async () => {
    const { sessions } = store()
    await sessions.addSubscriptions({ id: 'a' }, [subscription('x')])
    await sessions.outgoingEnqueue({ clientId: 'a' }, packet('x', 10, 1))
    await sessions.outgoingUpdate({ id: 'a' }, { ...packet('x', 10, 1), messageId: 42 })
    expect(await sessions.outgoingClearMessageId({ id: 'a' }, { ...packet(''), messageId: 41 })).toBeUndefined()
    expect(await sessions.outgoingClearMessageId({ id: 'a' }, { ...packet(''), messageId: 42 })).toMatchObject({
      topic: 'x',
    })
    expect(sessions.counts().sessionsBytes).toBe(0)
    await expect(sessions.outgoingUpdate({ id: 'a' }, { ...packet('x'), messageId: 1 })).rejects.toThrow(
      'no such packet',
    )
    // A client without a session leaves nothing behind.
    expect(await sessions.outgoingClearMessageId({ id: 'stranger' }, packet('x'))).toBeUndefined()
    expect(sessions.counts().sessions).toBe(1)
  })

  it('forgets a session a day after its client was last seen', async () => {
    const { sessions, connected, time } = store()
    await sessions.addSubscriptions({ id: 'gone' }, [subscription('x')])
    await sessions.addSubscriptions({ id: 'here' }, [subscription('x')])
    connected.add('here')
    time.micros += ingestLimits.sessionIdleMsMax * 1000 + 1
    sessions.expire()
    expect((await sessions.subscriptionsByTopic('x')).map(({ clientId }) => clientId)).toEqual(['here'])
    connected.delete('here')
    sessions.expire()
    expect(sessions.counts().sessions).toBe(1)
  })

  it('refuses a session beyond the limit', async () => {
    const { sessions, dropped } = store()
    for (let i = 0; i < ingestLimits.sessionsMax; i++)
      await sessions.addSubscriptions({ id: `c${i}` }, [subscription('x', 0)])
    await expect(sessions.addSubscriptions({ id: 'one more' }, [subscription('x')])).rejects.toThrow(
      'too many sessions',
    )
    expect(dropped).toEqual(['sessions-max'])
  })

  it('keeps the last retained message of a topic, none when it is empty, and a copy of its own', async () => {
    const { sessions } = store()
    const chunk = Buffer.from('....on....')
    await sessions.storeRetained({ ...packet('a/b'), payload: chunk.subarray(4, 6) })
    chunk.fill(0)
    await sessions.storeRetained(packet('a/c'))
    await sessions.storeRetained({ ...packet('a/c'), payload: Buffer.alloc(0) })
    const found: SessionPacket[] = []
    for await (const each of sessions.createRetainedStreamCombi(['a/+', 'other'])) found.push(each)
    expect(found.map(({ topic, payload }) => [topic, String(payload)])).toEqual([['a/b', 'on']])
    expect((found[0]!.payload as Buffer).buffer.byteLength).toBe(2)
    await sessions.storeRetained({ ...packet('a/b'), payload: Buffer.alloc(0) })
    expect(sessions.counts()).toMatchObject({ retained: 0, retainedBytes: 0 })
  })

  it('leaves room for others, whatever one device takes', async () => {
    const { sessions, dropped } = store({ ownerOf: (clientId) => clientId.split('/')[0]!, hasShares: true })
    const { sessionsMax, sessionsShareMax, sessionsBytesMax, retainedMessagesMax } = ingestLimits
    const share = sessionsMax * sessionsShareMax
    for (let i = 0; i < share; i++)
      await sessions.addSubscriptions({ id: `greedy/${i}` }, [subscription('devices/greedy/x')])
    await expect(sessions.addSubscriptions({ id: 'greedy/more' }, [subscription('x')])).rejects.toThrow()
    await sessions.addSubscriptions({ id: 'other/1' }, [subscription('devices/other/x')])
    const size = 100_000
    for (let i = 0; i < (2 * sessionsBytesMax) / size; i++)
      await sessions.outgoingEnqueue({ clientId: `greedy/${i % share}` }, packet('devices/greedy/x', size, i))
    expect(sessions.counts().sessionsBytes).toBeLessThanOrEqual(sessionsBytesMax * sessionsShareMax)
    await sessions.outgoingEnqueue({ clientId: 'other/1' }, packet('devices/other/x', size))
    expect(await waiting(sessions, 'other/1')).toHaveLength(1)
    for (let i = 0; i < retainedMessagesMax; i++) await sessions.storeRetained(packet(`devices/greedy/${i}`))
    await sessions.storeRetained(packet('devices/other/state'))
    expect(sessions.counts().retained).toBe(retainedMessagesMax * sessionsShareMax + 1)
    expect(new Set(dropped)).toEqual(new Set(['sessions-max', 'session-full', 'retained-full']))
    // Below nobody's topics too, under whichever of its client ids.
    for (let i = 0; i < retainedMessagesMax; i++)
      await sessions.storeRetained({ ...packet(`shared/${i}`), clientId: `greedy/${i % share}` })
    expect(sessions.counts().retained).toBe(2 * retainedMessagesMax * sessionsShareMax + 1)
    await sessions.storeRetained({ ...packet('shared/other'), clientId: 'other/1' })
    // A topic is whoever's who published there last.
    await sessions.storeRetained({ ...packet('shared/0'), clientId: 'other/1' })
    await sessions.storeRetained({ ...packet('shared/more'), clientId: 'greedy/0' })
    await sessions.storeRetained({ ...packet('shared/too much'), clientId: 'greedy/0' })
    const kept: string[] = []
    for await (const { topic } of sessions.createRetainedStreamCombi(['shared/other', 'shared/0', 'shared/more']))
      kept.push(topic)
    expect(kept).toEqual(['shared/other', 'shared/0', 'shared/more'])
    expect(sessions.counts().retained).toBe(2 * retainedMessagesMax * sessionsShareMax + 3)
    // What is let go of is free again.
    sessions.forget('greedy/0')
    await sessions.addSubscriptions({ id: 'greedy/more' }, [subscription('x')])
  })
})
