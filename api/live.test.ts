// Live viewers as `curl -N` is one, over real sockets.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { partitionOf } from '../domain/event-log.ts'
import { RetryableError } from '../runtime/errors.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'
import { SseViewer } from '../tests/helpers/sse.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createApiService } from './api-service.ts'
import { decodeCursor, encodeCursor } from './live/cursor.ts'
import { openWorld, type World } from './test-world.ts'
import { liveByeSchema, liveCaughtUpSchema, liveGapSchema, liveReadingsSchema, readingsSchema } from './wire.ts'

let world: World
const start = Date.UTC(2026, 0, 10) * 1000
const open: { close(): void }[] = []

beforeAll(async () => {
  world = await openWorld()
})
afterEach(() => {
  for (const viewer of open.splice(0)) viewer.close()
})
afterAll(() => world?.close())

async function view(query: string, headers: Readonly<Record<string, string>> = {}): Promise<SseViewer> {
  const viewer = await SseViewer.open(`${world.url}/v1/live?${query}`, headers)
  open.push(viewer)
  return viewer
}

async function caughtUp(query: string, headers?: Readonly<Record<string, string>>): Promise<SseViewer> {
  const viewer = await view(query, headers)
  liveCaughtUpSchema.parse((await viewer.waitForEvent('caught-up')).data)
  return viewer
}

/** A test that fails must not leave somebody who goes on sending for ever. */
async function sendingWhile(send: () => Promise<void>, work: () => Promise<void>): Promise<void> {
  const sending = setInterval(() => void send(), 1)
  try {
    await work()
  } finally {
    clearInterval(sending)
  }
}

const valuesOf = (viewer: SseViewer) => viewer.readings().map(({ value }) => value)

async function sendOne(device: string, value: number, observedAt = start + value): Promise<void> {
  await world.send([{ device, observedAt, value }])
}

