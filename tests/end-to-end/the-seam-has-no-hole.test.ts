// The sixth promise: one view, from history to live, over every transport, without a hole. Viewers that begin now or anywhere in the past, stop reading,
// go away and come back with their cursors, while readings come in and whatever serves them is killed: together a viewer's frames are what was
// acknowledged, each reading once, or a declared gap covers what is missing. WEIR_TEST_SEAM_ROUNDS: more rounds; WEIR_TEST_SEED: other chances.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { RoamingViewer } from '../helpers/roaming-viewer.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirPart, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

const rounds = Number(process.env.WEIR_TEST_SEAM_ROUNDS ?? (isOnKafka ? 1 : 2))
/** Fixed where nobody asks for another: what is red here is red everywhere. */
const random = createRandom(Number(process.env.WEIR_TEST_SEED ?? 20_261_122))
const firstAt = 1_700_000_000_000
const devices = 3
const viewersOfARound = 5
const ratePerS = 1_000

/** By device: the index from which on a viewer is owed everything. */
type Owed = readonly number[]

interface Watch {
  readonly viewer: RoamingViewer
  readonly name: string
  owed: Owed | undefined
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
      let weir: WeirProcess | undefined = await startWeir()
      const { data } = weir
      let current = weir
      const acknowledged = Array.from({ length: devices }, () => new Set<number>())
      for (let device = 0; device < devices; device++) {
        publishers.push(
          new RawPublisher({
            address: () => current.mqtt,
            clientId: `seam-${device}`,
            window: 100,
            ratePerS,
            resend: true,
            message: (index) => ({
              topic: `devices/seam-${device}/telemetry`,
              payload: `{"ts":${instantOf(index)},"v":${index}}`,
            }),
            onAcknowledged: (index) => acknowledged[device]!.add(index),
          }),
        )
      }
      const addresses = () => weir && { http: weir.http, live: weir.urls.live! }
      const begin = (name: string): void => {
        const from = random.next() < 0.5 ? undefined : random.between(0, Math.max(0, publishers[0]!.sent))
        const sentSoFar = (): Owed => publishers.map(({ sent }) => sent)
        const watch: Watch = {
          name: `${name}, from ${from === undefined ? 'now' : `reading ${from}`}`,
          owed: from === undefined ? undefined : publishers.map(() => from),
          viewer: new RoamingViewer({
            ...{ addresses, random, query: 'device=seam-*&mode=every' },
            since: from === undefined ? undefined : String(firstAt + from),
            onStarted: () => {
              watch.owed ??= sentSoFar()
            },
          }),
        }
        watches.push(watch)
      }

      for (let round = 0; round < rounds; round++) {
        for (const publisher of publishers) publisher.resume()
        await pause(random.between(300, 1_500))
        for (let i = 0; i < viewersOfARound; i++) begin(`round ${round}, viewer ${i}`)
        for (const victim of random.shuffle(['serve', 'all', 'clickhouse', 'serve'] as const)) {
          await pause(random.between(300, 2_500))
          await kill(victim)
        }
        await pause(random.between(200, 1_000))
        for (const publisher of publishers) publisher.pause()
        for (const publisher of publishers) await publisher.settled(30_000)
        for (const { viewer } of watches) viewer.settle()
        const kept = await receivedAt(current)
        for (const watch of watches) {
          await waitFor(() => check(watch, kept), {
            withinMs: 45_000,
            everyMs: 250,
            what: `all frames of ${watch.name}`,
          })
          expect(watch.viewer.broken).toBeUndefined()
        }
        for (const { viewer } of watches) await viewer.stop()
        report(round)
        watches.length = 0
      }
      for (const publisher of publishers) expect(publisher.broken).toBeUndefined()
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
        current = await startWeir({ data })
        weir = current
      }

      /** By device and index: when each acknowledged reading was received, as the table says. */
      async function receivedAt(from: WeirProcess): Promise<Map<string, number>> {
        return waitFor(
          async () => {
            const kept = new Map<string, number>()
            for await (const item of allReadings(from.http, { device: 'seam-*', metric: 'v', from: String(firstAt) }))
              kept.set(`${item.device} ${item.observedAt}`, item.receivedAt)
            for (const [device, indexes] of acknowledged.entries())
              for (const index of indexes)
                if (!kept.has(keyOf(device, index)))
                  throw new Error(`reading ${index} of ${device} is not in the table`)
            return kept
          },
          { withinMs: 45_000, everyMs: 250, what: 'all acknowledged readings in the table' },
        )
      }

      /** Throws while something is missing, and for good when something is wrong. */
      function check({ viewer, owed }: Watch, kept: ReadonlyMap<string, number>): boolean {
        if (!owed) throw new Error('it has not caught up')
        const missing: string[] = []
        for (const [device, indexes] of acknowledged.entries()) {
          for (const index of indexes) {
            if (index < owed[device]!) continue
            const key = keyOf(device, index)
            const told = viewer.told.get(key)
            if (told === undefined) {
              if (isCovered(viewer.gaps, kept.get(key)!, instantOf(index))) continue
              missing.push(`${key} ${kept.get(key)}`)
              continue
            }
            if (told.value !== index) throw new Error(`${key} is ${told.value}, not ${index}`)
            // A device that sends again makes it two readings with one identity; nobody else may.
            const sent = publishers[device]!.timesSent.get(index) ?? 1
            if (told.times > sent) throw new Error(`${key} was sent ${sent} times and told ${told.times} times`)
          }
        }
        if (missing.length > 0)
          throw new Error(
            `${missing.length} readings are missing, ${missing[0]} to ${missing.at(-1)}; ${story(viewer)}`,
          )
        for (const key of viewer.told.keys()) if (!kept.has(key)) throw new Error(`${key} was told and is not kept`)
        return true
      }

      function report(round: number): void {
        const words = watches.map(
          ({ name, viewer }) =>
            `${name}: ${viewer.told.size} readings over ${viewer.connections} connections, gaps ${JSON.stringify(viewer.gaps.map(({ cause }) => cause))}, ended ${JSON.stringify(viewer.endings)}`,
        )
        console.info(`round ${round}:\n  ${words.join('\n  ')}`)
      }
    },
    180_000 + rounds * 120_000,
  )
})

function story({ told, connections, gaps, endings, journey }: RoamingViewer): string {
  const way = `${told.size} told over ${connections} connections, gaps ${JSON.stringify(gaps)}, ended ${endings}`
  return `${way}:\n    ${journey.slice(-60).join('\n    ')}`
}

function instantOf(index: number): number {
  return firstAt + index
}

function keyOf(device: number, index: number): string {
  return `seam-${device} ${instantOf(index)}`
}

/** A gap is bounded by receivedAt, or by observedAt where history could not be read. */
function isCovered(gaps: readonly Record<string, unknown>[], receivedAt: number, observedAt: number): boolean {
  return gaps.some(({ from, to }) =>
    [receivedAt, observedAt].some((instant) => instant >= Number(from ?? 0) && instant <= Number(to ?? Infinity)),
  )
}
