import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openWorld, type SentReading, type World } from './test-world.ts'
import { latestSchema, type ReadingAnswer, type ReadingsAnswer, readingsSchema } from './wire.ts'

let world: World
const day = Date.UTC(2026, 0, 10) * 1000
const all: SentReading[] = []

beforeAll(async () => {
  world = await openWorld()
  // Equal instants over series, and some with microseconds.
  for (let i = 0; i < 40; i++) {
    for (const device of ['pump-1', 'pump-2', 'fan-1']) {
      for (const metric of ['rpm', 'motor.temperature']) {
        all.push({ device, metric, observedAt: day + i * 1_000_000 + (i % 4) * 123, value: i + metric.length / 10 })
      }
    }
  }
  await world.send(all)
  await world.send([{ device: 'door', metric: 'state', observedAt: day, value: 'öffen "jetzt"' }])
  await world.settle()
})
afterAll(() => world?.close())

async function pages(query: string): Promise<ReadingAnswer[]> {
  const items: ReadingAnswer[] = []
  let after = ''
  for (let page = 0; page < 1_000; page++) {
    const { status, body } = await world.get<ReadingsAnswer>(`/v1/readings?${query}${after}`)
    expect(status).toBe(200)
    readingsSchema.parse(body)
    items.push(...body.items)
    if (body.next === null) return items
    expect(body.items.length).toBeGreaterThan(0)
    after = `&after=${encodeURIComponent(body.next)}`
  }
  throw new Error('the pages do not end')
}

const key = ({ device, metric, observedAt }: Pick<ReadingAnswer, 'device' | 'metric' | 'observedAt'>): string =>
  `${observedAt} ${device} ${metric}`

describe('raw readings', () => {
  it('come with the instants and values that were sent, kept to the microsecond', async () => {
    const items = await pages('device=pump-1&metric=rpm&limit=1000')
    expect(items.map(({ observedAt, value }) => [observedAt, value])).toEqual(
      all
        .filter(({ device, metric }) => device === 'pump-1' && metric === 'rpm')
        .map(({ observedAt, value }) => [observedAt / 1000, value]),
    )
    expect(items[1]!.observedAt).toBe(Date.UTC(2026, 0, 10, 0, 0, 1) + 0.123)
  })

  it.each(['asc', 'desc'])('are paged through %s, each exactly once, also where instants are equal', async (order) => {
    for (const limit of [7, 120, 240, 1000]) {
      const items = await pages(`device=pump-*&device=fan-1&order=${order}&limit=${limit}`)
      const expected = all.map((each) => key({ ...each, metric: each.metric!, observedAt: each.observedAt / 1000 }))
      expect(new Set(items.map(key)).size).toBe(items.length)
      expect(items.map(key).sort()).toEqual(expected.sort())
      const instants = items.map(({ observedAt }) => observedAt)
      expect(instants).toEqual([...instants].sort((a, b) => (order === 'asc' ? a - b : b - a)))
    }
  })

  it('begin with `from` and end before `to`', async () => {
    const from = new Date(day / 1000 + 4_000).toISOString()
    const items = await pages(`device=fan-1&metric=rpm&from=${from}&to=${day / 1e6 + 8}`)
    const wanted = all.filter(
      ({ device, metric, observedAt }) =>
        device === 'fan-1' && metric === 'rpm' && observedAt >= day + 4e6 && observedAt < day + 8e6,
    )
    expect(items.map(({ observedAt }) => observedAt)).toEqual(wanted.map(({ observedAt }) => observedAt / 1000))
    expect(wanted.map(({ observedAt }) => observedAt - day)).toEqual([4_000_000, 5_000_123, 6_000_246, 7_000_369])
  })

  it('of text have text, and no value', async () => {
    expect(await pages('device=door')).toEqual([
      expect.objectContaining({ device: 'door', metric: 'state', text: 'öffen "jetzt"' }),
    ])
    expect((await pages('device=door'))[0]).not.toHaveProperty('value')
  })

  it('that were corrected are there once, with the later value', async () => {
    const observedAt = day + 500
    await world.send([{ device: 'late', observedAt, value: 1 }])
    await world.settle()
    await world.send([{ device: 'late', observedAt, value: 2 }])
    await world.send([{ device: 'late', observedAt: observedAt + 1, value: 3 }])
    await world.settle()
    expect((await pages('device=late')).map(({ value }) => value)).toEqual([2, 3])
  })

  it('of names with quotes and other scripts are found by exactly that name', async () => {
    const metric = "temp'\\ {x:String} 温度 %"
    await world.send([{ device: 'odd:@name', metric, observedAt: day, value: 5 }])
    await world.settle()
    const items = await pages(`device=odd:@name&metric=${encodeURIComponent(metric)}`)
    expect(items.map((item) => item.metric)).toEqual([metric])
    expect(await pages(`device=odd:@name&metric=${encodeURIComponent("temp' OR 1=1 --")}`)).toEqual([])
  })

  it('may be asked for with a hundred long names', async () => {
    const names = Array.from({ length: 98 }, (_, i) => `device=${String(i).padEnd(128, 'x')}`).join('&')
    expect(await pages(`${names}&device=door`)).toHaveLength(1)
  })
})

describe('the newest readings', () => {
  it('are those newest by the device’s clock, whatever came last', async () => {
    await world.send([{ device: 'clock', observedAt: day + 2_000, value: 2 }])
    await world.send([{ device: 'clock', observedAt: day + 1_000, value: 1 }])
    await world.settle()
    const { body } = await world.get<ReadingsAnswer>('/v1/latest?device=clock')
    latestSchema.parse(body)
    expect(body.items).toEqual([expect.objectContaining({ observedAt: day / 1000 + 2, value: 2 })])
    await world.send([{ device: 'clock', observedAt: day + 2_000, value: 2.5 }])
    await world.settle()
    const corrected = await world.get<ReadingsAnswer>('/v1/latest?device=clock')
    expect(corrected.body.items[0]!.value).toBe(2.5)
  })

  it('are paged by device and metric', async () => {
    const seen: string[] = []
    let after = ''
    do {
      const { body } = await world.get<ReadingsAnswer>(`/v1/latest?device=pump-*&device=fan*&limit=2${after}`)
      seen.push(...body.items.map(({ device, metric }) => `${device} ${metric}`))
      after = body.next === null ? '' : `&after=${body.next}`
    } while (after !== '')
    const devices = ['fan-1', 'pump-1', 'pump-2']
    expect(seen).toEqual(devices.flatMap((device) => [`${device} motor.temperature`, `${device} rpm`]))
  })

  it('are the same after a restart, from the table and from what only the log has', async () => {
    const before = await world.get<ReadingsAnswer>('/v1/latest?limit=1000')
    const { api, url } = await world.startApi()
    const after = await fetch(`${url}/v1/latest?limit=1000`)
    expect(await after.json()).toEqual(before.body)
    await api.stop()
  })
})
