// A viewer that stops reading, or says what is no frame, harms itself alone: it is told why, let go, and goes on from its last cursor without a loss,
// while devices are acknowledged and others see everything. And whatever door and format a viewer chose, it is told the same.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { counterOf } from '../helpers/ask.ts'
import { type LiveItem, LiveViewer, type LiveViewerOptions } from '../helpers/live-viewer.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { SseViewer } from '../helpers/sse.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { clientFrame } from '../helpers/websocket.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000
const slow = { withinMs: 60_000 }
const columns = { readsColumns: true }
/** Of what a body of the flood says. */
const text = 'x'.repeat(1_000)
const readingsABody = 500

interface Said {
  readonly metric: string
  readonly observedAt: number
  readonly said: number | string | undefined
}

describe('viewers that freeze are let go', () => {
  let weir: WeirProcess
  let steady: RawPublisher
  const open: { close(): void }[] = []
  beforeAll(async () => {
    weir = await startWeir()
    steady = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'steady',
      window: 100,
      ratePerS: 200,
      resend: true,
      message: (index) => ({ topic: 'devices/steady/telemetry', payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: () => {},
    })
  }, 150_000)
  afterEach(() => {
    for (const each of open.splice(0)) each.close()
  })
  afterAll(() => steady?.stop())

  const watch = async (query: string, options?: LiveViewerOptions): Promise<LiveViewer> => {
    const viewer = await LiveViewer.open(weir.urls.live!, query, options)
    open.push(viewer)
    return viewer
  }
  const caughtUp = async (query: string, options?: LiveViewerOptions): Promise<LiveViewer> => {
    const viewer = await watch(query, options)
    await viewer.waitForFrame('caught-up')
    return viewer
  }
  const stream = async (query: string): Promise<SseViewer> => {
    const viewer = await SseViewer.open(`${weir.http}/v1/live?${query}`)
    open.push(viewer)
    await viewer.waitForEvent('caught-up')
    return viewer
  }
  const post = async (device: string, payloads: readonly object[]): Promise<void> => {
    const answer = await fetch(`${weir.urls.gateway}/v1/telemetry/${device}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(payloads),
      signal: AbortSignal.timeout(30_000),
    })
    // A reading a metric: all but `ts`.
    const accepted = payloads.reduce((sum: number, payload) => sum + Object.keys(payload).length - 1, 0)
    expect([answer.status, await answer.json()]).toEqual([200, { accepted, deadLettered: 0 }])
  }
  const instants = (items: readonly LiveItem[]): number[] => items.map(({ observedAt }) => observedAt - firstAt)
  const upTo = (end: number): number[] => Array.from({ length: end }, (_, index) => index)

  it('with a reason, while others and devices go on, and resume without a loss', async () => {
    const query = 'device=flood&mode=every'
    const frozen = [await caughtUp(query), await caughtUp(query, columns)]
    const others = [await caughtUp(query), await caughtUp(query, columns), await stream(query)]
    const ofSteady = await caughtUp('device=steady&mode=every')
    for (const { socket } of frozen) socket.socket.pause()
    steady.resume()
    let sent = 0
    const flood = async (): Promise<void> => {
      await post(
        'flood',
        upTo(readingsABody).map((index) => ({ ts: firstAt + sent + index, note: text })),
      )
      sent += readingsABody
      // At the pace of those who read.
      await waitFor(() => others.every((viewer) => viewer.told().length >= sent - readingsABody), slow)
    }
    while ((await counterOf(weir.http, 'weir_live_slow')) < frozen.length) {
      expect(sent, 'readings of 1 kB, and nobody was let go').toBeLessThan(100_000)
      await flood()
    }
    const acknowledged = steady.acknowledged
    const heard = ofSteady.told().length
    const resumed: LiveViewer[] = []
    for (const [i, viewer] of frozen.entries()) {
      viewer.socket.socket.resume()
      expect([await viewer.socket.closed(), viewer.socket.closeReason]).toEqual([4013, 'slow'])
      const [last, bye] = viewer.frames.slice(-2)
      expect(bye).toMatchObject({ type: 'bye', reason: 'slow', cursor: last!.cursor })
      expect(viewer.told().length).toBeLessThan(sent)
      // In the other format: a cursor is one place in both.
      const since = `since=${encodeURIComponent(viewer.cursor()!)}`
      resumed.push(await watch(`${query}&${since}`, i === 0 ? columns : {}))
    }
    await flood()
    for (const [i, viewer] of frozen.entries()) {
      const all = (): LiveItem[] => [...viewer.told(), ...resumed[i]!.told()]
      await waitFor(() => all().length >= sent, { ...slow, what: 'everything, with what the resumed one was told' })
      expect(instants(all())).toEqual(upTo(sent))
      expect(resumed[i]!.frames.map(({ type }) => type)).not.toContain('gap')
    }
    for (const viewer of others) {
      await waitFor(() => viewer.told().length >= sent, slow)
      expect(instants(viewer.told())).toEqual(upTo(sent))
      expect(viewer.told().every((item) => item.text === text)).toBe(true)
    }
    // Those who had nothing to do with it.
    await waitFor(() => steady.acknowledged > acknowledged && ofSteady.told().length > heard, slow)
    steady.pause()
    await steady.settled()
    await waitFor(() => ofSteady.told().length >= steady.sent, slow)
    expect(instants(ofSteady.told())).toEqual(upTo(steady.sent))
    expect(steady.broken).toBeUndefined()
    expect(await counterOf(weir.http, 'weir_live_slow')).toBe(frozen.length)
  }, 300_000)

  it('what is no frame of the protocol closes the socket that sent it: 4000', async () => {
    const other = await caughtUp('device=calm&mode=every')
    const wrong: ((viewer: LiveViewer) => void)[] = [
      ({ socket }) => socket.text('{'),
      ({ socket }) => socket.text('"subscribe"'),
      ({ socket }) => socket.json({ type: 'subscribe', device: 'calm' }),
      ({ socket }) => socket.json({ type: 'publish', id: 1, payload: { v: 1 } }),
      ({ socket }) => socket.bytes(Buffer.from('{"type":"unsubscribe","id":1}')),
    ]
    for (const [index, misbehave] of wrong.entries()) {
      const viewer = await caughtUp('device=calm&mode=every')
      misbehave(viewer)
      expect([await viewer.socket.closed(), viewer.socket.closeReason]).toEqual([4000, 'malformed'])
      await post('calm', [{ ts: firstAt + index, v: index }])
    }
    const garbage = await caughtUp('device=calm&mode=every')
    garbage.socket.socket.write(clientFrame(7, Buffer.from('an opcode that is none')))
    await garbage.socket.closed()
    await waitFor(() => other.told().length >= wrong.length, slow)
    expect(instants(other.told())).toEqual(upTo(wrong.length))
  }, 120_000)

  it('over server-sent events, as JSON and as columns a viewer is told the same, from history to live', async () => {
    const devices = ['same-1', 'same-2', 'same-3']
    /** Of one in ten a text too. */
    const payload = (index: number): object => ({
      ts: firstAt + index,
      v: index / 7,
      ...(index % 10 === 0 && { état: `"${index}"\n` }),
    })
    const send = async (payloads: readonly object[]): Promise<void> => {
      for (const device of devices) await post(device, payloads)
    }
    const query = 'device=same-*&mode=every'
    const all = async (more: string) => [
      await caughtUp(`${query}${more}`),
      await caughtUp(`${query}${more}`, columns),
      await stream(`${query}${more}`),
    ]
    const ofDevice = (viewer: { told(): LiveItem[] }, device: string): Said[] =>
      viewer
        .told()
        .filter((item) => item.device === device)
        .map(({ metric, observedAt, value, text: words }) => ({ metric, observedAt, said: value ?? words }))
    await send(upTo(1_000).map(payload))
    const fromHistory = await all(`&since=${firstAt}`)
    const fromNow = await all('')
    // Some of them late, which are told as revisions, and two that take the place of others.
    await send([1_000, 1_001, 1_010, 1_005, 1_006, 1_002, 1_011].map(payload))
    await send([payload(1_020), { ts: firstAt + 990, v: -1 }, { ts: firstAt + 1_010, v: -2 }, payload(1_021)])
    const [history, live] = [1_000 + 100, 11 + 3]
    await waitFor(() => fromNow.every((viewer) => viewer.told().length >= devices.length * live), slow)
    await waitFor(() => fromHistory.every((viewer) => viewer.told().length >= devices.length * (history + live)), slow)
    for (const device of devices) {
      // In the order of the log.
      const told = fromNow.map((viewer) => ofDevice(viewer, device))
      expect(told[0]!.length).toBe(live)
      expect(told[1]).toEqual(told[0])
      expect(told[2]).toEqual(told[0])
      // Each began in the table and went on in the log at a seam of its own.
      const whole = fromHistory.map((viewer) => sorted(ofDevice(viewer, device)))
      expect(whole[0]!.length).toBe(history + live)
      expect(whole[1]).toEqual(whole[0])
      expect(whole[2]).toEqual(whole[0])
    }
  }, 120_000)
})

function sorted(items: readonly Said[]): Said[] {
  return items.toSorted((a, b) => a.observedAt - b.observedAt || (a.metric < b.metric ? -1 : 1))
}
