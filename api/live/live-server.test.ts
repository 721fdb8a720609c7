// Viewers over WebSocket, on bare sockets: what a well-behaved client never sends is sent too.
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { encodeAnomaly } from '../../domain/anomaly.ts'
import { createViewerAccess } from '../../runtime/access/viewer-access.ts'
import { createInstruments } from '../../runtime/instruments.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { decodeColumns } from '../../tests/helpers/columns.ts'
import { LiveViewer } from '../../tests/helpers/live-viewer.ts'
import { SseViewer } from '../../tests/helpers/sse.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { clientFrame, opcodes } from '../../tests/helpers/websocket.ts'
import { createApiService } from '../api-service.ts'
import { openWorld, type World } from '../test-world.ts'
import { anomalySchema, liveReadingsSchema, liveRevisionSchema } from '../wire.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000
const open: { close(): void }[] = []

beforeAll(async () => {
  world = await openWorld()
}, 60_000)
afterEach(() => {
  for (const viewer of open.splice(0)) viewer.close()
})
afterAll(() => world?.close())

type Options = Parameters<typeof LiveViewer.open>[2]

async function view(query = '', options: Options = {}): Promise<LiveViewer> {
  const viewer = await LiveViewer.open(world.liveUrl, query, options)
  open.push(viewer)
  return viewer
}

async function caughtUp(query: string, options?: Options): Promise<LiveViewer> {
  const viewer = await view(query, options)
  await viewer.waitForFrame('caught-up')
  return viewer
}

const send = (device: string, value: number | string, at = typeof value === 'number' ? value : 0): Promise<void> =>
  world.send([{ device, observedAt: start + at * 1000, value }])

