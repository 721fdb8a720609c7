// While writers join, end in order and are killed (each time the partitions are shared anew): analysts page through history, forwards and backwards,
// each page from another of two apis, and viewers go away and come back to the other one with their cursors. A walk has everything that was in the
// table when it began, in order, each reading once; a viewer is told each reading once. WEIR_TEST_SEED: other chances.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, counterOf, type ReadingItem } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { RoamingViewer } from '../helpers/roaming-viewer.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const random = createRandom(Number(process.env.WEIR_TEST_SEED ?? 20_261_123))
const firstAt = 1_700_000_000_000
const devices = 6
const ratePerS = 60
const partitions = 4
const viewersMax = 9
/** How writers that join end again. */
const endings = ['stop', 'kill', 'stop'] as const

interface Watch {
  readonly viewer: RoamingViewer
  /** By device: messages that it is owed from; undefined: it has not caught up. */
  owedFrom: readonly number[] | undefined
}

describe('history and live, while writers come and go', () => {
  const root = mkdtempSync(join(tmpdir(), 'weir-test-walks-'))
  const store = join(root, 'store')
  const env = { WEIR_KAFKA_PREFIX: `${basename(root)}.`, WEIR_PARTITIONS: String(partitions), WEIR_HEALTH_PORT: '0' }
  const start = (data: string, ...roles: string[]): Promise<WeirProcess> => startWeir({ data, roles, env })
  const publishers: RawPublisher[] = []
  const watches: Watch[] = []
  let apis: readonly WeirProcess[]
  /** Since it began. */
  const storedBy = (writer: WeirProcess): Promise<number> =>
    counterOf(writer.urls.health!.replace(/\/$/, ''), 'weir_stored_rows_total', { topic: 'readings' })

  beforeAll(async () => {
    const ingest = await start(join(root, 'ingest'), 'ingest')
    apis = [await start(store, 'writer', 'api'), await start(store, 'api')]
    for (let device = 0; device < devices; device++)
      publishers.push(
        new RawPublisher({
          address: () => ingest.mqtt,
          clientId: `walk-${device}`,
          window: 50,
          ratePerS,
          resend: true,
          message: (index) => ({
            topic: `devices/walk-${device}/telemetry`,
            payload: `{"ts": ${firstAt + index}, "v": ${index}}`,
          }),
          onAcknowledged: () => {},
        }),
      )
  }, 180_000)
  afterAll(async () => {
    for (const publisher of publishers) publisher.stop()
    await Promise.all(watches.map(({ viewer }) => viewer.stop()))
    rmSync(root, { recursive: true, force: true })
  })

  /** As the store says it, past the api. */
  async function inTable(): Promise<string[]> {
    const rows = await queryStore<{ device: string; at: number }>(
      store,
      `SELECT device, toUnixTimestamp64Milli(observedAt) AS at FROM weir.readings FINAL WHERE metric = 'v'`,
    )
    return rows.map(({ device, at }) => `${device} ${at}`)
  }

  /** Through all pages, each asked of either api. Throws where one comes twice, out of order, or as nobody sent it. */
  async function walk(order: 'asc' | 'desc', limit: number): Promise<Set<string>> {
    const found = new Set<string>()
    let before: ReadingItem | undefined
    let after: string | null = null
    do {
      const query = new URLSearchParams({ device: 'walk-*', from: '0', order, limit: String(limit) })
      if (after !== null) query.set('after', after)
      const { http } = apis[random.between(0, 1)]!
      const page: { items: ReadingItem[]; next: string | null } = await ask(`${http}/v1/readings?${query}`)
      for (const item of page.items) {
        const key = `${item.device} ${item.observedAt}`
        if (found.has(key)) throw new Error(`${key} came twice, ${order} by ${limit}`)
        if (before && isBefore(item, before) === (order === 'asc'))
          throw new Error(`${key} came after ${before.device} ${before.observedAt}, ${order} by ${limit}`)
        const index = item.observedAt - firstAt
        if (item.value !== index || index >= publishers[Number(item.device.slice('walk-'.length))]!.sent)
          throw new Error(`${key} is ${item.value}, which nobody sent`)
        found.add(key)
        before = item
      }
      after = page.next
    } while (after !== null)
    return found
  }

  const lacking = (found: ReadonlySet<string>, keys: readonly string[]): string[] =>
    keys.filter((key) => !found.has(key))

  /** Again and again; resolves with the number of walks. */
  async function analyse(isOver: () => boolean, order: 'asc' | 'desc'): Promise<number> {
    let walks = 0
    while (!isOver()) {
      const there = await inTable()
      const found = await walk(order, random.between(100, 500))
      expect(lacking(found, there), `of what was in the table before walk ${walks}, ${order}`).toEqual([])
      walks++
    }
    return walks
  }

  function watch(): void {
    // From now on, or from anywhere in the past.
    const from = random.next() < 0.4 ? undefined : random.between(0, publishers[0]!.sent)
    const owed: Watch = {
      owedFrom: from === undefined ? undefined : publishers.map(() => from),
      viewer: new RoamingViewer({
        addresses: () => {
          const { http, urls } = apis[random.between(0, 1)]!
          return { http, live: urls.live! }
        },
        query: 'device=walk-*&mode=every',
        since: from === undefined ? undefined : String(firstAt + from),
        random,
        onStarted: () => {
          owed.owedFrom ??= publishers.map(({ sent }) => sent)
        },
        staysMs: [100, 2_000],
      }),
    }
    watches.push(owed)
  }

  /** Throws while something is missing, and for good when something came twice. */
  function check({ viewer, owedFrom }: Watch): boolean {
    expect(viewer.broken).toBeUndefined()
    if (!owedFrom) throw new Error('it has not caught up')
    const missing: string[] = []
    for (const [device, { sent, timesSent }] of publishers.entries()) {
      for (let index = 0; index < sent; index++) {
        const key = `walk-${device} v ${firstAt + index}`
        const told = viewer.told.get(key)
        if (told === undefined) {
          if (index >= owedFrom[device]! && !isDeclared(viewer, firstAt + index)) missing.push(key)
        } else if (told.value !== index) throw new Error(`${key} was told as ${told.value}`)
        else if (told.times > (timesSent.get(index) ?? 1)) throw new Error(`${key} was told ${told.times} times`)
      }
    }
    const { gaps, connections, told, journey } = viewer
    if (missing.length > 0)
      throw new Error(
        `${missing.length} are missing, ${missing[0]} to ${missing.at(-1)}: ${told.size} told over ${connections} ` +
          `connections, gaps ${JSON.stringify(gaps)}\n  ${journey.slice(-20).join('\n  ')}`,
      )
    return true
  }

  it(`nothing is missing, nothing comes twice (seed ${random.seed})`, async () => {
    for (const publisher of publishers) publisher.resume()
    await waitFor(() => publishers.every(({ sent }) => sent > ratePerS), { what: 'readings' })
    let isOver = false
    const analysts = Promise.all([analyse(() => isOver, 'asc'), analyse(() => isOver, 'desc')])
    // Who fails is heard of at the end, not as an error that nobody caught.
    analysts.catch(() => {})
    const storedBefore = await storedBy(apis[0]!)
    for (const ending of endings) {
      for (let i = 0; i < viewersMax / endings.length; i++) watch()
      const writer = await start(store, 'writer')
      // It has partitions, then.
      await waitFor(async () => (await storedBy(writer)) > 0, { withinMs: 60_000, what: 'the new writer to store' })
      await pause(random.between(100, 800))
      await (ending === 'stop' ? writer.stop() : writer.kill('all'))
    }
    await waitFor(async () => (await storedBy(apis[0]!)) > storedBefore, { what: 'the first writer to go on' })
    for (const publisher of publishers) publisher.pause()
    for (const publisher of publishers) await publisher.settled()
    for (const publisher of publishers) expect(publisher.broken).toBeUndefined()
    const all = publishers.flatMap(({ sent }, device) =>
      Array.from({ length: sent }, (_, index) => `walk-${device} ${firstAt + index}`),
    )
    // A session that was killed has to end first.
    await waitFor(async () => (await inTable()).length === all.length, {
      withinMs: 60_000,
      everyMs: 250,
      what: `${all.length} rows`,
    })
    isOver = true
    expect(Math.min(...(await analysts))).toBeGreaterThan(0)
    for (const order of ['asc', 'desc'] as const) expect(lacking(await walk(order, 997), all)).toEqual([])
    for (const { viewer } of watches) viewer.settle()
    for (const each of watches)
      await waitFor(() => check(each), { withinMs: 45_000, everyMs: 250, what: 'each reading, once' })
    expect(watches.some(({ viewer }) => viewer.connections > 3)).toBe(true)
  }, 240_000)
})

/** In the order of /v1/readings: by time, then by device. */
function isBefore(a: ReadingItem, b: ReadingItem): boolean {
  return a.observedAt < b.observedAt || (a.observedAt === b.observedAt && a.device < b.device)
}

/** On a machine that is slow enough the table does not answer in time, and that is said. Nothing else may be missing here. */
function isDeclared({ gaps }: RoamingViewer, observedAt: number): boolean {
  return gaps.some(
    ({ cause, from, to }) => cause === 'store-away' && observedAt >= Number(from) && observedAt <= Number(to),
  )
}