describe('a live viewer', () => {
  it('sees a reading, and only those it asked for', async () => {
    const viewer = await caughtUp('device=live-1&device=group-*&metric=temperature')
    await world.send([
      { device: 'live-1', observedAt: start + 1, value: 20.5 },
      { device: 'live-1', metric: 'other', observedAt: start, value: 1 },
      { device: 'live-2', observedAt: start, value: 2 },
      { device: 'group-9', observedAt: start, value: 'on' },
    ])
    await waitFor(() => viewer.readings().length === 2)
    const items = viewer.readings().toSorted((a, b) => (a.device < b.device ? -1 : 1))
    expect(items).toEqual([
      { device: 'group-9', metric: 'temperature', observedAt: start / 1000, text: 'on' },
      { device: 'live-1', metric: 'temperature', observedAt: start / 1000 + 0.001, value: 20.5 },
    ])
    for (const { event, id, data } of viewer.events) {
      if (event === 'readings') expect(liveReadingsSchema.parse(data).cursor).toBe(id)
    }
  })

  it('in every mode gets each reading once, in order', async () => {
    const viewer = await caughtUp('device=every&mode=every')
    const sent = Array.from({ length: 500 }, (_, i) => i)
    for (const i of sent) void sendOne('every', i)
    await waitFor(() => viewer.readings().length >= 500)
    expect(valuesOf(viewer)).toEqual(sent)
  })

  it('in latest mode gets few frames, the newest value of each series, and the last in the end', async () => {
    const viewer = await caughtUp('device=latest')
    for (let i = 0; i < 500; i++) await sendOne('latest', i)
    await waitFor(() => valuesOf(viewer).at(-1) === 499)
    await sendOne('latest', 100)
    await sendOne('latest', 500)
    await waitFor(() => valuesOf(viewer).at(-1) === 500)
    const values = valuesOf(viewer) as number[]
    expect(values).toEqual([...new Set(values)].toSorted((a, b) => a - b))
    for (const { event, data } of viewer.events) {
      if (event !== 'readings') continue
      expect(liveReadingsSchema.parse(data).items).toHaveLength(1)
    }
  })

  it('that resumes with its last cursor misses nothing and gets nothing twice', async () => {
    const first = await caughtUp('device=resume&mode=every')
    for (let i = 0; i < 100; i++) void sendOne('resume', i)
    await waitFor(() => first.readings().length >= 50)
    first.close()
    const seen = valuesOf(first)
    const cursor = first.events.findLast(({ event }) => event === 'readings')!.id
    for (let i = 100; i < 200; i++) await sendOne('resume', i)
    let next = 200
    let second!: SseViewer
    await sendingWhile(
      () => sendOne('resume', next++),
      async () => {
        second = await caughtUp('device=resume&mode=every', { 'last-event-id': cursor })
        await waitFor(() => second.readings().length >= 200)
      },
    )
    await waitFor(() => [...seen, ...valuesOf(second)].length === next)
    expect([...seen, ...valuesOf(second)]).toEqual(Array.from({ length: next }, (_, i) => i))
  })

  it('resumes with `since`, and the header leads', async () => {
    const first = await caughtUp('device=since&mode=every')
    await sendOne('since', 1)
    const { id } = await first.waitForEvent('readings')
    await sendOne('since', 2)
    await waitFor(() => first.readings().length === 2)
    const later = first.events.at(-1)!.id
    const second = await caughtUp(`device=since&mode=every&since=${encodeURIComponent(id)}`)
    expect(valuesOf(second)).toEqual([2])
    const third = await caughtUp(`device=since&mode=every&since=${encodeURIComponent(id)}`, { 'last-event-id': later })
    expect(valuesOf(third)).toEqual([])
    const latest = await caughtUp(`device=since&since=${encodeURIComponent(id)}`)
    expect(valuesOf(latest)).toEqual([2])
  })

  it('that asks for an instant gets history, then live, each reading once, while readings go on coming and being stored', async () => {
    let sent = 0
    const next = () => ({ device: `joined-${sent % 7}`, observedAt: start + sent, value: sent++ })
    for (let i = 0; i < 60; i++) await world.send(Array.from({ length: 100 }, next))
    const viewers: SseViewer[] = []
    await sendingWhile(
      () => world.send([next(), next(), next()]),
      async () => {
        for (let i = 0; i < 8; i++) viewers.push(await caughtUp(`device=joined-*&mode=every&since=${start / 1000 + 1}`))
        await waitFor(() => sent > 8_000)
      },
    )
    const expected = Array.from({ length: sent - 1_000 }, (_, i) => i + 1_000)
    for (const viewer of viewers) {
      await waitFor(() => viewer.readings().length >= expected.length)
      expect(valuesOf(viewer).toSorted((a, b) => a! - b!)).toEqual(expected)
    }
  })

  it('that was cut off in history goes on from there', async () => {
    const send = (from: number, to: number) =>
      world.send(
        Array.from({ length: to - from }, (_, i) => ({
          device: `past-${i % 3}`,
          observedAt: start + from + i,
          value: from + i,
        })),
      )
    await send(0, 5_000)
    await world.settle()
    const first = await caughtUp(`device=past-*&mode=every&since=${start / 1000}`)
    const frames = first.events.filter(({ event }) => event === 'readings')
    expect(frames.length).toBeGreaterThan(2)
    const seen = (frames[0]!.data as { items: { value: number }[] }).items.map(({ value }) => value)
    // A correction of what was seen, a late reading before it, and new ones.
    await world.send([
      { device: 'past-0', observedAt: start, value: -1 },
      { device: 'past-1', observedAt: start + 3_001, value: -2 },
    ])
    await send(5_000, 5_100)
    await world.settle()
    const second = await caughtUp('device=past-*&mode=every', { 'last-event-id': frames[0]!.id })
    await waitFor(() => seen.length + second.told().length >= 5_101)
    const told = second.told().map(({ value }) => value)
    const values = [...seen, ...told].toSorted((a, b) => a! - b!)
    const kept = Array.from({ length: 5_100 }, (_, i) => i)
    // What the second correction replaced had not been sent, and is in the table no more.
    expect(values).toEqual([-2, -1, ...kept.filter((value) => value !== 3_001)])
  })

  it('that asks for an instant is told of the gap when the table is away', async () => {
    const query = () => Promise.reject(new RetryableError('The store can’t be reached'))
    const { api, url } = await world.startApi({ ...world.clickhouse, query })
    const viewer = await SseViewer.open(`${url}/v1/live?mode=every&device=away&since=${start / 1000}`)
    // A store that is started again is waited for.
    const gap = await viewer.waitForEvent('gap')
    expect(liveGapSchema.parse(gap.data)).toMatchObject({ cause: 'store-away', from: start / 1000 })
    await viewer.waitForEvent('caught-up')
    await sendOne('away', 1)
    await waitFor(() => valuesOf(viewer).length === 1)
    viewer.close()
    await api.stop()
  }, 40_000)

  it('is told of a gap when its cursor is beyond the log', async () => {
    const viewer = await caughtUp(`mode=every&device=gap&since=${encodeURIComponent('l2~0.999999.1700000000000000')}`)
    const gap = viewer.events.find(({ event }) => event === 'gap')!
    expect(liveGapSchema.parse(gap.data)).toMatchObject({ cause: 'unknown-cursor', from: 1_700_000_000_000 })
    await sendOne('gap', 1)
    await waitFor(() => valuesOf(viewer).length === 1)
  })

  it.each(['and nothing came since', 'and more came since'])(
    'whose cursor is of another log, which numbered otherwise, %s, gets from the table what it has not got',
    async (when) => {
      const device = `elsewhere-${when.length}`
      const first = await caughtUp(`device=${device}&mode=every`)
      for (const value of [1, 2]) await sendOne(device, value)
      await waitFor(() => first.readings().length === 2)
      first.close()
      const cursor = decodeCursor(first.events.findLast(({ event }) => event === 'readings')!.id!)!
      for (const value of [3, 4, 5]) await sendOne(device, value)
      await world.settle()
      // In the log of before, three chunks lay ahead that are not in this one: where it says that it stands, all five are behind it.
      const partition = partitionOf('default', device, 4)
      const position = new Map(cursor.position).set(partition, cursor.position.get(partition)! + 3)
      if (when === 'and more came since') await sendOne(device, 6)
      const second = await caughtUp(`device=${device}&mode=every&since=${encodeCursor({ ...cursor, position })}`)
      await waitFor(() => second.readings().length >= (when === 'and more came since' ? 4 : 3))
      expect(valuesOf(second)).toEqual(when === 'and more came since' ? [3, 4, 5, 6] : [3, 4, 5])
      expect(second.events.map(({ event }) => event)).not.toContain('gap')
    },
  )

  it('with the same question shares what others get', async () => {
    const viewers = await Promise.all(Array.from({ length: 20 }, () => caughtUp('device=shared&mode=every')))
    for (let i = 0; i < 20; i++) await sendOne('shared', i)
    for (const viewer of viewers) {
      await waitFor(() => viewer.readings().length === 20)
      expect(valuesOf(viewer)).toEqual(Array.from({ length: 20 }, (_, i) => i))
    }
  })

  it('that reads nothing is let go, while others go on', async () => {
    const text = 'x'.repeat(1_000)
    const frozen = await freeze('device=flood&mode=every')
    const other = await caughtUp('device=flood&mode=every')
    const before = await viewers()
    let sent = 0
    await waitFor(
      async () => {
        await world.send(
          Array.from({ length: 200 }, (_, i) => ({ device: 'flood', observedAt: start + sent + i, value: text })),
        )
        sent += 200
        return (await viewers()) < before
      },
      { everyMs: 1, what: 'the frozen viewer to be let go' },
    )
    let tail = ''
    frozen.on('data', (data) => {
      tail = (tail + data.toString('utf8')).slice(-4_000)
    })
    const closed = once(frozen, 'close')
    frozen.resume()
    await closed
    const bye = /event: bye\nid: (.*)\ndata: (.*)\n/.exec(tail)!
    expect(liveByeSchema.parse(JSON.parse(bye[2]!))).toEqual({ reason: 'slow', cursor: bye[1] })
    await waitFor(() => other.readings().length === sent)
    expect(other.ended).toBe(false)
    // What was dropped comes with the cursor.
    expect(sent).toBeGreaterThan(4_000)
    const resumed = await caughtUp(`device=flood&mode=every&since=${encodeURIComponent(bye[1]!)}`)
    const last = (viewer: SseViewer) => viewer.readings().at(-1)!.observedAt
    expect(last(resumed)).toBe(last(other))
  })
})

