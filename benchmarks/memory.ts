// Does memory stay bounded? Full ingest for minutes, then the store frozen for a minute under the same load, then thawed: resident memory of each
// process all the while, how fast it catches up, and every acknowledged reading in the table in the end.

import type { WeirPart, WeirProcess } from '../tests/helpers/spawn-weir.ts'
import { reportDisk } from './disk.ts'
import type { Benchmark, Report } from './harness.ts'
import { type LoadProcess, startLoad } from './load-process.ts'
import { residentMiBOf } from './process-figures.ts'
import { differenceInTable, loadSetup, parts, startForBenchmark, waitForRows } from './weir-side.ts'

const secondsDefault = 300
const frozenSecondsMax = 60
const sampleMs = 500
/** The share of the run after which memory should have found its level. */
const warmShare = 0.2
const catchUpMsMax = 600_000

type Sample = Readonly<Record<WeirPart, number>>

export const memory: Benchmark = {
  name: 'memory',
  question: 'resident memory over minutes at full ingest, and with the store frozen',
  async run(options, report) {
    const seconds = options.seconds ?? secondsDefault
    const frozenSeconds = Math.min(frozenSecondsMax, seconds / 5)
    reportDisk(report)
    report.setting(
      'traffic',
      `50 MQTT connections × 100 in flight, QoS 1, 105-byte JSON, ${seconds} s, then ${frozenSeconds} s with the store frozen`,
    )
    // What is in the table leaves the log soon, so that minutes at full rate fit on the disk of any machine.
    const weir = await startForBenchmark(options, { WEIR_RETENTION_LOG: '10s', WEIR_HUNG_TIMEOUT: '1h' })
    try {
      const load = await startLoad(loadSetup('pipelined', weir.mqtt, 'bench'))
      const livePerS = await measureSteady(weir, load, seconds, report)
      await measureFrozen(weir, load, { frozenSeconds, livePerS, report })
      await load.stop()
    } finally {
      await weir.dispose()
    }
  },
}

let steady: Sample = { ingest: 0, serve: 0, clickhouse: 0 }

async function measureSteady(weir: WeirProcess, load: LoadProcess, seconds: number, report: Report): Promise<number> {
  const sampler = startSampling(weir)
  const run = await load.run({ seconds })
  const samples = sampler.stop()
  report.line(`acknowledged ${Math.round(run.ackedPerS)}/s, generator ${run.generatorCores.toFixed(2)} of a core`)
  const from = Math.floor(samples.length * warmShare)
  const fifth = Math.floor((samples.length - from) / 4)
  const early = medianOf(samples.slice(from, from + fifth))
  steady = medianOf(samples.slice(-fifth))
  for (const part of parts) {
    const curve = Array.from({ length: 10 }, (_, i) => samples[Math.floor((i * (samples.length - 1)) / 9)]![part])
    report.line(`${part} MiB over time: ${curve.map((each) => each.toFixed(0)).join(' ')}`)
    // What an allocator takes now and then is not growth: a leak at this rate would be many times this in minutes.
    report.ratio(`${part}: late ÷ early`, [steady[part] / early[part]], { max: 1.25 })
  }
  return run.ackedPerS
}

async function measureFrozen(
  weir: WeirProcess,
  load: LoadProcess,
  { frozenSeconds, livePerS, report }: { frozenSeconds: number; livePerS: number; report: Report },
): Promise<void> {
  const sampler = startSampling(weir)
  const thaw = weir.freeze('clickhouse')
  let run: Awaited<ReturnType<LoadProcess['run']>>
  try {
    run = await load.run({ seconds: frozenSeconds })
  } finally {
    thaw()
  }
  const thawedAt = performance.timeOrigin + performance.now()
  const total = run.sentByConnection.reduce((sum, each) => sum + each, 0)
  const inTableAt = await waitForRows(weir, total, catchUpMsMax)
  const samples = sampler.stop()
  const peak = Math.max(...samples.map((sample) => sample.ingest + sample.serve))
  report.line(
    `acknowledged ${Math.round(run.ackedPerS)}/s while the store was frozen; ${run.sent} readings to catch up`,
  )
  report.line(`ingest + serve: steady ${(steady.ingest + steady.serve).toFixed(0)} MiB, peak ${peak.toFixed(0)} MiB`)
  report.ratio('store frozen: peak ÷ steady (ingest + serve)', [peak / (steady.ingest + steady.serve)], { max: 1.5 })
  report.ratio('acknowledged, store frozen ÷ live', [run.ackedPerS / livePerS])
  if (inTableAt === undefined) return report.fail('the table did not catch up within 10 minutes')
  const catchUpSeconds = (inTableAt - thawedAt) / 1000
  report.line(`caught up in ${catchUpSeconds.toFixed(1)} s`)
  report.ratio('catch-up ÷ live rate', [run.sent / catchUpSeconds / livePerS])
  const wrong = await differenceInTable(weir, load.setup, run.sentByConnection)
  if (wrong !== undefined) report.fail(wrong)
}

function startSampling(weir: WeirProcess): { stop(): Sample[] } {
  const samples: Sample[] = []
  const take = (): void => {
    const pids = weir.pids()
    samples.push({
      ingest: residentMiBOf(pids.ingest),
      serve: residentMiBOf(pids.serve),
      clickhouse: residentMiBOf(pids.clickhouse),
    })
  }
  take()
  const timer = setInterval(take, sampleMs)
  return {
    stop() {
      clearInterval(timer)
      take()
      return samples
    },
  }
}

function medianOf(samples: readonly Sample[]): Sample {
  const middle = (part: WeirPart): number => {
    const sorted = samples.map((sample) => sample[part]).sort((x, y) => x - y)
    return sorted[sorted.length >> 1] ?? 0
  }
  return { ingest: middle('ingest'), serve: middle('serve'), clickhouse: middle('clickhouse') }
}
