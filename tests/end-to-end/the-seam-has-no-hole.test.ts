// The sixth promise: one view, from history to live, over every transport, without a hole. Viewers that begin now or anywhere in the past, stop
// reading, go away and come back with their cursors, while readings come in (rising, late, again, corrected) and whatever serves them is killed.
// In `every`, a viewer's frames together are what was acknowledged, each reading once, or a declared gap covers what is missing, and there is one
// only where the table was away; in `latest`, no series goes back, and at the end each stands where /v1/latest does.
// WEIR_TEST_SEAM_ROUNDS: more rounds; WEIR_TEST_SEED: other chances.
import { afterAll, describe, expect, it } from 'vitest'
import type { PipelineAnswer } from '../../api/wire.ts'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { RoamingViewer } from '../helpers/roaming-viewer.ts'
import { instantOf, seamPayload, seamReadings } from '../helpers/seam-load.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirPart, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

const rounds = Number(process.env.WEIR_TEST_SEAM_ROUNDS ?? (isOnKafka ? 1 : 2))
/** Fixed where nobody asks for another: what is red here is red everywhere. */
const random = createRandom(Number(process.env.WEIR_TEST_SEED ?? 20_261_122))
const env = { WEIR_DETECTOR_SCORE_MIN: '0.01' }
const devices = 3
const ratePerS = 300
/** Of a round, in any order: most of them cross the seam from the table, where there is most to lose. Some begin at once, some between the kills. */
const viewersOfARound = [
  ...Array.from({ length: 4 }, () => ({ mode: 'every', isFromPast: true }) as const),
  ...Array.from({ length: 3 }, () => ({ mode: 'every', isFromPast: false }) as const),
  ...Array.from({ length: 3 }, () => ({ mode: 'latest', isFromPast: true }) as const),
  ...Array.from({ length: 2 }, () => ({ mode: 'latest', isFromPast: false }) as const),
]
const viewersAtOnce = 4
/** Half of what viewers wait for a table that is away before they are told of a gap. */
const tableAwayMsMin = 5_000

const questions = [
  { query: 'device=seam-*', wants: () => true },
  { query: 'device=seam-*', wants: () => true },
  { query: 'device=seam-0&device=seam-2&metric=a', wants: (name) => /^seam-[02] a /.test(name) },
  { query: 'device=seam-1&metric=b&metric=s', wants: (name) => /^seam-1 [bs] /.test(name) },
] satisfies { query: string; wants: (name: string) => boolean }[] as readonly Question[]

interface Question {
  readonly query: string
  /** Whether a series is asked for: `device metric `. */
  readonly wants: (name: string) => boolean
}

interface Watch {
  readonly viewer: RoamingViewer
  readonly question: Question
  readonly mode: 'every' | 'latest'
  readonly name: string
  /** Readings observed from here on; undefined: those that were sent since it began. */
  readonly since: number | undefined
  /** By device: messages that it saw begin. */
  sentBefore: readonly number[] | undefined
}

/** Of one identity, what was sent, in order. */
interface Sent {
  readonly device: number
  readonly series: string
  readonly observedAt: number
  readonly indexes: number[]
  readonly values: (number | string)[]
}

