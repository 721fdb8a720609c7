// Anomalies as the API has them: asked for, a page at a time, and live.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type Anomaly, anomalyId, encodeAnomaly } from '../domain/anomaly.ts'
import { partitionOf } from '../domain/event-log.ts'
import { SseViewer } from '../tests/helpers/sse.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { openWorld, type World } from './test-world.ts'
import {
  type AnomaliesAnswer,
  type AnomalyCountsAnswer,
  anomaliesSchema,
  anomalyCountsSchema,
  anomalySchema,
} from './wire.ts'

const startAt = Date.UTC(2026, 0, 1) * 1000

describe('anomalies', () => {
  let world: World
  let number = 0
  beforeAll(async () => {
    world = await openWorld()
  })
  afterAll(() => world?.close())

  let device: string
  beforeEach(() => {
    device = `d-${++number}`
  })

  function anomalyAt(minute: number, changes: Partial<Anomaly> = {}): Anomaly {
    const series = { tenant: 'default', device, metric: 'temperature', observedAt: startAt + minute * 60_000_000 + 7 }
    return {
      ...series,
      receivedAt: startAt + minute * 60_000_000,
      id: anomalyId(series, 'coverage-net/1'),
      detector: 'coverage-net/1',
      score: 0.05,
      value: 99,
      expectedLow: 10,
      expectedHigh: 20.5,
      explanation: '99 is above everything in 700 readings.',
      evidence: '{"view":"value"}',
      ...changes,
    }
  }

  async function tell(...anomalies: readonly Anomaly[]): Promise<void> {
    for (const anomaly of anomalies) {
      const partition = partitionOf('default', anomaly.device, world.log.partitions)
      const receivedAt = Math.max(world.clock.nowMicros(), world.log.receivedAtMax('anomalies', partition) + 1)
      await world.log.append('anomalies', partition, encodeAnomaly(anomaly), 1, receivedAt)
    }
  }

  const ask = async (query: string): Promise<AnomaliesAnswer> => {
    const { status, body } = await world.get<AnomaliesAnswer>(`/v1/anomalies?device=${device}${query}`)
    expect(status).toBe(200)
    return anomaliesSchema.parse(body)
  }

  it('are answered with score, range and sentence, in order of time, each once however often it was told', async () => {
    const [first, second] = [anomalyAt(1), anomalyAt(2, { score: 0.2 })]
    await tell(second, first, second, first)
    const { items, next } = await waitFor(async () => {
      const answer = await ask('')
      return answer.items.length >= 2 && answer
    })
    expect(next).toBeNull()
    expect(items.map(({ id }) => id)).toEqual([first.id, second.id])
    expect(items[0]).toEqual({
      id: first.id,
      device,
      metric: 'temperature',
      observedAt: first.observedAt / 1000,
      value: 99,
      score: 0.05,
      detector: 'coverage-net/1',
      expected: { low: 10, high: 20.5 },
      explanation: first.explanation,
      evidence: { view: 'value' },
    })
    expect((await ask('&minScore=0.1')).items.map(({ id }) => id)).toEqual([second.id])
    expect((await ask('&metric=other')).items).toEqual([])
    expect((await ask('&order=desc')).items.map(({ id }) => id)).toEqual([second.id, first.id])
    expect((await ask(`&from=${(startAt + 90e6) / 1000}`)).items.map(({ id }) => id)).toEqual([second.id])
  })

  it('come in pages, also where many have one instant', async () => {
    const metrics = ['a', 'b', 'c', 'd', 'e']
    const all = [0, 1].flatMap((minute) =>
      metrics.map((metric) => {
        const anomaly = anomalyAt(minute, { metric })
        return { ...anomaly, id: anomalyId(anomaly, 'coverage-net/1') }
      }),
    )
    await tell(...all)
    await waitFor(async () => (await ask('')).items.length === all.length)
    for (const order of ['asc', 'desc']) {
      const seen: string[] = []
      let after = ''
      for (;;) {
        const page = await ask(`&limit=3&order=${order}${after}`)
        seen.push(...page.items.map(({ id }) => id))
        if (page.next === null) break
        after = `&after=${page.next}`
      }
      const ids = all.map(({ id }) => id).sort()
      expect(seen).toEqual(order === 'asc' ? ids : ids.reverse())
    }
  })

  it('are counted by device, in pages, each page with the total', async () => {
    const names = ['count-a', 'count-b', 'count-c']
    const all = names.flatMap((name, index) =>
      Array.from({ length: index + 1 }, (_, minute) => {
        const anomaly = anomalyAt(minute, { device: name })
        return { ...anomaly, id: anomalyId(anomaly, 'coverage-net/1') }
      }),
    )
    await tell(...all)
    const counts = async (query: string): Promise<AnomalyCountsAnswer> =>
      anomalyCountsSchema.parse((await world.get(`/v1/anomalies/counts?device=count-*${query}`)).body)
    await waitFor(async () => (await counts('')).total === 6, { withinMs: 15_000 })
    const first = await counts('&limit=2')
    expect(first).toMatchObject({
      total: 6,
      items: [
        { device: 'count-a', count: 1 },
        { device: 'count-b', count: 2 },
      ],
    })
    expect(await counts(`&limit=2&after=${first.next}`)).toEqual({
      total: 6,
      items: [{ device: 'count-c', count: 3 }],
      next: null,
    })
    expect(await counts(`&from=${(startAt + 90e6) / 1000}`)).toMatchObject({ total: 1, items: [{ device: 'count-c' }] })
    expect((await world.problem('/v1/anomalies/counts?after=x')).status).toBe(400)
  })

  it('are refused for what makes no sense', async () => {
    for (const query of ['minScore=2', 'minScore=x', 'limit=0', 'after=xyz', 'from=3&to=2', 'score=1']) {
      const problem = await world.problem(`/v1/anomalies?${query}`)
      expect([query, problem.status]).toEqual([query, 400])
    }
  })

  it('reach live viewers who asked for them, once, without moving their cursor', async () => {
    const open = (query: string): Promise<SseViewer> => SseViewer.open(`${world.url}/v1/live?${query}`)
    const wanted = await open(`device=${device}&anomalies=true`)
    const other = await open('device=another&anomalies=true')
    const plain = await open(`device=${device}`)
    await Promise.all([wanted, other, plain].map((viewer) => viewer.waitForEvent('caught-up')))
    const anomaly = anomalyAt(3)
    await tell(anomaly, anomaly)
    const { data, id } = await wanted.waitForEvent('anomaly')
    expect(anomalySchema.parse(data)).toMatchObject({ id: anomaly.id, device, expected: { low: 10, high: 20.5 } })
    expect(id).toBe('')
    await world.send([{ device, observedAt: startAt, value: 1 }])
    await Promise.all([wanted, plain].map((viewer) => viewer.waitForEvent('readings')))
    const count = (viewer: SseViewer): number => viewer.events.filter(({ event }) => event === 'anomaly').length
    expect([wanted, other, plain].map(count)).toEqual([1, 0, 0])
    for (const viewer of [wanted, other, plain]) viewer.close()
  })
})
