// How many readings reach how many viewers, how late, and at whose cost? Fan-out against a plain loop on `ws`; delivery through the whole product at a
// tick of 50 ms; and durable ingest beside 500 viewers, five of them frozen, against ingest alone.
import { fork } from 'node:child_process'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { publishPacket, RawMqtt } from '../tests/helpers/mqtt-raw.ts'
import { pause, waitFor } from '../tests/helpers/wait-for.ts'
import {
  type Benchmark,
  type BenchmarkOptions,
  generatorCoresMax,
  interleave,
  type Measurement,
  type Report,
} from './harness.ts'
import type { LiveSideReport } from './live-server-side.ts'
import { LiveViewers, ownCpuUs } from './live-viewers.ts'
import { startLoad } from './load-process.ts'
import { cpuUsOf } from './process-figures.ts'
import { loadSetup, startForBenchmark } from './weir-side.ts'

const viewers = 500
const updates = 20
const frozen = 5
const tickMs = 50
/** `--shape` takes one of them. */
const questions: readonly string[] = ['fan-out', 'delivery', 'ingest']
const secondsDefault = 5
const warmSeconds = 1.5
/** Beyond the tick: PERFORMANCE.md, goal 10. */
const lateMsMax = 20
/** A load that the machine can carry, so that what viewers take from ingest shows as acknowledgements that are missing or late. */
const heldPerS = 100_000
/** At the limit readings fall by what takes from ingest; a reading's share is told a core that the load generators leave. */
const leftCores = ({ figures }: Measurement): number =>
  cpus().length - figures['viewers’ cores']! - figures['generator cores']!

export const live: Benchmark = {
  name: 'live',
  question: `readings delivered to ${viewers} viewers, how late, and what ingest pays for it`,
  async run(options, report) {
    const seconds = options.seconds ?? secondsDefault
    const { shape } = options
    if (shape !== undefined && !questions.includes(shape))
      throw new Error(`--shape ${shape}: the parts are ${questions.join(', ')}`)
    if (shape === undefined || shape === 'fan-out') await compareFanOut(options, seconds, report)
    if (shape === undefined || shape === 'delivery') await measureDelivery(options, seconds, report)
    if (shape === undefined || shape === 'ingest') await compareIngest(options, seconds, report)
  },
}

async function compareFanOut(options: BenchmarkOptions, seconds: number, report: Report): Promise<void> {
  report.setting('fan-out', `${viewers} WebSocket viewers, ${updates} readings a tick, ticks as fast as they are taken`)
  const fanOut = await interleave(
    { name: 'weir', measure: () => measureFanOut('weir', seconds, report) },
    { name: 'ws', measure: () => measureFanOut('ws', seconds, report) },
    options.rounds,
    report,
  )
  const of = (side: 'a' | 'b', name: string) => fanOut.map((round) => round[side].figures[name]!)
  for (const name of ['deliveries/s', 'server µs', 'viewers’ cores']) {
    report.figure(`weir ${name}`, of('a', name))
    report.figure(`ws ${name}`, of('b', name))
  }
  const ratio = (name: string) => fanOut.map(({ a, b }) => a.figures[name]! / b.figures[name]!)
  report.ratio('deliveries ÷ ws', ratio('deliveries/s'), { min: 8 })
  report.ratio(
    'CPU a delivery: ws ÷ weir',
    ratio('server µs').map((each) => 1 / each),
  )
}

async function compareIngest(options: BenchmarkOptions, seconds: number, report: Report): Promise<void> {
  report.setting(
    'ingest',
    `50 connections × 100 in flight, QoS 1, first at ${heldPerS / 1000} k/s, then as fast as acknowledged; ${viewers} viewers of ${updates} series, ${frozen} frozen`,
  )
  const ingest = await interleave(
    { name: 'with viewers', measure: (round) => measureIngest(options, { isWatched: true, seconds, round }) },
    { name: 'alone', measure: (round) => measureIngest(options, { isWatched: false, seconds, round }) },
    options.rounds,
    report,
  )
  const compare = (name: string, of: (side: Measurement) => number, bar?: { readonly min: number }) =>
    report.ratio(
      name,
      ingest.map(({ a, b }) => of(a) / of(b)),
      bar,
    )
  compare(`ingest at ${heldPerS / 1000} k/s with viewers ÷ alone, acked`, ({ figures }) => figures['held/s']!, {
    min: 0.95,
  })
  compare(`ingest at ${heldPerS / 1000} k/s with viewers ÷ alone, ack p99`, ({ figures }) => figures['held p99 ms']!)
  compare('ingest at the limit with viewers ÷ alone, acked', ({ figures }) => figures['acked/s']!)
  compare('the same a core that viewers and devices leave', (side) => side.figures['acked/s']! / leftCores(side), {
    min: 0.95,
  })
  compare('readings at the limit a second of Weir’s CPU time', ({ figures }) => 1 / figures['Weir µs']!)
}