describe('the seam has no hole', () => {
  const publishers: RawPublisher[] = []
  const watches: Watch[] = []
  afterAll(async () => {
    for (const publisher of publishers) publisher.stop()
    await Promise.all(watches.map(({ viewer }) => viewer.stop()))
  })

  it(
    `for viewers who come and go while everything is killed, ${rounds} rounds (seed ${random.seed})`,
    async () => {
      let weir: WeirProcess | undefined = await startWeir({ env })
      const { data } = weir
      let current = weir
      for (let device = 0; device < devices; device++) {
        publishers.push(
          new RawPublisher({
            address: () => current.mqtt,
            clientId: `seam-${device}`,
            window: 100,
            ratePerS,
            resend: true,
            message: (index) => ({ topic: `devices/seam-${device}/telemetry`, payload: seamPayload(device, index) }),
            onAcknowledged: () => {},
          }),
        )
      }
      const addresses = () => weir && { http: weir.http, live: weir.urls.live! }
      const table = new TableWatch(() => current.data)
      const begin = (name: string, { mode, isFromPast }: (typeof viewersOfARound)[number]): void => {
        const since = isFromPast ? instantOf(random.between(-5, Math.max(0, publishers[0]!.sent))) : undefined
        const question = questions[random.between(0, questions.length - 1)]!
        const watch: Watch = {
          ...{ question, mode, since },
          name: `${name}, ${mode} ${question.query} from ${since ?? 'now'}`,
          sentBefore: undefined,
          viewer: new RoamingViewer({
            ...{ addresses, random, query: `${question.query}&mode=${mode}&anomalies=true` },
            since: since === undefined ? undefined : String(since),
            onStarted: () => {
              watch.sentBefore ??= publishers.map(({ sent }) => sent)
            },
          }),
        }
        watches.push(watch)
      }

      for (let round = 0; round < rounds; round++) {
        for (const publisher of publishers) publisher.resume()
        await pause(random.between(300, 1_500))
        const viewers = random.shuffle(viewersOfARound)
        const beginSome = (count: number): void => {
          for (const kind of viewers.splice(0, count)) begin(`round ${round}, viewer ${watches.length}`, kind)
        }
        beginSome(viewersAtOnce)
        for (const victim of random.shuffle(['serve', 'all', 'clickhouse', 'serve'] as const)) {
          await pause(random.between(300, 2_500))
          await kill(victim)
          beginSome(2)
        }
        await pause(random.between(200, 1_000))
        for (const publisher of publishers) publisher.pause()
        for (const publisher of publishers) await publisher.settled(30_000)
        for (const { viewer } of watches) viewer.settle()
        const sent = allSent()
        const kept = await stored(current, sent)
        const latest = await latestOf(current, sent)
        for (const watch of watches) {
          await waitFor(() => (watch.mode === 'every' ? checkEvery(watch, sent, kept) : checkLatest(watch, latest)), {
            withinMs: 45_000,
            everyMs: 250,
            what: `all frames of ${watch.name}`,
          })
          expect(watch.viewer.broken, watch.name).toBeUndefined()
          checkGaps(watch, table)
        }
        for (const { viewer } of watches) await viewer.stop()
        await checkAnomalies(current)
        report(round)
        watches.length = 0
      }
      for (const publisher of publishers) expect(publisher.broken).toBeUndefined()
      await table.end()
      await current.stop()

      async function kill(victim: WeirPart | 'all'): Promise<void> {
        const running = current
        if (victim !== 'all') {
          // It may be on its way back from the last one.
          await waitFor(() => running.pids()[victim] !== undefined, { withinMs: 20_000, what: `${victim} to be there` })
          await running.kill(victim)
          return
        }
        weir = undefined
        await running.kill('all')
        await waitFor(() => running.pids().serve === undefined && running.pids().clickhouse === undefined, {
          withinMs: 20_000,
          what: 'the other processes to end',
        })
        current = await startWeir({ data, env })
        weir = current
      }

      /** By identity; of a message that was sent again, once. */
      function allSent(): Map<string, Sent> {
        const all = new Map<string, Sent>()
        for (const [device, publisher] of publishers.entries()) {
          for (let index = 0; index < publisher.sent; index++) {
            for (const { metric, observedAt, value } of seamReadings(device, index)) {
              const series = `seam-${device} ${metric}`
              const key = `${series} ${observedAt}`
              const known = all.get(key) ?? { device, series, observedAt, indexes: [], values: [] }
              known.indexes.push(index)
              known.values.push(value)
              all.set(key, known)
            }
          }
        }
        return all
      }

      /** Throws while something is missing, and for good when something is wrong. */
      function checkEvery({ viewer, sentBefore, since, question }: Watch, sent: AllSent, kept: Kept): boolean {
        if (!sentBefore) throw new Error(`it has not caught up; ${story(viewer)}`)
        const missing: string[] = []
        for (const [key, { device, series, observedAt, indexes, values }] of sent) {
          const told = viewer.told.get(key)
          const isWanted = question.wants(`${series} `)
          const isOwed =
            isWanted && (since === undefined ? indexes.at(-1)! >= sentBefore[device]! : observedAt >= since)
          if (told === undefined) {
            if (isOwed && !isCovered(viewer.gaps, kept.get(key)!)) missing.push(key)
            continue
          }
          if (!isWanted) throw new Error(`${key} was told to one who did not ask for it`)
          if (!values.includes(told.value)) throw new Error(`${key} is ${told.value}, which nobody sent`)
          if (isOwed && told.value !== values.at(-1) && !isCovered(viewer.gaps, kept.get(key)!))
            missing.push(`${key} is ${told.value}, not ${values.at(-1)}, of ${indexes}:`)
          // Each time that a device sends an identity makes it a reading more to tell; nobody else may.
          let times = 0
          for (const index of indexes) times += publishers[device]!.timesSent.get(index) ?? 1
          if (told.times > times) throw new Error(`${key} was sent ${times} times and told ${told.times} times`)
        }
        if (missing.length > 0)
          throw new Error(
            `${missing.length} readings are missing, ${missing[0]} to ${missing.at(-1)}; ${story(viewer)}`,
          )
        for (const key of viewer.told.keys()) if (!sent.has(key)) throw new Error(`${key} was told and never sent`)
        return true
      }

      function checkLatest({ viewer, sentBefore, since, question }: Watch, latest: Latest): boolean {
        if (!sentBefore) throw new Error(`it has not caught up; ${story(viewer)}`)
        for (const [series, { observedAt, value, device, index }] of latest) {
          const shown = viewer.shown.get(series)
          if (!question.wants(`${series} `)) {
            if (shown) throw new Error(`${series} was told to one who did not ask for it`)
            continue
          }
          const isOwed = since === undefined ? index >= sentBefore[device]! : observedAt >= since
          if (!isOwed) continue
          if (shown?.observedAt === observedAt && shown.value === value) continue
          throw new Error(
            `${series} is shown as ${JSON.stringify(shown)}, and is ${value} of ${observedAt}; ${story(viewer)}`,
          )
        }
        return true
      }

      async function checkAnomalies({ http }: WeirProcess): Promise<void> {
        const told = new Set(watches.flatMap(({ viewer }) => [...viewer.anomalies]))
        expect(told.size, 'anomalies that viewers were told').toBeGreaterThan(0)
        await waitFor(
          async () => {
            const found = new Set<string>()
            let after: string | null = null
            do {
              const query = `device=seam-*&from=0&limit=1000${after === null ? '' : `&after=${encodeURIComponent(after)}`}`
              const page: { items: { id: string }[]; next: string | null } = await ask(`${http}/v1/anomalies?${query}`)
              for (const { id } of page.items) found.add(id)
              after = page.next
            } while (after !== null)
            for (const id of told) if (!found.has(id)) throw new Error(`the anomaly ${id} was told and is not kept`)
            return true
          },
          { withinMs: 45_000, everyMs: 250, what: 'all anomalies that were told' },
        )
      }
    },
    180_000 + rounds * 180_000,
  )

  function report(round: number): void {
    const words = watches.map(
      ({ name, viewer }) =>
        `${name}: ${viewer.told.size} readings, ${viewer.revisions} revisions, ${viewer.anomalies.size} anomalies over ${viewer.connections} connections, gaps ${JSON.stringify(viewer.gaps)}, ended ${JSON.stringify(viewer.endings)}`,
    )
    console.info(`round ${round}:\n  ${words.join('\n  ')}`)
  }
})