describe('viewers', () => {
  it('are bounded in number: one too many gets 503, and a place once another has left', async () => {
    const { log, clickhouse, clock } = world
    const service = createApiService({
      ...{
        config: { host: '127.0.0.1', httpPort: 0, livePort: 0 },
        log,
        clickhouse,
        clock,
        logger: silentLogger,
        viewersMax: 1,
      },
      ...{ status: { all: async () => [] }, instruments: createInstruments('api') },
    })
    await service.start()
    const { host, port } = service.httpAddress()
    const url = `http://${host}:${port}/v1/live`
    const first = await SseViewer.open(url)
    const refused = await fetch(url)
    expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '1'])
    expect(await refused.json()).toMatchObject({ type: '/problems/too-many-viewers' })
    first.close()
    const second = await waitFor(() => SseViewer.open(url))
    second.close()
    await service.drain(AbortSignal.timeout(60_000))
    await service.stop()
  })
})

async function viewers(): Promise<number> {
  return (await world.get<{ viewers: number }>('/v1/pipeline')).body.viewers
}

/** Asks, takes the head of the answer, and reads no more. */
async function freeze(query: string): Promise<Socket> {
  const socket = connect(Number(new URL(world.url).port), '127.0.0.1')
  await once(socket, 'connect')
  socket.write(`GET /v1/live?${query} HTTP/1.1\r\nHost: weir\r\n\r\n`)
  await once(socket, 'data')
  socket.pause()
  open.push({ close: () => socket.destroy() })
  return socket
}