describe('a viewer over WebSocket', () => {
  it('gets the frames that server-sent events have, as JSON text', async () => {
    const query = 'device=both&mode=every&anomalies=true'
    const viewer = await caughtUp(query)
    const stream = await SseViewer.open(`${world.url}/v1/live?${query}`)
    open.push(stream)
    await stream.waitForEvent('caught-up')
    for (const value of [1, 3, 2, 'on']) await send('both', value)
    await world.log.append('anomalies', 0, encodeAnomaly(anomaly('both')), 1, world.clock.micros)
    const types = ['caught-up', 'readings', 'readings', 'revision', 'revision', 'anomaly']
    await waitFor(() => viewer.frames.length >= types.length && stream.events.length >= types.length, {
      withinMs: 15_000,
      what: () => `all frames; so far ${viewer.frames.map(({ type }) => type)}`,
    })
    expect(viewer.frames.map(({ type }) => type).toSorted()).toEqual(types.toSorted())
    const bare = ({ type, ...rest }: Record<string, unknown>) => ({ event: type, data: rest })
    const order = (a: { event?: unknown }, b: { event?: unknown }) => (String(a.event) < String(b.event) ? -1 : 1)
    expect(viewer.frames.map(bare).toSorted(order)).toEqual(
      stream.events.map(({ event, data }) => ({ event, data })).toSorted(order),
    )
    const { type: _, ...readings } = await viewer.waitForFrame('readings')
    expect(liveReadingsSchema.parse(readings).items).toEqual([
      { device: 'both', metric: 'temperature', observedAt: start / 1000 + 1, value: 1 },
    ])
    const { type: __, ...revision } = await viewer.waitForFrame('revision')
    const observedAt = start / 1000 + 2
    expect(liveRevisionSchema.parse(revision)).toEqual({
      ...{ device: 'both', metric: 'temperature', observedAt, value: 2, resolution: 'raw' },
      ...{ from: observedAt, to: observedAt + 0.001, cursor: expect.any(String) },
    })
    const { type: ___, ...found } = await viewer.waitForFrame('anomaly')
    expect(anomalySchema.parse(found).device).toBe('both')
  })

  it('in latest mode hears of late readings and corrections as revisions, together by series', async () => {
    const viewer = await caughtUp('device=late')
    await send('late', 100)
    await waitFor(() => viewer.readings().length === 1)
    await world.send([40, 60, 50].map((value) => ({ device: 'late', observedAt: start + value * 1000, value })))
    const late = await viewer.waitForFrame('revision')
    expect(late).toMatchObject({ value: 50, from: start / 1000 + 40, to: start / 1000 + 60.001 })
    await world.send([{ device: 'late', observedAt: start + 100_000, value: -1 }])
    await viewer.waitForFrame('revision', ({ value }) => value === -1)
    await send('late', 101)
    await waitFor(() => viewer.readings().length === 2)
    expect(viewer.readings().map(({ value }) => value)).toEqual([100, 101])
  })

  it('in latest mode hears of a correction of the newest reading, whatever comes late with it', async () => {
    const viewer = await caughtUp('device=corrected')
    await send('corrected', 100)
    await waitFor(() => viewer.readings().length === 1, { withinMs: 15_000 })
    await world.send(
      [
        [100, -1],
        [40, 40],
      ].map(([at, value]) => ({ device: 'corrected', observedAt: start + at! * 1000, value: value! })),
    )
    expect(await viewer.waitForFrame('revision')).toMatchObject({
      ...{ observedAt: start / 1000 + 100, value: -1 },
      ...{ from: start / 1000 + 40, to: start / 1000 + 100.001 },
    })
  })

  for (const mode of ['every', 'latest'])
    it(`that comes back in ${mode} mode hears of what is older than it had as a revision, not as the newest`, async () => {
      const device = `back-${mode}`
      const first = await caughtUp(`device=${device}&mode=${mode}`)
      await send(device, 100)
      await waitFor(() => first.readings().length === 1, { withinMs: 15_000 })
      const cursor = first.cursor()!
      first.close()
      await send(device, 50)
      const again = await caughtUp(`device=${device}&mode=${mode}&since=${encodeURIComponent(cursor)}`)
      await send(device, 60)
      await again.waitForFrame('revision', ({ value }) => value === 60)
      await again.waitForFrame('revision', ({ value }) => value === 50)
      expect(again.readings()).toEqual([])
      // Nothing of it came while this one was away.
      const last = await caughtUp(`device=${device}&mode=${mode}&since=${encodeURIComponent(again.cursor()!)}`)
      again.close()
      await send(device, 70)
      await last.waitForFrame('revision', ({ value }) => value === 70)
      await send(device, 101)
      await waitFor(() => last.readings().length === 1, { withinMs: 15_000 })
      expect(last.readings().map(({ value }) => value)).toEqual([101])
    })

  it('resumes with its cursor, also in the middle of one payload, without a hole or a repeat', async () => {
    const first = await caughtUp('device=middle&mode=every')
    // One chunk: two that are newest, a late one, two more.
    await world.send([1, 5, 3, 6, 7].map((value) => ({ device: 'middle', observedAt: start + value * 1000, value })))
    await waitFor(() => first.told().length === 5, { withinMs: 15_000 })
    expect(first.told().map(({ value }) => value)).toEqual([1, 5, 3, 6, 7])
    const moved = first.frames.filter(({ type }) => type === 'readings' || type === 'revision')
    expect(moved.map(({ type }) => type)).toEqual(['readings', 'revision', 'readings'])
    let seen = 0
    for (const frame of moved) {
      seen += frame.type === 'readings' ? (frame.items as unknown[]).length : 1
      const again = await caughtUp(`device=middle&mode=every&since=${encodeURIComponent(frame.cursor!)}`)
      expect(again.told().map(({ value }) => value)).toEqual([1, 5, 3, 6, 7].slice(seen))
    }
  })

  it('gets history, then live, as columns when it asks for them', async () => {
    await world.send(
      Array.from({ length: 3_000 }, (_, i) => ({
        device: `columns-${i % 3}`,
        metric: i % 3 === 2 ? 'größe' : 'rpm',
        observedAt: start + i,
        value: i % 10 === 0 ? `text ${i}` : i / 7,
      })),
    )
    await world.settle()
    const query = `device=columns-*&mode=every&since=${start / 1000}`
    const asColumns = await caughtUp(query, { protocol: 'weir.columns' })
    expect(asColumns.socket.head).toMatch(/sec-websocket-protocol: weir\.columns/i)
    const asJson = await caughtUp(query)
    await world.send([{ device: 'columns-0', metric: 'rpm', observedAt: start + 5_000_000, value: 0.1 }])
    await waitFor(() => asJson.readings().length === 3_001, { withinMs: 15_000 })
    const items = (): unknown[] => asColumns.socket.binary.map(decodeColumns).flatMap((frame) => frame.items)
    await waitFor(() => items().length >= 3_001, { withinMs: 15_000 })
    expect(items()).toEqual(asJson.readings())
    expect(asColumns.readings()).toEqual([])
    const cursors = asJson.frames.filter(({ type }) => type === 'readings').map(({ cursor }) => cursor)
    const seam = /^h1~/
    const same = asColumns.socket.binary.map((frame) => decodeColumns(frame).cursor)
    // Each found a seam of its own in the log; what they stand for is the same.
    expect(same.map((cursor) => seam.test(cursor))).toEqual(cursors.map((cursor) => seam.test(cursor!)))
  })

  it('that resumes when the log reaches no further back goes on out of the table, or is told of the gap', async () => {
    const first = await caughtUp('device=old&mode=every')
    await send('old', 1)
    await waitFor(() => first.readings().length === 1)
    const cursor = first.cursor()!
    first.close()
    const cut = await caughtUp('device=cut&mode=every')
    // One chunk, told in three frames: retention takes it while a viewer stands in the middle of it.
    await world.send([1, 5, 3, 6, 7].map((value) => ({ device: 'cut', observedAt: start + value * 1000, value })))
    await waitFor(() => cut.told().length === 5)
    const within = cut.frames.filter(({ type }) => type === 'readings' || type === 'revision').slice(0, 2)
    for (let value = 2; value <= 50; value++) await send('old', value)
    // Late, and received while it was away.
    await send('old', -5)
    await world.fillLog()
    // One that was started since has no ring that would reach back.
    const { api } = await world.startApi()
    const { host, port } = api.liveAddress()!
    const resume = async (from: string, device = 'old'): Promise<LiveViewer> => {
      const viewer = await LiveViewer.open(`ws://${host}:${port}`, `device=${device}&mode=every&since=${from}`)
      open.push(viewer)
      await viewer.waitForFrame('caught-up')
      return viewer
    }
    const second = await resume(cursor)
    expect(second.frames.filter(({ type }) => type === 'gap')).toEqual([])
    const expected = [-5, ...Array.from({ length: 49 }, (_, i) => i + 2)]
    expect(
      second
        .told()
        .map(({ value }) => value)
        .toSorted((a, b) => a! - b!),
    ).toEqual(expected)
    for (const [index, rest] of [
      [3, 6, 7],
      [6, 7],
    ].entries()) {
      const again = await resume(within[index]!.cursor!, 'cut')
      expect(again.told().map(({ value }) => value)).toEqual(rest)
    }
    await send('old', 51)
    await waitFor(() => second.readings().at(-1)?.value === 51)
    // A cursor that does not say what was received before it can only be answered with the gap.
    const bare = cursor.replaceAll(/\.(\d+)\.\d+/g, '.$1.0')
    const third = await resume(bare)
    expect(third.frames.filter(({ type }) => type === 'gap')).toMatchObject([{ cause: 'log-retention', from: null }])
  }, 60_000)
})