type AllSent = ReadonlyMap<string, Sent>
type Kept = ReadonlyMap<string, ReadingItem>
type Latest = ReadonlyMap<
  string,
  { readonly observedAt: number; readonly value: number | string; readonly device: number; readonly index: number }
>

/** The table's readings, once it has all that was sent, each as it was sent last. */
async function stored({ http, data }: WeirProcess, sent: AllSent): Promise<Kept> {
  let stages = ''
  let wrong: readonly Sent[] = []
  try {
    return await waitFor(
      async () => {
        const kept = new Map<string, ReadingItem>()
        // Whether what is missing waits for the writer is the first that a red run is asked.
        stages = JSON.stringify((await ask<PipelineAnswer>(`${http}/v1/pipeline`)).stages)
        const askedAt = performance.now()
        for await (const item of allReadings(http, { device: 'seam-*', from: '0' }))
          kept.set(`${item.device} ${item.metric} ${item.observedAt}`, item)
        const tookMs = Math.round(performance.now() - askedAt)
        const missing = [...sent].filter(([key]) => !kept.has(key)).map(([, each]) => each)
        const old = [...sent].filter(([key, { values }]) => kept.has(key) && said(kept.get(key)!) !== values.at(-1))
        wrong = [...old.map(([, each]) => each), ...missing]
        // Missing to the end, with old values among them: a tail that is not stored yet. Old values alone: something else.
        if (wrong.length > 0)
          throw new Error(
            `${missing.length} of ${sent.size} readings missing (${messages(missing)}), ${old.length} with an older value (${messages(old.map(([, each]) => each))}); it took ${tookMs} ms to read them`,
          )
        expect(kept.size).toBe(sent.size)
        return kept
      },
      { withinMs: 120_000, everyMs: 250, what: () => `all acknowledged readings in the table, with ${stages}` },
    )
  } catch (error) {
    const stories = await Promise.all(wrong.slice(0, 3).map((each) => versionsOf(data, each)))
    const { message } = error as Error
    throw new Error([message, ...stories].join('\n  '), { cause: error })
  }
}

/** Which of each device's messages say them last. */
function messages(all: readonly Sent[]): string {
  const byDevice = new Map<number, number[]>()
  for (const { device, indexes } of all) byDevice.set(device, [...(byDevice.get(device) ?? []), indexes.at(-1)!])
  const words = [...byDevice].map(
    ([device, indexes]) => `seam-${device}: ${Math.min(...indexes)} to ${Math.max(...indexes)}`,
  )
  return words.join(', ') || 'none'
}

