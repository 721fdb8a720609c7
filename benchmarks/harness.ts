// What all benchmarks share: two sides measured in turn within one run (A B B A A B …), ratios by round, their median and spread, rounds that don't
// count because something was wrong with them, and the report. Only ratios mean anything: machines differ, and the same one differs by the hour.
import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'
import { projectDirectory } from '../tests/helpers/spawn-weir.ts'

export interface BenchmarkOptions {
  readonly rounds: number
  readonly seconds: number | undefined
  readonly shape: string | undefined
  /** Of the Weir that is measured; all when left out. */
  readonly roles: readonly string[] | undefined
  readonly json: boolean
  /** Writes the medians into baseline.json. */
  readonly save: boolean
}

export interface Benchmark {
  readonly name: string
  readonly question: string
  run(options: BenchmarkOptions, report: Report): Promise<void>
}

/** Figures of one side in one round; `void` is a sentence that says why the round doesn't count. */
export interface Measurement {
  readonly figures: Readonly<Record<string, number>>
  readonly void?: string
}

export interface Side {
  readonly name: string
  measure(round: number): Promise<Measurement>
}

export interface Round {
  readonly a: Measurement
  readonly b: Measurement
}

/** A generator above this is itself what is measured. */
export const generatorCoresMax = 0.8
/** A round that doesn't count is done again, this often in all. */
const voidRoundsMax = 3

/** Measures both sides in turn, the first of a round last in the one before it, until `rounds` rounds count. */
export async function interleave(a: Side, b: Side, rounds: number, report: Report): Promise<Round[]> {
  const done: Round[] = []
  let voided = 0
  for (let turn = 0; done.length < rounds; turn++) {
    const order = turn % 2 === 0 ? [a, b] : [b, a]
    const measured = new Map<Side, Measurement>()
    for (const side of order) {
      const measurement = await side.measure(turn)
      measured.set(side, measurement)
      report.line(`round ${turn + 1}  ${side.name}: ${describe(measurement)}`)
    }
    const round = { a: measured.get(a)!, b: measured.get(b)! }
    if (round.a.void === undefined && round.b.void === undefined) done.push(round)
    else if (++voided > voidRoundsMax) {
      report.fail(`${voided} rounds did not count; the last one because: ${round.a.void ?? round.b.void}`)
      break
    }
  }
  return done
}

function describe({ figures, void: reason }: Measurement): string {
  const words = Object.entries(figures).map(([name, value]) => `${name} ${format(value)}`)
  return `${words.join(' · ')}${reason === undefined ? '' : `  — VOID: ${reason}`}`
}

export function format(value: number): string {
  const size = Math.abs(value)
  if (size >= 1e6) return `${(value / 1e6).toFixed(2)} M`
  if (size >= 1e4) return `${(value / 1e3).toFixed(0)} k`
  if (size >= 100) return value.toFixed(0)
  return value.toFixed(2)
}

export interface Spread {
  readonly median: number
  readonly min: number
  readonly max: number
  readonly rounds: number
}

export function spreadOf(values: readonly number[]): Spread {
  if (values.length === 0) return { median: Number.NaN, min: Number.NaN, max: Number.NaN, rounds: 0 }
  const sorted = [...values].sort((x, y) => x - y)
  const middle = sorted.length >> 1
  const median = sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
  return { median, min: sorted[0]!, max: sorted[sorted.length - 1]!, rounds: sorted.length }
}

export interface Bar {
  readonly min?: number
  readonly max?: number
}

interface RatioResult extends Spread {
  readonly bar?: Bar
  readonly baseline?: number
  readonly met: boolean
}

/** Collects what a benchmark says, prints it as it comes, and ends with one JSON line when a program reads along. */
export class Report {
  readonly ratios: Record<string, RatioResult> = {}
  readonly figures: Record<string, number | string> = {}
  readonly failures: string[] = []
  private readonly name: string
  private readonly json: boolean
  private readonly baseline: Baseline

  constructor(name: string, json: boolean, baseline: Baseline = readBaseline()) {
    this.name = name
    this.json = json
    this.baseline = baseline
  }

  /** With --json stdout is for the JSON line. */
  line(text: string): void {
    // By the console, whose output a test run shows only where a test failed.
    if (this.json) console.error(text)
    else console.log(text)
  }

  setting(name: string, value: string | number): void {
    this.figures[name] = value
    this.line(`${name}: ${value}`)
  }

  figure(name: string, values: readonly number[]): void {
    const spread = spreadOf(values)
    this.figures[name] = spread.median
    this.line(`${name}: ${format(spread.median)} [${format(spread.min)}–${format(spread.max)}]`)
  }

  ratio(name: string, values: readonly number[], bar?: Bar): void {
    const spread = spreadOf(values)
    const met =
      spread.rounds > 0 &&
      (bar?.min === undefined || spread.median >= bar.min) &&
      (bar?.max === undefined || spread.median <= bar.max)
    const before = this.baseline[this.name]?.[name]
    this.ratios[name] = {
      ...spread,
      ...(bar ? { bar } : {}),
      ...(before === undefined ? {} : { baseline: before }),
      met: bar === undefined || met,
    }
    const asked = bar?.min !== undefined ? `at least ${bar.min}` : bar?.max !== undefined ? `at most ${bar.max}` : ''
    const verdict = bar === undefined ? '' : `, asked: ${asked}: ${met ? 'met' : 'MISSED'}`
    const last = before === undefined ? '' : `, baseline ${before.toFixed(2)}`
    this.line(
      `${name}: ${spread.median.toFixed(2)} [${spread.min.toFixed(2)}–${spread.max.toFixed(2)}, ${spread.rounds} rounds]${verdict}${last}`,
    )
    if (bar !== undefined && !met) this.failures.push(`${name} is ${spread.median.toFixed(2)}, asked: ${asked}`)
  }

  fail(reason: string): void {
    this.failures.push(reason)
    this.line(`FAILED: ${reason}`)
  }

  end(save: boolean): void {
    if (save) saveBaseline(this.name, this.ratios)
    if (!this.json) return
    const { name, figures, ratios, failures } = this
    process.stdout.write(`${JSON.stringify({ benchmark: name, machine: machine(), figures, ratios, failures })}\n`)
  }
}

export function machine(): { cpu: string; cores: number; memoryGiB: number; node: string; system: string } {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGiB: Math.round(totalmem() / 1024 ** 3),
    node: process.version,
    system: `${process.platform} ${release()}`,
  }
}

/** Benchmark → ratio → its last median. */
export type Baseline = Readonly<Record<string, Readonly<Record<string, number>>>>

const baselineFile = join(projectDirectory, 'benchmarks/baseline.json')

function readBaseline(): Baseline {
  try {
    return JSON.parse(readFileSync(baselineFile, 'utf8')) as Baseline
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
}

function saveBaseline(name: string, ratios: Readonly<Record<string, Spread>>): void {
  const medians = Object.entries(ratios).map(([ratio, { median }]) => [ratio, Number(median.toFixed(3))] as const)
  const all = readBaseline()
  const merged = { ...all, [name]: { ...all[name], ...Object.fromEntries(medians) } }
  writeFileSync(baselineFile, `${JSON.stringify(merged, null, 2)}\n`)
}
