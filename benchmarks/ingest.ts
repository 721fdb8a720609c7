// How fast are readings taken in durably, and all of them stored? QoS 1 publishes, acknowledged after fdatasync, every row in the table at the end,
// against what mosquitto acknowledges of the same packets without keeping any.

import type { WeirProcess } from '../tests/helpers/spawn-weir.ts'
import { pause } from '../tests/helpers/wait-for.ts'
import { reportDisk } from './disk.ts'
import {
  type Benchmark,
  type BenchmarkOptions,
  generatorCoresMax,
  interleave,
  type Measurement,
  type Report,
} from './harness.ts'
import { type Shape, shapeSettings, shapes, startLoad } from './load-process.ts'
import { startMosquitto } from './peers.ts'
import { cpuUsOf } from './process-figures.ts'
import { loadSetup, runIntoTable, startForBenchmark } from './weir-side.ts'

const secondsDefault = 5
const warmSeconds = 1.5
const detectedSecondsMax = 120
/** Least ratio of rows in the table to mosquitto's acknowledgements; `many` shares the bar of `pipelined`. */
const bars: Readonly<Record<Shape, number>> = { pipelined: 4, many: 4, single: 0.5 }

export const ingest: Benchmark = {
  name: 'ingest',
  question: 'readings a second, durable and in the table, against mosquitto that keeps nothing',
  async run(options, report) {
    const shape = shapeOf(options)
    const seconds = options.seconds ?? secondsDefault
    reportDisk(report)
    report.setting('traffic', `MQTT QoS 1, ${shapeSettings[shape].words}, 105-byte JSON, ${seconds} s a side and round`)
    const rounds = await interleave(
      { name: 'weir     ', measure: (round) => measureWeir(options.roles, shape, seconds, round, report) },
      { name: 'mosquitto', measure: (round) => measureMosquitto(shape, seconds, round, report) },
      options.rounds,
      report,
    )
    const of = (side: 'a' | 'b', name: string): number[] => rounds.map((round) => round[side].figures[name]!)
    for (const name of ['acked/s', 'table/s', 'ingest µs', 'serve µs', 'clickhouse µs', 'generator cores'])
      report.figure(`weir ${name}`, of('a', name))
    for (const name of ['acked/s', 'mosquitto µs', 'generator cores']) report.figure(`mosquitto ${name}`, of('b', name))
    const ratio = (name: string): number[] => rounds.map(({ a, b }) => a.figures[name]! / b.figures['acked/s']!)
    report.ratio(`${shape}: acked ÷ mosquitto`, ratio('acked/s'))
    report.ratio(`${shape}: table ÷ mosquitto`, ratio('table/s'), { min: bars[shape] })
  },
}

export function shapeOf({ shape = 'pipelined' }: BenchmarkOptions): Shape {
  if (shapes.includes(shape as Shape)) return shape as Shape
  throw new Error(`--shape ${shape}: the shapes are ${shapes.join(', ')}`)
}

export async function measureWeir(
  roles: BenchmarkOptions['roles'],
  shape: Shape,
  seconds: number,
  round: number,
  report: Report,
): Promise<Measurement> {
  const weir = await startForBenchmark({ roles })
  try {
    const load = await startLoad(loadSetup(shape, weir.mqtt, `bench-${round}`))
    const run = await runIntoTable(weir, load, { seconds, warmSeconds })
    await load.stop()
    const behindSeconds = await detectionBehind(weir, run.total)
    // Done again, but never passed over: an acknowledged reading was lost, doubled or changed.
    if (run.wrong !== undefined) report.fail(run.wrong)
    const cores = run.report.generatorCores
    const busiest = (Math.max(...Object.values(run.cpuUsAReading)) * run.report.acknowledged) / 1e6 / run.tableSeconds
    return {
      figures: {
        'acked/s': run.report.ackedPerS,
        'table/s': run.tablePerS,
        'ingest µs': run.cpuUsAReading.ingest,
        'serve µs': run.cpuUsAReading.serve,
        'clickhouse µs': run.cpuUsAReading.clickhouse,
        'generator cores': cores,
        'MiB ingest': run.residentMiB.ingest,
        'MiB serve': run.residentMiB.serve,
        'MiB clickhouse': run.residentMiB.clickhouse,
        ...(behindSeconds === undefined ? {} : { 'detected s after': behindSeconds }),
      },
      ...voidBecause(run.wrong ?? generatorIsTheWall(cores, busiest)),
    }
  } finally {
    await weir.dispose()
  }
}

/** Seconds until detection has looked at everything too, from now; undefined where it is not on. It may lag, and has to catch up. */
async function detectionBehind(weir: WeirProcess, readings: number): Promise<number | undefined> {
  const seen = async (): Promise<number | undefined> => {
    const metrics = weir.http === '' ? '' : await (await fetch(`${weir.http}/metrics`)).text()
    const match = /^weir_detector_readings(?:\{[^}]*\})? (\S+)$/m.exec(metrics)
    return match ? Number(match[1]) : undefined
  }
  const began = performance.now()
  for (;;) {
    const count = await seen()
    if (count === undefined) return undefined
    const seconds = (performance.now() - began) / 1000
    if (count >= readings) return seconds
    if (seconds > detectedSecondsMax) return Number.POSITIVE_INFINITY
    await pause(250)
  }
}

let explained = false

async function measureMosquitto(shape: Shape, seconds: number, round: number, report: Report): Promise<Measurement> {
  const mosquitto = await startMosquitto()
  try {
    const load = await startLoad(loadSetup(shape, { host: '127.0.0.1', port: mosquitto.port }, `bench-${round}`))
    await load.run({ seconds: warmSeconds })
    const before = cpuUsOf(mosquitto.pid)
    const run = await load.run({ seconds })
    const cpuUs = cpuUsOf(mosquitto.pid) - before
    await load.stop()
    const cores = cpuUs / 1e6 / run.settledSeconds
    if (!explained) {
      explained = true
      report.line(`${mosquitto.name}: ${mosquitto.settings}`)
      if (run.generatorCores > generatorCoresMax)
        report.line(
          `against mosquitto the generator takes ${run.generatorCores.toFixed(2)} and mosquitto ${cores.toFixed(2)} of a core: it acknowledges one by one, so both are at their wall, and these rounds count`,
        )
    }
    return {
      figures: {
        'acked/s': run.ackedPerS,
        'mosquitto µs': cpuUs / run.acknowledged,
        'mosquitto cores': cores,
        'generator cores': run.generatorCores,
      },
      ...voidBecause(generatorIsTheWall(run.generatorCores, cores)),
    }
  } finally {
    await mosquitto.stop()
  }
}

/** A sentence, when the generator holds things up and not what it drives (whose busiest process takes `drivenCores`). */
function generatorIsTheWall(cores: number, drivenCores: number): string | undefined {
  if (cores <= generatorCoresMax || drivenCores > generatorCoresMax) return undefined
  return `the generator took ${cores.toFixed(2)} of a core, and what it drives only ${drivenCores.toFixed(2)}`
}

function voidBecause(reason: string | undefined): { void?: string } {
  return reason === undefined ? {} : { void: reason }
}
