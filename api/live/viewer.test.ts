import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { type LiveEventName, Viewer, type ViewerTransport } from './viewer.ts'

class FakeTransport implements ViewerTransport {
  readonly written: [LiveEventName, string][] = []
  isFull = false
  isEnded = false
  write(event: LiveEventName, _cursor: string, data: string): boolean {
    this.written.push([event, data])
    return !this.isFull
  }
  end(): void {
    this.isEnded = true
  }
  get last(): [LiveEventName, string] | undefined {
    return this.written.at(-1)
  }
}

const limits = { queueBytesMax: 1_000, behindMsMax: 5_000, stuckMsMax: 60_000 }
const cursor = { position: new Map([[0, 1]]), receivedAt: 1 }

let transport: FakeTransport
let viewer: Viewer
beforeEach(() => {
  vi.useFakeTimers()
  transport = new FakeTransport()
  viewer = new Viewer(transport, limits)
})
afterEach(() => {
  viewer.leave()
  vi.useRealTimers()
})

function fill(): void {
  transport.isFull = true
  viewer.send('readings', 'a', '1')
}

describe('a viewer', () => {
  it('gets what waited, in order, once its transport takes more', () => {
    viewer.caughtUp(cursor)
    fill()
    for (const data of ['2', '3', '4']) viewer.send('readings', 'b', data)
    expect(transport.last).toEqual(['readings', '1'])
    viewer.onWritable()
    expect(transport.last).toEqual(['readings', '2'])
    transport.isFull = false
    viewer.onWritable()
    expect(transport.written.slice(-4).map(([, data]) => data)).toEqual(['1', '2', '3', '4'])
  })

  it('whose queue holds too much loses it, is told so and let go', () => {
    viewer.caughtUp(cursor)
    fill()
    viewer.send('readings', 'b', 'x'.repeat(600))
    expect(transport.isEnded).toBe(false)
    viewer.send('readings', 'c', 'x'.repeat(600))
    expect(transport.last).toEqual(['bye', JSON.stringify({ reason: 'slow', cursor: 'a' })])
    expect([transport.isEnded, viewer.gone.aborted]).toEqual([true, true])
    expect(transport.written.filter(([, data]) => data.startsWith('x'))).toEqual([])
  })

  it('whose queue is not empty for too long is let go, however little is in it', () => {
    viewer.caughtUp(cursor)
    fill()
    viewer.send('readings', 'b', '2')
    vi.advanceTimersByTime(4_900)
    viewer.onWritable()
    viewer.send('readings', 'c', '3')
    vi.advanceTimersByTime(4_900)
    expect(transport.isEnded).toBe(false)
    vi.advanceTimersByTime(200)
    expect(transport.last![0]).toBe('bye')
  })

  it('that catches up is given the time that its socket takes, unless it takes nothing at all', async () => {
    for (let i = 0; i < 5; i++) {
      fill()
      let isWritable = false
      void viewer.writable().then(() => {
        isWritable = true
      })
      await vi.advanceTimersByTimeAsync(50_000)
      expect([transport.isEnded, isWritable]).toEqual([false, false])
      transport.isFull = false
      viewer.onWritable()
      await vi.advanceTimersByTimeAsync(0)
      expect(isWritable).toBe(true)
    }
    fill()
    void viewer.writable()
    await vi.advanceTimersByTimeAsync(60_001)
    expect(transport.last![0]).toBe('bye')
  })

  it('that is gone gets nothing more, and nobody waits for it', async () => {
    fill()
    const waiting = viewer.writable()
    viewer.leave()
    await waiting
    viewer.send('readings', 'z', 'z')
    viewer.bye('stopping')
    expect(transport.written).toHaveLength(1)
  })
})