describe('several subscriptions on one socket', () => {
  it('each get their own, with their id, and end one by one', async () => {
    const viewer = await view('mode=none')
    viewer.socket.json({ type: 'subscribe', id: 'a', device: 'multi-1', mode: 'every' })
    viewer.socket.json({ type: 'subscribe', id: 2, device: ['multi-1', 'multi-2'], mode: 'every', anomalies: true })
    await viewer.waitForFrame('caught-up', ({ id }) => id === 'a')
    await viewer.waitForFrame('caught-up', ({ id }) => id === 2)
    await send('multi-1', 1)
    await send('multi-2', 2)
    await waitFor(() => viewer.readings(2).length === 2, { withinMs: 15_000 })
    expect(viewer.readings('a').map(({ value }) => value)).toEqual([1])
    await world.log.append('anomalies', 0, encodeAnomaly(anomaly('multi-1')), 1, world.clock.micros)
    expect(await viewer.waitForFrame('anomaly')).toMatchObject({ subscription: 2, id: expect.any(String) })
    viewer.socket.json({ type: 'unsubscribe', id: 2 })
    const bye = await viewer.waitForFrame('bye', ({ id }) => id === 2)
    expect(bye).toMatchObject({ reason: 'unsubscribed', cursor: expect.stringMatching(/^l2~/) })
    await send('multi-2', 3)
    await send('multi-1', 4)
    await waitFor(() => viewer.readings('a').length === 2, { withinMs: 15_000 })
    expect(viewer.readings(2)).toHaveLength(2)
    // The id is free, and the cursor goes on.
    viewer.socket.json({ type: 'subscribe', id: 2, device: 'multi-2', mode: 'every', since: bye.cursor })
    await waitFor(() => viewer.readings(2).length === 3, { withinMs: 15_000 })
    expect(viewer.readings(2).at(-1)?.value).toBe(3)
  })

  it('are refused one by one where they can’t be had, and the others go on', async () => {
    const viewer = await caughtUp('device=refusals&mode=every')
    const ask = (frame: object) => viewer.socket.json({ type: 'subscribe', ...frame })
    ask({ id: 'a', device: 'x' })
    ask({ id: 'a', device: 'y' })
    ask({ id: 'b', devise: 'x' })
    ask({ id: 'c', since: 'yesterday' })
    ask({ id: 'd', device: { name: 'x' } })
    viewer.socket.json({ type: 'unsubscribe', id: 'e' })
    const errors = () => viewer.frames.filter(({ type }) => type === 'error')
    await waitFor(() => errors().length === 5, { withinMs: 15_000 })
    expect(errors().map(({ id, problem, status }) => [id, problem, status])).toEqual([
      ['a', '/problems/id-in-use', 409],
      ['b', '/problems/invalid-parameter', 400],
      ['c', '/problems/invalid-parameter', 400],
      ['d', '/problems/invalid-parameter', 400],
      ['e', '/problems/unknown-subscription', 409],
    ])
    for (let i = 0; i < 32; i++) ask({ id: `more-${i}`, device: 'x' })
    await viewer.waitForFrame('error', ({ problem }) => problem === '/problems/subscriptions-max')
    await send('refusals', 1)
    await waitFor(() => viewer.readings().length === 1, { withinMs: 15_000 })
  })
})

