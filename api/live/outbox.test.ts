import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LiveFrame } from './frame.ts'
import { type ByeReason, Outbox, OutboxMemory, type ViewerTransport } from './outbox.ts'
import { Viewer } from './viewer.ts'

class FakeTransport implements ViewerTransport {
  readonly written: string[] = []
  isFull = false
  ended: ByeReason | undefined
  sizeOf(frame: LiveFrame): number {
    return frame.data().length
  }
  write(frame: LiveFrame, viewer: Viewer): boolean {
    this.written.push(`${viewer.id}${frame.event} ${frame.data()}`)
    return !this.isFull
  }
  end(reason: ByeReason): void {
    this.ended = reason
  }
}

const limits = { queueBytesMax: 1_000, behindMsMax: 5_000, stuckMsMax: 60_000 }
const cursor = { position: new Map([[0, 1]]), receivedAt: new Map() }

let transport: FakeTransport
let outbox: Outbox
let viewer: Viewer
beforeEach(() => {
  vi.useFakeTimers()
  transport = new FakeTransport()
  outbox = new Outbox(transport, limits)
  viewer = new Viewer(outbox)
})
afterEach(() => {
  outbox.leave()
  vi.useRealTimers()
})

/** A frame that is told apart by its cursor. */
function send(name: string, to = viewer): void {
  to.send(LiveFrame.gap(name, { cause: 'unknown-cursor', from: null, to: null, by: 'receivedAt' }))
}

function fill(name = 'a'): void {
  transport.isFull = true
  send(name)
}

const bye = (reason: ByeReason, at: string) => `bye ${JSON.stringify({ reason, cursor: at })}`

describe('what a viewer is owed', () => {
  it('waits in order until its transport takes more', () => {
    viewer.caughtUp(cursor)
    fill('1')
    for (const name of ['2', '3', '4']) send(name)
    expect([transport.written.length, viewer.lastCursor]).toEqual([2, '1'])
    outbox.onWritable()
    expect([transport.written.length, viewer.lastCursor]).toEqual([3, '2'])
    transport.isFull = false
    outbox.onWritable()
    expect([transport.written.length, viewer.lastCursor, outbox.queuedBytes]).toEqual([5, '4', 0])
  })

  it('is lost when it is too much: the viewer is told so and let go', () => {
    viewer.caughtUp(cursor)
    fill('a')
    send('b')
    const one = outbox.queuedBytes
    for (let sum = 2 * one; sum <= limits.queueBytesMax; sum += one) send('c')
    expect(transport.ended).toBeUndefined()
    send('d')
    expect(transport.written.at(-1)).toBe(bye('slow', 'a'))
    expect([transport.ended, viewer.gone.aborted, outbox.queuedBytes]).toEqual(['slow', true, 0])
    expect(transport.written).toHaveLength(3)
  })

  it('is lost when it waits for too long, however little it is', () => {
    viewer.caughtUp(cursor)
    fill()
    send('b')
    vi.advanceTimersByTime(4_900)
    outbox.onWritable()
    send('c')
    vi.advanceTimersByTime(4_900)
    expect(transport.ended).toBeUndefined()
    vi.advanceTimersByTime(200)
    expect(transport.ended).toBe('slow')
  })

  it('takes the time that the socket takes while it catches up, unless it takes nothing at all', async () => {
    for (let i = 0; i < 5; i++) {
      fill()
      let isWritable = false
      void viewer.writable().then(() => {
        isWritable = true
      })
      await vi.advanceTimersByTimeAsync(50_000)
      expect([transport.ended, isWritable]).toEqual([undefined, false])
      transport.isFull = false
      outbox.onWritable()
      await vi.advanceTimersByTimeAsync(0)
      expect(isWritable).toBe(true)
    }
    fill()
    void viewer.writable()
    await vi.advanceTimersByTimeAsync(60_001)
    expect(transport.ended).toBe('slow')
  })

  it('ends with it, and nobody waits for it', async () => {
    fill()
    const waiting = viewer.writable()
    outbox.leave()
    await waiting
    send('z')
    viewer.bye('stopping')
    expect(transport.written).toHaveLength(1)
    expect(viewer.gone.aborted).toBe(true)
  })
})

describe('viewers of one connection', () => {
  it('share its queue, and end together when it stays behind', () => {
    const other = new Viewer(outbox, '"b"')
    for (const each of [viewer, other]) each.caughtUp(cursor)
    fill('1')
    send('2', other)
    transport.isFull = false
    outbox.onWritable()
    expect([viewer.lastCursor, other.lastCursor]).toEqual(['1', '2'])
    fill('3')
    send('4', other)
    vi.advanceTimersByTime(5_001)
    expect(transport.written.slice(-2)).toEqual([bye('slow', '3'), `"b"${bye('slow', '2')}`])
    expect([viewer.gone.aborted, other.gone.aborted]).toEqual([true, true])
  })

  it('may end one by one: what waited for it goes, the others keep theirs', () => {
    const other = new Viewer(outbox, '"b"')
    for (const each of [viewer, other]) each.caughtUp(cursor)
    fill('1')
    send('2', other)
    send('3')
    other.unsubscribe()
    transport.isFull = false
    outbox.onWritable()
    const { length } = transport.written
    expect(transport.written.slice(length - 2)).toEqual([
      expect.stringContaining('gap'),
      `"b"${bye('unsubscribed', encoded)}`,
    ])
    expect([viewer.lastCursor, transport.ended, outbox.queuedBytes]).toEqual(['3', undefined, 0])
  })

  it('that catch up take turns: together they hold no more than one of them', async () => {
    vi.useRealTimers()
    const others = Array.from({ length: 20 }, (_, i) => new Viewer(outbox, `"${i}"`))
    fill('0')
    let written = 0
    for (const each of others) {
      void each.writable().then(() => {
        written++
        send('a page', each)
      })
    }
    let most = 0
    while (written < others.length) {
      const before = written
      outbox.onWritable()
      await vi.waitFor(() => expect(written).toBeGreaterThan(before), { timeout: 15_000 })
      for (let i = 0; i < 5; i++) await new Promise((go) => setImmediate(go))
      most = Math.max(most, outbox.queuedBytes)
    }
    expect([most, transport.ended, written]).toEqual([0, undefined, others.length])
  })

  it('are not behind while one of them catches up', () => {
    viewer.caughtUp(cursor)
    new Viewer(outbox, '"b"')
    fill('1')
    send('2')
    vi.advanceTimersByTime(30_000)
    expect(transport.ended).toBeUndefined()
  })
})

const encoded = 'l2~0.1.0'

it('all connections together hold no more than they may: the one that holds most is let go', () => {
  const memory = new OutboxMemory(1_000)
  const wide = { ...limits, queueBytesMax: 100_000 }
  const made = Array.from({ length: 4 }, () => {
    const own = new FakeTransport()
    const box = new Outbox(own, wide, memory)
    const each = new Viewer(box)
    each.caughtUp(cursor)
    own.isFull = true
    send('x', each)
    return { own, box, each }
  })
  for (let i = 0; i < 12; i++) send('y', made[1]!.each)
  for (let i = 0; i < 4; i++) for (const { each } of made.toSpliced(1, 1)) send('z', each)
  expect(made.map(({ own }) => own.ended)).toEqual([undefined, 'slow', undefined, undefined])
  expect(memory.bytes).toBe(made.reduce((sum, { box }) => sum + box.queuedBytes, 0))
  for (const { box } of made) box.leave()
  expect(memory.bytes).toBe(0)
})
