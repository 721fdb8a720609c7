// Weir as a side of a benchmark: a fresh start on an empty directory, the load against it, and the proof that every acknowledged reading is in the
// table. A round whose counts or checksums are wrong doesn't count, however fast it was.

import { spawnWeir, type WeirPart, type WeirProcess } from '../tests/helpers/spawn-weir.ts'
import { queryStore } from '../tests/helpers/store.ts'
import { pause } from '../tests/helpers/wait-for.ts'
import type { BenchmarkOptions } from './harness.ts'
import { type LoadProcess, type LoadReport, type LoadSetup, type Shape, shapeSettings } from './load-process.ts'
import { messageAt } from './mqtt-load.ts'
import { cpuUsOf, residentMiBOf } from './process-figures.ts'

export const parts: readonly WeirPart[] = ['ingest', 'serve', 'clickhouse']
/** Multiples of 1,000 (load-process.ts); the past is always accepted. */
export const firstObservedAt = 1_760_000_000_000
const pollMs = 25
const tableMsMax = 120_000
const distinctRowsMax = 4_000_000

export function loadSetup(shape: Shape, address: { host: string; port: number }, prefix: string): LoadSetup {
  const { connections, window } = shapeSettings[shape]
  const topic = 'devices/{device}/telemetry'
  return { ...address, shape, connections, window, prefix, topic, firstAt: firstObservedAt }
}

/** Errors only: what is measured is not the logging. */
export function startForBenchmark(
  { roles }: Pick<BenchmarkOptions, 'roles'>,
  env: Readonly<Record<string, string>> = {},
): Promise<WeirProcess> {
  return spawnWeir({ env: { WEIR_LOG_LEVEL: 'warn', ...env }, ...(roles && { roles }) })
}

/** Waits until the table holds `count` rows and says when that was; undefined when it never did. */
export async function waitForRows(
  weir: WeirProcess,
  count: number,
  withinMs = tableMsMax,
): Promise<number | undefined> {
  const deadline = performance.now() + withinMs
  while (performance.now() < deadline) {
    // Without a condition the engine answers this from its own books, so that asking costs next to nothing.
    const [row] = await queryStore<{ rows: number }>(weir.data, 'SELECT count() AS rows FROM weir.readings')
    const now = performance.timeOrigin + performance.now()
    if ((row?.rows ?? 0) >= count) return now
    await pause(pollMs)
  }
  return undefined
}

interface Sums {
  readonly rows: number
  readonly distinct: number
  readonly min: number
  readonly max: number
  /** In hundredths: whole numbers add up exactly. */
  readonly sum: number
  /** Offsets from the first instant, likewise. */
  readonly instants: number
}

/** The same figures from what was sent, one message after another. */
export function expectedSums(setup: LoadSetup, sentByConnection: readonly number[]): Sums {
  const sums = {
    rows: 0,
    distinct: 0,
    min: Number.POSITIVE_INFINITY,
    max: Number.NEGATIVE_INFINITY,
    sum: 0,
    instants: 0,
  }
  for (let connection = 0; connection < sentByConnection.length; connection++) {
    const count = sentByConnection[connection]!
    sums.rows += count
    sums.distinct += count
    sums.instants += (count * (count - 1)) / 2
    const turn = Math.min(count, 1_000)
    const values = Array.from(
      { length: turn },
      (_, index) => messageAt(setup.shape, setup.prefix, connection, index, setup.firstAt).value,
    )
    for (let index = 0; index < turn; index++) {
      const value = values[index]!
      const times = Math.floor((count - 1 - index) / 1_000) + 1
      sums.min = Math.min(sums.min, value)
      sums.max = Math.max(sums.max, value)
      sums.sum += Math.round(value * 100) * times
    }
  }
  return sums
}

/** A sentence that says what is wrong in the table, or undefined. */
export async function differenceInTable(
  weir: WeirProcess,
  setup: LoadSetup,
  sentByConnection: readonly number[],
): Promise<string | undefined> {
  const expected = expectedSums(setup, sentByConnection)
  const [sums] = await queryStore<Omit<Sums, 'distinct'>>(
    weir.data,
    `SELECT count() AS rows, min(value) AS min, max(value) AS max, sum(toInt64(round(value * 100))) AS sum,
     sum(toUnixTimestamp64Milli(observedAt) - ${setup.firstAt}) AS instants FROM weir.readings`,
  )
  const found: Sums = { ...sums!, distinct: await countDistinct(weir, expected.rows) }
  const names = Object.keys(expected) as (keyof Sums)[]
  const wrong = names.filter((name) => Number(found[name]) !== expected[name])
  if (wrong.length === 0) return undefined
  return wrong.map((name) => `${name} is ${found[name]} in the table, ${expected[name]} was sent`).join('; ')
}

/** In slices by device, so that the engine's set of what it has seen stays small. */
async function countDistinct(weir: WeirProcess, rows: number): Promise<number> {
  const slices = Math.ceil(rows / distinctRowsMax)
  let distinct = 0
  for (let slice = 0; slice < slices; slice++) {
    const [row] = await queryStore<{ distinct: number }>(
      weir.data,
      `SELECT uniqExact(device, metric, observedAt) AS distinct FROM weir.readings WHERE cityHash64(device) % ${slices} = ${slice}`,
    )
    distinct += Number(row!.distinct)
  }
  return distinct
}

export interface TableRun {
  readonly report: LoadReport
  /** Since the start: what is in the table. */
  readonly total: number
  /** From the first message until all are in the table. */
  readonly tableSeconds: number
  readonly tablePerS: number
  readonly cpuUsAReading: Readonly<Record<WeirPart, number>>
  readonly residentMiB: Readonly<Record<WeirPart, number>>
  readonly wrong: string | undefined
}

/** A short phase that warms up everything, then the one that counts; each ends when all of it is in the table. */
export async function runIntoTable(
  weir: WeirProcess,
  load: LoadProcess,
  { seconds, warmSeconds }: { seconds: number; warmSeconds: number },
): Promise<TableRun> {
  const warm = await load.run({ seconds: warmSeconds })
  await waitForRows(weir, warm.sent)
  const pids = weir.pids()
  const before = parts.map((part) => cpuUsOf(pids[part]))
  const report = await load.run({ seconds })
  const inTableAt = await waitForRows(weir, warm.sent + report.sent)
  const spent = parts.map((part, i) => cpuUsOf(pids[part]) - before[i]!)
  const tableSeconds = ((inTableAt ?? Number.NaN) - report.beganEpochMs) / 1000
  const byPart = (values: readonly number[]): Record<WeirPart, number> => ({
    ingest: values[0]!,
    serve: values[1]!,
    clickhouse: values[2]!,
  })
  return {
    report,
    total: warm.sent + report.sent,
    tableSeconds,
    tablePerS: report.acknowledged / tableSeconds,
    cpuUsAReading: byPart(spent.map((us) => us / report.acknowledged)),
    residentMiB: byPart(parts.map((part) => residentMiBOf(pids[part]))),
    wrong:
      inTableAt === undefined
        ? 'not all rows reached the table'
        : await differenceInTable(weir, load.setup, report.sentByConnection),
  }
}