describe('the end of the service', () => {
  it('says bye to every viewer, answers what is under way, and ends in time', async () => {
    let release = (): void => {}
    const released = new Promise<void>((resolve) => {
      release = resolve
    })
    let isAsked = false
    const { api, url } = await world.startApi({
      ...world.clickhouse,
      async query(sql, options) {
        isAsked = true
        await released
        return world.clickhouse.query(sql, options)
      },
    })
    const viewer = await SseViewer.open(`${url}/v1/live?mode=every`)
    await viewer.waitForEvent('caught-up')
    const underWay = fetch(`${url}/v1/readings?limit=10`)
    await waitFor(() => isAsked)
    const drained = api.drain(AbortSignal.timeout(60_000))
    expect(liveByeSchema.parse((await viewer.waitForEvent('bye')).data)).toMatchObject({ reason: 'stopping' })
    await waitFor(() => viewer.ended)
    release()
    expect(readingsSchema.parse(await (await underWay).json()).items).toHaveLength(10)
    await drained
    await expect(fetch(`${url}/healthz`)).rejects.toThrow()
    await api.stop()
  })

  it('cuts what is not done by the deadline', async () => {
    const { api, url } = await world.startApi({ ...world.clickhouse, query: () => new Promise(() => {}) })
    const underWay = fetch(`${url}/v1/readings`).then(
      () => 'answered',
      () => 'cut',
    )
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    socket.on('error', () => {})
    await once(socket, 'connect')
    socket.write('GET /v1/live?mode=every HTTP/1.1\r\nHost: weir\r\n\r\n')
    await once(socket, 'data')
    socket.pause()
    await api.drain(AbortSignal.timeout(200))
    await api.stop()
    expect(await underWay).toBe('cut')
    socket.destroy()
  })

  it('is not held up by connections that come in the last moment and say nothing', async () => {
    const { api, url } = await world.startApi()
    const { port, hostname } = new URL(url)
    const sockets: Socket[] = []
    const knocking = setInterval(() => {
      for (let i = 0; i < 3; i++) sockets.push(connect(Number(port), hostname).on('error', () => {}))
    }, 1)
    await waitFor(() => sockets.length > 30)
    const startAt = performance.now()
    await api.stop()
    expect(performance.now() - startAt).toBeLessThan(15_000)
    clearInterval(knocking)
    for (const socket of sockets) socket.destroy()
  }, 90_000)
})
