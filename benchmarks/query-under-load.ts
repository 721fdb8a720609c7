// Does an analyst delay a device? Acknowledgement times at half the top rate, with and without a query beside it that keeps every core busy for as
// long as the phase lasts.

import type { WeirProcess } from '../tests/helpers/spawn-weir.ts'
import { queryStore } from '../tests/helpers/store.ts'
import { reportDisk } from './disk.ts'
import { type Benchmark, generatorCoresMax, interleave, type Measurement } from './harness.ts'
import { type LoadProcess, startLoad } from './load-process.ts'
import { cpuUsOf } from './process-figures.ts'
import { differenceInTable, loadSetup, startForBenchmark, waitForRows } from './weir-side.ts'

const secondsDefault = 5
const topSeconds = 3
/** A rate that is not kept is not the rate that was asked for. */
const keptRateMin = 0.98

export const queryUnderLoad: Benchmark = {
  name: 'query-under-load',
  question: 'acknowledgement p99 at half the top rate, a heavy SQL query beside it, against none',
  async run(options, report) {
    const seconds = options.seconds ?? secondsDefault
    reportDisk(report)
    const weir = await startForBenchmark(options)
    try {
      const load = await startLoad(loadSetup('pipelined', weir.mqtt, 'bench'))
      let sent = (await load.run({ seconds: 1.5 })).sent
      await waitForRows(weir, sent)
      const top = await load.run({ seconds: topSeconds })
      sent += top.sent
      await waitForRows(weir, sent)
      const ratePerS = Math.round(top.ackedPerS / 2)
      report.setting(
        'traffic',
        `50 MQTT connections, QoS 1, 105-byte JSON, ${ratePerS}/s (half of ${Math.round(top.ackedPerS)}/s), ${seconds} s a phase`,
      )
      report.setting('query', heavyQuery(seconds))
      let lastSent: readonly number[] = top.sentByConnection
      const measure = async (withQuery: boolean): Promise<Measurement> => {
        const measured = await measurePhase(weir, load, { ratePerS, seconds, withQuery })
        lastSent = measured.sentByConnection
        return measured.measurement
      }
      const rounds = await interleave(
        { name: 'alone     ', measure: () => measure(false) },
        { name: 'with query', measure: () => measure(true) },
        options.rounds,
        report,
      )
      for (const name of ['p50 ms', 'p99 ms', 'max ms', 'clickhouse cores']) {
        report.figure(
          `alone ${name}`,
          rounds.map(({ a }) => a.figures[name]!),
        )
        report.figure(
          `with query ${name}`,
          rounds.map(({ b }) => b.figures[name]!),
        )
      }
      const ratio = (name: string): number[] => rounds.map(({ a, b }) => b.figures[name]! / a.figures[name]!)
      report.ratio('ack p50, with query ÷ alone', ratio('p50 ms'))
      report.ratio('ack p99, with query ÷ alone', ratio('p99 ms'), { max: 2 })
      await load.stop()
      const wrong = await differenceInTable(weir, load.setup, lastSent)
      if (wrong !== undefined) report.fail(wrong)
    } finally {
      await weir.dispose()
    }
  },
}

/** Reads the table and hashes on all cores until its time is up; what it had by then is its answer. */
function heavyQuery(seconds: number): string {
  return `SELECT sum(cityHash64(device, metric, observedAt, number)) FROM weir.readings CROSS JOIN numbers(1000000) AS n SETTINGS max_execution_time = ${seconds}, timeout_overflow_mode = 'break'`
}

async function measurePhase(
  weir: WeirProcess,
  load: LoadProcess,
  { ratePerS, seconds, withQuery }: { ratePerS: number; seconds: number; withQuery: boolean },
): Promise<{ measurement: Measurement; sentByConnection: readonly number[] }> {
  const store = weir.pids().clickhouse
  const before = cpuUsOf(store)
  const queried = withQuery ? timeQuery(weir, heavyQuery(seconds)) : Promise.resolve(undefined)
  const report = await load.run({ ratePerS, seconds })
  const cores = (cpuUsOf(store) - before) / 1e6 / seconds
  const queryMs = await queried
  await waitForRows(
    weir,
    report.sentByConnection.reduce((sum, each) => sum + each, 0),
  )
  const { p50, p99, max } = report.latencyMs!
  const kept = report.sent / (ratePerS * seconds)
  const reason =
    report.generatorCores > generatorCoresMax
      ? `the generator took ${report.generatorCores.toFixed(2)} of a core`
      : kept < keptRateMin
        ? `only ${(kept * 100).toFixed(0)} % of the rate was sent`
        : queryMs !== undefined && queryMs < seconds * 900
          ? `the query took only ${queryMs.toFixed(0)} ms`
          : undefined
  return {
    measurement: {
      figures: {
        'p50 ms': p50,
        'p99 ms': p99,
        'max ms': max,
        'clickhouse cores': cores,
        'generator cores': report.generatorCores,
      },
      ...(reason === undefined ? {} : { void: reason }),
    },
    sentByConnection: report.sentByConnection,
  }
}

async function timeQuery(weir: WeirProcess, sql: string): Promise<number> {
  const beganAt = performance.now()
  await queryStore(weir.data, sql)
  return performance.now() - beganAt
}