async function measureFanOut(side: 'weir' | 'ws', seconds: number, report: Report): Promise<Measurement> {
  const server = fork(join(import.meta.dirname, 'live-server-side.js'), [side])
  process.once('exit', () => server.kill('SIGKILL'))
  const answer = <Answer>(): Promise<Answer> =>
    new Promise((resolve, reject) => {
      server.once('message', (message) => resolve(message as Answer))
      server.once('exit', (code) => reject(new Error(`the server side ended with code ${code}`)))
    })
  const { url } = await answer<{ url: string }>()
  let readings = 0
  let looked = 0
  const all = await LiveViewers.open({
    ...{ url, path: '/v1/live?mode=every', count: viewers, lookers: 1 },
    onText(text) {
      const { items = [], device } = JSON.parse(text) as { items?: unknown[]; device?: string }
      looked++
      readings += device === undefined ? items.length : 1
    },
  })
  const run = async (forSeconds: number): Promise<LiveSideReport> => {
    const coming = answer<LiveSideReport>()
    server.send({ seconds: forSeconds })
    return coming
  }
  try {
    await run(warmSeconds)
    await pause(200)
    ;[all.frames, readings, looked] = [0, 0, 0]
    const cpuBefore = ownCpuUs()
    const done = await run(seconds)
    const cores = (ownCpuUs() - cpuBefore) / 1e6 / done.seconds
    const deliveries = done.ticks * updates * viewers
    await waitFor(() => all.frames === looked * viewers && readings === done.ticks * updates, {
      withinMs: 10_000,
    }).catch(() =>
      report.fail(`${side}: ${readings} readings came to the viewer that looks, of ${done.ticks * updates}`),
    )
    return {
      figures: {
        'deliveries/s': deliveries / done.seconds,
        'server µs': done.cpuUs / deliveries,
        'server cores': done.cpuUs / 1e6 / done.seconds,
        'viewers’ cores': cores,
      },
    }
  } finally {
    all.close()
    server.kill()
  }
}

/** From the publish of a device to the viewer's socket, through the log. */
async function measureDelivery(options: BenchmarkOptions, seconds: number, report: Report): Promise<void> {
  const weir = await startForBenchmark(options)
  try {
    const late: number[] = []
    const path = `/v1/live?device=tick-*`
    const all = await LiveViewers.open({
      ...{ url: weir.urls.live!, path, count: viewers, lookers: viewers / 10 },
      onText(text) {
        const now = performance.now()
        const { items = [] } = JSON.parse(text) as { items?: { value: number }[] }
        for (const { value } of items) late.push(now - value)
      },
    })
    const device = await RawMqtt.connected(weir.mqtt, 'tick')
    const cpuBefore = ownCpuUs()
    const startAt = performance.now()
    const ticks = Math.round((seconds * 1000) / tickMs)
    for (let tick = 0; tick < ticks; tick++) {
      await pause(startAt + tick * tickMs - performance.now())
      // All at once, as a gateway sends: one after the other, each would wait for the acknowledgement of the one before.
      const payload = `{"ts":${1_760_000_000_000 + tick},"v":${performance.now()}}`
      const packets = Array.from({ length: updates }, (_, i) =>
        publishPacket({ topic: `devices/tick-${i}/telemetry`, payload, id: 1 + i }),
      )
      device.send(Buffer.concat(packets))
      for (let i = 0; i < updates; i++) await device.next()
    }
    await pause(500)
    const cores = (ownCpuUs() - cpuBefore) / 1e6 / ((performance.now() - startAt) / 1000)
    all.close()
    device.destroy()
    late.sort((a, b) => a - b)
    const at = (share: number): number => late[Math.min(late.length - 1, Math.floor(late.length * share))]!
    report.line(
      `delivery: ${late.length} readings at ${viewers / 10} of ${viewers} viewers, p50 ${at(0.5).toFixed(1)} ms, p99 ${at(0.99).toFixed(1)} ms, max ${at(1).toFixed(1)} ms; viewers and device took ${cores.toFixed(2)} of a core`,
    )
    if (cores > generatorCoresMax) report.line('the viewers themselves were busy: believe less')
    report.ratio(`delivery p99 ÷ (tick ${tickMs} + ${lateMsMax} ms)`, [at(0.99) / (tickMs + lateMsMax)], { max: 1 })
  } finally {
    await weir.dispose()
  }
}

async function measureIngest(
  options: BenchmarkOptions,
  { isWatched, seconds, round }: { readonly isWatched: boolean; readonly seconds: number; readonly round: number },
): Promise<Measurement> {
  const weir = await startForBenchmark(options)
  try {
    const prefix = `live-${round}`
    const series = Array.from({ length: updates }, (_, i) => `device=${prefix}-${String(i).padStart(4, '0')}`)
    const all = isWatched
      ? await LiveViewers.open({
          ...{ url: weir.urls.live!, path: `/v1/live?${series.join('&')}`, count: viewers, lookers: 0 },
          onText: () => {},
        })
      : undefined
    const load = await startLoad(loadSetup('pipelined', weir.mqtt, prefix))
    await load.run({ seconds: warmSeconds })
    all?.freeze(frozen)
    const held = await load.run({ seconds, ratePerS: heldPerS })
    const { ingest, serve, clickhouse } = weir.pids()
    const cpuUs = (): number[] => [ownCpuUs(), cpuUsOf(ingest), cpuUsOf(serve), cpuUsOf(clickhouse)]
    const before = cpuUs()
    const frames = all?.frames ?? 0
    const run = await load.run({ seconds })
    const [own, ofIngest, ofServe, ofStore] = cpuUs().map((us, i) => us - before[i]!) as [
      number,
      number,
      number,
      number,
    ]
    await load.stop()
    const framesPerS = ((all?.frames ?? 0) - frames) / run.seconds
    all?.close()
    return {
      figures: {
        'held/s': held.ackedPerS,
        'held p99 ms': held.latencyMs!.p99,
        'acked/s': run.ackedPerS,
        'ingest µs': ofIngest / run.acknowledged,
        'serve µs': ofServe / run.acknowledged,
        'store µs': ofStore / run.acknowledged,
        'Weir µs': (ofIngest + ofServe + ofStore) / run.acknowledged,
        'frames/s': framesPerS,
        'viewers’ cores': own / 1e6 / run.seconds,
        'generator cores': run.generatorCores,
      },
    }
  } finally {
    await weir.dispose()
  }
}
