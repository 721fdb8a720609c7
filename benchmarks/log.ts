// What does the log cost above the disk? Durable appends with 1,000 in flight, one promise each, against a bare loop that makes the same writes and
// fdatasyncs; and how long an append waits then, against one alone.
import { closeSync, fdatasync, mkdtempSync, openSync, rmSync, write, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EventLog } from '../domain/event-log.ts'
import { systemClock } from '../runtime/clock.ts'
import { silentLogger } from '../runtime/logger.ts'
import { openEmbeddedLog } from '../stream/log/embedded-log.ts'
import { frameBytes } from '../stream/log/frame-format.ts'
import { type Benchmark, interleave, type Measurement, type Report, type Side } from './harness.ts'

const inFlight = 1000
const rowsBytes = 120
const partitions = 4
const secondsDefault = 2
const fileBytes = 64 * 1024 * 1024
const loneAppends = 1000

export const log: Benchmark = {
  name: 'log',
  question: `how many durable appends of ${rowsBytes} bytes a second, ${inFlight} in flight, against a bare loop of the same writes and fdatasyncs?`,
  async run({ rounds, seconds = secondsDefault }, report): Promise<void> {
    const directory = mkdtempSync(join(tmpdir(), 'weir-bench-log-'))
    try {
      await measure(directory, rounds, seconds, report)
    } finally {
      rmSync(directory, { recursive: true, force: true })
    }
  },
}

async function measure(directory: string, rounds: number, seconds: number, report: Report): Promise<void> {
  // Nobody to wait for and nothing kept for its age: segments are used again, as in a log that has reached its size.
  const opened = await openEmbeddedLog({
    directory: join(directory, 'log'),
    mode: 'append',
    partitions,
    quotaBytes: 16 * fileBytes,
    retentionMs: 0,
    groups: [],
    logger: silentLogger,
    clock: systemClock,
  })
  const file = openSync(join(directory, 'bare'), 'w+')
  writeSync(file, Buffer.alloc(fileBytes))
  await sync(file)
  try {
    const ours: Side = { name: 'log', measure: () => appendFor(opened, seconds) }
    const bareSide = (name: string, bytes: number): Side => ({ name, measure: () => writeFor(file, bytes, seconds) })
    // What both need once: segments, compiled code.
    await appendFor(opened, seconds)
    const rates = ({ figures }: Measurement) => figures.records!
    const same = await interleave(
      ours,
      bareSide('bare, the same writes', inFlight * frameBytes(rowsBytes)),
      rounds,
      report,
    )
    report.ratio(
      'log ÷ bare loop of the same writes',
      same.map(({ a, b }) => rates(a) / rates(b)),
      { min: 0.5 },
    )
    const rowsOnly = await interleave(ours, bareSide('bare, the rows alone', inFlight * rowsBytes), rounds, report)
    report.ratio(
      'log ÷ bare loop of the rows alone',
      rowsOnly.map(({ a, b }) => rates(a) / rates(b)),
    )
    const lone: Side = { name: 'one append at a time', measure: () => appendAlone(opened) }
    const waits = await interleave(ours, lone, rounds, report)
    report.ratio(
      `p99 with ${inFlight} in flight ÷ p99 of one alone`,
      waits.map(({ a, b }) => a.figures.p99Ms! / b.figures.p99Ms!),
      { max: 5 },
    )
    report.figure(
      'appends a second',
      [...same, ...rowsOnly].map(({ a }) => rates(a)),
    )
  } finally {
    await opened.close()
    closeSync(file)
  }
}

const rows = Buffer.alloc(rowsBytes, 0x57)

async function appendFor(opened: EventLog, seconds: number): Promise<Measurement> {
  const waits: number[] = []
  const began = performance.now()
  const until = began + seconds * 1000
  const before = await endOf(opened)
  let records = 0
  const worker = async (number: number): Promise<void> => {
    let now = performance.now()
    while (now < until) {
      await opened.append('readings', number % partitions, rows, 1, 1)
      records++
      // One of a hundred is timed: reading the clock costs a good part of an append.
      if (number % 100 === 0) {
        const after = performance.now()
        waits.push(after - now)
        now = after
      } else now = lastSeen
    }
  }
  let lastSeen = began
  const watch = setInterval(() => {
    lastSeen = performance.now()
  }, 5)
  const cpu = process.cpuUsage()
  await Promise.all(Array.from({ length: inFlight }, (_, number) => worker(number)))
  clearInterval(watch)
  const took = (performance.now() - began) / 1000
  const { user, system } = process.cpuUsage(cpu)
  const kept = (await endOf(opened)) - before
  return {
    figures: { records: records / took, p99Ms: p99(waits), cpuMicros: (user + system) / records },
    ...(kept === records ? {} : { void: `${records} appends were acknowledged and ${kept} are in the log` }),
  }
}

async function endOf(opened: EventLog): Promise<number> {
  return [...(await opened.end('readings')).values()].reduce((sum, offset) => sum + offset, 0)
}

async function appendAlone(opened: EventLog): Promise<Measurement> {
  const waits: number[] = []
  for (let i = 0; i < loneAppends; i++) {
    const began = performance.now()
    await opened.append('readings', 0, rows, 1, 1)
    waits.push(performance.now() - began)
  }
  return { figures: { p99Ms: p99(waits) } }
}

async function writeFor(file: number, bytes: number, seconds: number): Promise<Measurement> {
  const buffer = Buffer.alloc(bytes, 0x57)
  const began = performance.now()
  const until = began + seconds * 1000
  // Callbacks, as little as a loop can be.
  const commits = await new Promise<number>((resolve, reject) => {
    let done = 0
    let position = 0
    const next = (error: Error | null): void => {
      if (error) reject(error)
      else if (done > 0 && performance.now() >= until) resolve(done)
      else writeOne()
    }
    const writeOne = (): void => {
      done++
      if (position + bytes > fileBytes) position = 0
      write(file, buffer, 0, bytes, position, (failed) => (failed ? reject(failed) : fdatasync(file, next)))
      position += bytes
    }
    writeOne()
  })
  return { figures: { records: (commits * inFlight) / ((performance.now() - began) / 1000) } }
}

function sync(file: number): Promise<void> {
  return new Promise((resolve, reject) => fdatasync(file, (error) => (error ? reject(error) : resolve())))
}

function p99(values: number[]): number {
  return values.sort((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN
}