describe('what is no frame of the protocol', () => {
  const cases: [string, number, string, (viewer: LiveViewer) => void][] = [
    ['text that is not JSON', 4000, 'malformed', ({ socket }) => socket.text('{')],
    ['JSON that is no object', 4000, 'malformed', ({ socket }) => socket.text('[1]')],
    ['an unknown type', 4000, 'malformed', ({ socket }) => socket.json({ type: 'publish', id: 1 })],
    ['no id', 4000, 'malformed', ({ socket }) => socket.json({ type: 'subscribe', device: 'x' })],
    [
      'thousands of names',
      4000,
      'malformed',
      ({ socket }) =>
        socket.json({
          type: 'subscribe',
          id: 1,
          ...Object.fromEntries(Array.from({ length: 6_000 }, (_, i) => [`p${i}`, 1])),
        }),
    ],
    ['an empty id', 4000, 'malformed', ({ socket }) => socket.json({ type: 'subscribe', id: '' })],
    ['a long id', 4000, 'malformed', ({ socket }) => socket.json({ type: 'unsubscribe', id: 'x'.repeat(129) })],
    ['a binary frame', 4000, 'malformed', ({ socket }) => socket.bytes(Buffer.from('{"type":"subscribe","id":1}'))],
    ['too large a message', 1009, 'size', ({ socket }) => socket.text(' '.repeat(70_000))],
    [
      'too many messages',
      4029,
      'flood',
      ({ socket }) => {
        for (let i = 0; i < 250; i++) socket.json({ type: 'unsubscribe', id: i })
      },
    ],
  ]
  it.each(cases)('closes the socket: %s', async (_, code, reason, misbehave) => {
    const viewer = await caughtUp('device=nobody')
    misbehave(viewer)
    await viewer.socket.closed()
    expect([viewer.socket.closeCode, viewer.socket.closeReason]).toEqual([code, reason])
  })

  it('answers what is not usable in a few words, however much of it there is', async () => {
    const viewer = await caughtUp('device=nobody')
    viewer.socket.json({ type: 'subscribe', id: 1, device: Array.from({ length: 15_000 }, () => '') })
    expect((await viewer.waitForFrame('error')).detail).toMatch(/^device must be .* a list of up to 100 texts$/)
    viewer.socket.json({ type: 'subscribe', id: 2, device: Array.from({ length: 100 }, (_, i) => `\u0000${i}`) })
    const error = await viewer.waitForFrame('error', ({ id }) => id === 2)
    expect(error.detail).toMatch(/and 80 more$/)
    expect(JSON.stringify(error).length).toBeLessThan(8_000)
  })

  it('ends the connection where it is no WebSocket frame at all, and nobody else’s', async () => {
    const other = await caughtUp('device=other&mode=every')
    const garbage: ((viewer: LiveViewer) => void)[] = [
      ({ socket }) => socket.socket.write(Buffer.alloc(64, 0xff)),
      ({ socket }) => socket.socket.write(clientFrame(7, Buffer.from('reserved opcode'))),
      ({ socket }) => socket.socket.write(clientFrame(opcodes.ping, Buffer.alloc(200))),
      ({ socket }) => socket.socket.write(clientFrame(opcodes.text, Buffer.from([0xc3, 0x28]))),
    ]
    for (const misbehave of garbage) {
      const viewer = await caughtUp('device=nobody')
      misbehave(viewer)
      await viewer.socket.closed()
    }
    await send('other', 1)
    await waitFor(() => other.readings().length === 1, { withinMs: 15_000 })
  })
})

