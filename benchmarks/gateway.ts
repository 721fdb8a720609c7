// How fast do readings come in over the gateway's doors, durably? HTTP bodies of 100 readings, and single readings over /v1/ingest against the same over
// MQTT in the same run. A round whose readings are not all in the table does not count.
import { fork } from 'node:child_process'
import { join } from 'node:path'
import { queryStore } from '../tests/helpers/store.ts'
import type { GatewayDoor, GatewayLoadReport, GatewayLoadSetup } from './gateway-load.ts'
import type { Benchmark, BenchmarkOptions, Measurement, Report } from './harness.ts'
import { startLoad } from './load-process.ts'
import { cpuUsOf } from './process-figures.ts'
import { firstObservedAt, loadSetup, startForBenchmark, waitForRows } from './weir-side.ts'

const secondsDefault = 5
const warmSeconds = 1.5
const shapes: Readonly<Record<GatewayDoor, { connections: number; readingsABody: number }>> = {
  http: { connections: 32, readingsABody: 100 },
  socket: { connections: 50, readingsABody: 1 },
  batched: { connections: 50, readingsABody: 10 },
}
/** As the server says in its hello. */
const window = 64
const sides = ['socket', 'mqtt', 'batched', 'http'] as const
type Figures = Record<(typeof sides)[number], number[]>
/** Durable readings a second over HTTP, in bodies of 100. */
const httpPerSMin = 300_000

export const gateway: Benchmark = {
  name: 'gateway',
  question: 'durable readings a second over HTTP and WebSocket, the latter against MQTT',
  async run(options, report) {
    const seconds = options.seconds ?? secondsDefault
    report.setting('http', `${shapes.http.connections} connections, bodies of 100 readings, one in flight each`)
    report.setting('socket', `${shapes.socket.connections} connections × ${window} in flight, one reading a message`)
    report.setting('mqtt', 'QoS 1, 50 connections × 100 in flight, 105-byte JSON')
    report.setting('batched', 'as socket, with ten readings a message')
    const figures: Figures = { http: [], socket: [], batched: [], mqtt: [] }
    for (let round = 0; round < options.rounds; round++) {
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        const { figures: found, void: reason } =
          side === 'mqtt'
            ? await measureMqtt(options, seconds, round)
            : await measureDoor(options, side, seconds, round)
        const words = Object.entries(found).map(([name, value]) => `${name} ${value.toFixed(2)}`)
        report.line(
          `round ${round + 1}  ${side}: ${words.join(' · ')}${reason === undefined ? '' : ` — VOID: ${reason}`}`,
        )
        if (reason !== undefined) report.fail(`${side}: ${reason}`)
        figures[side].push(found['acked/s']!)
      }
    }
    for (const side of sides) report.figure(`${side} acked/s`, figures[side])
    finish(report, figures)
  },
}

function finish(report: Report, { http, socket, batched, mqtt }: Figures): void {
  report.ratio(
    'socket ÷ mqtt, acked',
    socket.map((each, round) => each / mqtt[round]!),
  )
  report.ratio(
    'batched ÷ mqtt, acked',
    batched.map((each, round) => each / mqtt[round]!),
    { min: 1 },
  )
  report.ratio(
    `http ÷ ${httpPerSMin / 1000} k`,
    http.map((each) => each / httpPerSMin),
    { min: 1 },
  )
}

async function measureDoor(
  options: BenchmarkOptions,
  door: GatewayDoor,
  seconds: number,
  round: number,
): Promise<Measurement> {
  const weir = await startForBenchmark(options)
  try {
    const { hostname: host, port } = new URL(weir.urls.gateway!)
    const setup = {
      ...shapes[door],
      door,
      host,
      port: Number(port),
      window,
      prefix: `g${round}`,
      firstAt: firstObservedAt,
    }
    const load = await startGatewayLoad(setup)
    const warm = await load.run(warmSeconds)
    const pid = weir.pids().ingest!
    const before = cpuUsOf(pid)
    const run = await load.run(seconds)
    const cpuUs = cpuUsOf(pid) - before
    load.stop()
    const rows = warm.acknowledged + run.acknowledged
    const isThere = (await waitForRows(weir, rows)) !== undefined
    const distinct = isThere ? await countDistinct(weir.data) : 0
    return {
      figures: {
        'acked/s': run.ackedPerS,
        'ingest µs': cpuUs / run.acknowledged,
        'generator cores': run.generatorCores,
      },
      ...(distinct !== rows && { void: `${rows} readings were acknowledged, ${distinct} are in the table` }),
    }
  } finally {
    await weir.dispose()
  }
}

async function countDistinct(data: string): Promise<number> {
  const [row] = await queryStore<{ rows: number }>(data, 'SELECT count() AS rows FROM weir.readings FINAL')
  return Number(row?.rows ?? 0)
}

async function measureMqtt(options: BenchmarkOptions, seconds: number, round: number): Promise<Measurement> {
  const weir = await startForBenchmark(options)
  try {
    const load = await startLoad(loadSetup('pipelined', weir.mqtt, `m${round}`))
    await load.run({ seconds: warmSeconds })
    const pid = weir.pids().ingest!
    const before = cpuUsOf(pid)
    const run = await load.run({ seconds })
    const cpuUs = cpuUsOf(pid) - before
    await load.stop()
    return {
      figures: {
        'acked/s': run.ackedPerS,
        'ingest µs': cpuUs / run.acknowledged,
        'generator cores': run.generatorCores,
      },
    }
  } finally {
    await weir.dispose()
  }
}

async function startGatewayLoad(setup: GatewayLoadSetup) {
  const child = fork(join(import.meta.dirname, 'gateway-load.js'), [], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  process.once('exit', () => child.kill('SIGKILL'))
  const answer = (): Promise<{ type: string; report: GatewayLoadReport; reason?: string }> =>
    new Promise((resolve, reject) => {
      const ended = (code: number | null): void => reject(new Error(`the load generator ended with code ${code}`))
      child.once('exit', ended)
      child.once('message', (message) => {
        child.off('exit', ended)
        const came = message as { type: string; report: GatewayLoadReport; reason?: string }
        if (came.type === 'failed') reject(new Error(`the load generator gave up: ${came.reason}`))
        else resolve(came)
      })
    })
  const ready = answer()
  child.send({ type: 'setup', setup })
  await ready
  return {
    async run(seconds: number): Promise<GatewayLoadReport> {
      const coming = answer()
      child.send({ type: 'run', seconds })
      return (await coming).report
    },
    stop(): void {
      child.kill()
    },
  }
}