/** Every row that the table holds of an identity: tells a correction that lost against what it corrects from one that never came. */
async function versionsOf(data: string, { series, observedAt, indexes, values }: Sent): Promise<string> {
  const [device, metric] = series.split(' ') as [string, string]
  const rows = await queryStore<{ value: number | null; text: string; received: string; logOffset: number }>(
    data,
    `SELECT value, text, toString(receivedAt) AS received, logOffset FROM weir.readings WHERE device = '${device}' AND metric = '${metric}' AND observedAt = fromUnixTimestamp64Milli(${observedAt}) ORDER BY receivedAt`,
  ).catch((error: Error) => error.message)
  const verdict =
    typeof rows === 'string'
      ? 'the table can not be asked'
      : rows.some(({ value, text }) => (text === '' ? value : text) === values.at(-1))
        ? 'the newest is THERE NOW: it came late, or it LOST AGAINST AN OLDER ONE if it is not the last of these'
        : 'the newest is NOT in the table: it waits in the log if the writer lags, else it is LOST'
  return `${series} of ${observedAt}, sent as ${values} by messages ${indexes}: ${verdict}; rows ${JSON.stringify(rows)}`
}

function said({ value, text }: ReadingItem): number | string | undefined {
  return value ?? text
}

/** What /v1/latest says, once that is what was sent. */
async function latestOf({ http }: WeirProcess, sent: AllSent): Promise<Latest> {
  const newest = new Map<string, { observedAt: number; value: number | string; device: number; index: number }>()
  for (const { series, observedAt, values, indexes, device } of sent.values())
    if (observedAt >= (newest.get(series)?.observedAt ?? 0))
      newest.set(series, { observedAt, value: values.at(-1)!, device, index: indexes.at(-1)! })
  await waitFor(
    async () => {
      const { items } = await ask<{ items: ReadingItem[] }>(`${http}/v1/latest?device=seam-*&limit=1000`)
      for (const [series, { observedAt, value }] of newest) {
        const item = items.find(({ device, metric }) => series === `${device} ${metric}`)
        if (item?.observedAt !== observedAt || (item.value ?? item.text) !== value)
          throw new Error(`/v1/latest says ${JSON.stringify(item)} of ${series}, sent was ${value} of ${observedAt}`)
      }
      return true
    },
    { withinMs: 45_000, everyMs: 250, what: 'the latest readings' },
  )
  return newest
}

/** The log and the table hold everything: only who asked the table while it was away, for all of ten seconds, may be told of a gap, and of its bounds. */
function checkGaps({ viewer, name, since }: Watch, { longestAwayMs }: TableWatch): void {
  if (longestAwayMs < tableAwayMsMin) expect(viewer.gaps, `${name}; away for ${longestAwayMs} ms at most`).toEqual([])
  for (const { cause, from, to, by } of viewer.gaps) {
    expect(cause, name).toBe('store-away')
    expect(by, name).toBe('observedAt')
    expect(Number(from), name).toBeGreaterThanOrEqual(since ?? Number.POSITIVE_INFINITY)
    expect(to, name).not.toBeNull()
    expect(Number(to), name).toBeGreaterThanOrEqual(Number(from))
  }
}

/** Asks the table again and again, to know for how long it was away. */
class TableWatch {
  longestAwayMs = 0
  private isEnded = false
  private readonly watching: Promise<void>

  constructor(data: () => string) {
    this.watching = this.watch(data)
  }

  async end(): Promise<void> {
    this.isEnded = true
    await this.watching
  }

  private async watch(data: () => string): Promise<void> {
    let answeredAt = performance.now()
    while (!this.isEnded) {
      await pause(100)
      const isThere = await queryStore(data(), 'SELECT 1 FROM weir.readings LIMIT 1', AbortSignal.timeout(2_000)).then(
        () => true,
        () => false,
      )
      const now = performance.now()
      this.longestAwayMs = Math.max(this.longestAwayMs, now - answeredAt)
      if (isThere) answeredAt = now
    }
  }
}

function isCovered(gaps: readonly Record<string, unknown>[], reading: ReadingItem): boolean {
  return gaps.some(({ from, to, by }) => {
    if (typeof from !== 'number' || typeof to !== 'number') return false
    const instant = by === 'receivedAt' ? reading.receivedAt : reading.observedAt
    return instant >= from && instant <= to
  })
}

function story({ told, connections, gaps, endings, journey, broken }: RoamingViewer): string {
  const way = `${told.size} told over ${connections} connections, gaps ${JSON.stringify(gaps)}, ended ${endings}, broken: ${broken}`
  return `${way}:\n    ${journey.slice(-60).join('\n    ')}`
}