describe('the live port', () => {
  const ask = (path: string, init?: RequestInit) =>
    fetch(`${world.liveUrl.replace('ws:', 'http:')}${path}`, init).then(async (answer) => ({
      status: answer.status,
      type: answer.headers.get('content-type'),
      body: (await answer.json()) as { type: string; detail: string },
    }))

  it('tells a request that is no upgrade what to do', async () => {
    expect(await ask('/v1/live')).toMatchObject({
      status: 426,
      type: 'application/problem+json; charset=utf-8',
      body: { type: '/problems/upgrade-required', detail: expect.stringContaining('8080') },
    })
    expect(await ask('/v1/live', { method: 'POST', body: '{}' })).toMatchObject({ status: 405 })
    expect(await ask('/')).toMatchObject({ status: 404, body: { type: '/problems/unknown-route' } })
  })

  it.each([
    ['an unknown parameter', 'devise=x', 400, 'devise is not a parameter'],
    ['an unusable value', 'mode=sometimes', 400, 'must be latest or every'],
    ['an unusable since', 'since=l2~x', 400, 'neither a cursor'],
    ['more beside mode=none', 'mode=none&device=x', 400, 'says nothing beside'],
  ])('refuses an upgrade: %s', async (_, query, status, detail) => {
    const refused = new RegExp(`HTTP/1.1 ${status}.*problem.json.*${detail}`, 's')
    await expect(view(query)).rejects.toThrow(refused)
  })

  it('refuses pages of other sites, and subprotocols that it does not speak', async () => {
    const headers = { Origin: 'https://evil.example' }
    await expect(view('', { headers })).rejects.toThrow(/403.*foreign-origin/s)
    await expect(view('', { protocol: 'mqtt' })).rejects.toThrow(/400.*subprotocol-expected/s)
    await view('', { headers: { Origin: 'http://127.0.0.1:8080' }, protocol: 'weir.json' })
  })

  it('asks for authority at each upgrade, refuses one viewer too many, and says bye in order', async () => {
    const { log, clickhouse, clock } = world
    const adminToken = 'right-and-long-enough'
    const access = createViewerAccess({ config: { host: '127.0.0.1', auth: 'required', adminToken }, clock })
    const service = createApiService({
      ...{ config: { host: '127.0.0.1', httpPort: 0, livePort: 0 }, log, clickhouse, clock, logger: silentLogger },
      ...{ status: { all: async () => [] }, instruments: createInstruments('api'), viewersMax: 1 },
      access,
    })
    await service.start()
    const { host, port } = service.liveAddress()!
    const url = `ws://${host}:${port}`
    await expect(LiveViewer.open(url, 'device=a', { headers: { Cookie: 'b=c' } })).rejects.toThrow(/401/)
    const headers = { Authorization: `Bearer ${adminToken}` }
    const viewer = await LiveViewer.open(url, 'device=b', { headers })
    open.push(viewer)
    await viewer.waitForFrame('caught-up')
    await expect(LiveViewer.open(url, '', { headers })).rejects.toThrow(/503.*too-many-viewers/s)
    await service.drain(AbortSignal.timeout(5_000))
    expect(await viewer.waitForFrame('bye')).toMatchObject({
      reason: 'stopping',
      cursor: expect.stringMatching(/^l2~/),
    })
    expect([await viewer.socket.closed(), viewer.socket.closeReason]).toEqual([1001, 'stopping'])
    await service.stop()
  })
})

describe('a viewer that stays behind', () => {
  it('is told so and closed with 4013, while others go on, and resumes without a loss', async () => {
    const frozen = await caughtUp('device=flood&mode=every')
    const other = await caughtUp('device=flood&mode=every')
    frozen.socket.socket.pause()
    const text = 'x'.repeat(1_000)
    const slow = (): number => world.api.slowViewers()
    const before = slow()
    let sent = 0
    await waitFor(
      async () => {
        const some = Array.from({ length: 200 }, (_, i) => ({
          device: 'flood',
          observedAt: start + sent + i,
          value: text,
        }))
        await world.send(some)
        sent += some.length
        return slow() > before
      },
      { withinMs: 40_000, everyMs: 1, what: 'the frozen viewer to be let go' },
    )
    frozen.socket.socket.resume()
    expect([await frozen.socket.closed(), frozen.socket.closeReason]).toEqual([4013, 'slow'])
    const bye = frozen.frames.at(-1)!
    expect(bye).toMatchObject({ type: 'bye', reason: 'slow', cursor: frozen.frames.at(-2)!.cursor })
    await waitFor(() => other.readings().length === sent, { withinMs: 20_000 })
    const resumed = await view(`device=flood&mode=every&since=${encodeURIComponent(bye.cursor!)}`)
    const all = () => [...frozen.readings(), ...resumed.readings()].map(({ observedAt }) => observedAt)
    await waitFor(() => all().length >= sent, { withinMs: 20_000 })
    expect(all()).toEqual(other.readings().map(({ observedAt }) => observedAt))
  }, 90_000)
})

function anomaly(device: string) {
  return {
    ...{ tenant: 'default', device, metric: 'temperature', observedAt: start, receivedAt: ++world.clock.micros },
    ...{ id: `a-${world.clock.micros}`, detector: 'coverage-net/1', score: 0.99, value: 1, expectedLow: 2 },
    ...{ expectedHigh: 3, explanation: 'odd', evidence: '{}' },
  }
}
