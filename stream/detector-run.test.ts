// Detection on the real log: killed anywhere it finds what it would have found undisturbed, with series moved to disk and back on the way.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Anomaly, decodeAnomalies } from '../domain/anomaly.ts'
import { type EventLog, partitionOf } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { systemClock } from '../runtime/clock.ts'
import { RetryableError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { createRandom } from '../tests/helpers/random.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { type AppendAnomalies, DetectorRun } from './detector-run.ts'
import { openEmbeddedLog } from './log/embedded-log.ts'

const partitions = 4
const startAt = Date.UTC(2026, 0, 1) * 1000
const minute = 60_000_000

let directory: string
let log: EventLog
let runs: DetectorRun[]
let turn: number
const random = createRandom()

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'weir-detector-'))
  log = await openEmbeddedLog({
    directory: join(directory, 'log'),
    mode: 'append',
    partitions,
    quotaBytes: 1e9,
    retentionMs: 1e9,
    groups: [],
    logger: silentLogger,
    clock: systemClock,
    segmentBytes: 1024 * 1024,
  })
  runs = []
  turn = 0
})
afterEach(async () => {
  for (const run of runs) await run.stop()
  await log.close()
  await rm(directory, { recursive: true, force: true })
})

/** Rounds of one reading from each of many devices, a few of them odd now and then; every chunk of another length. */
async function appendRounds(devices: number, rounds: number): Promise<number> {
  const prefixes = Array.from({ length: devices }, (_, i) => encodeRowPrefix('default', `d${i}`, 'v'))
  const writers = Array.from({ length: partitions }, () => new RowWriter())
  const appends: Promise<unknown>[] = []
  let receivedAt = startAt + turn * minute
  const flush = (partition: number): void => {
    const writer = writers[partition]!
    if (writer.count === 0) return
    appends.push(log.append('readings', partition, Buffer.from(writer.rows()), writer.count, receivedAt))
    writer.reset()
  }
  for (let round = 0; round < rounds; round++, turn++) {
    for (let device = 0; device < devices; device++) {
      // Some are silent for long, so that their state goes to disk.
      if (device >= 100 && Math.floor(turn / 50) % 3 !== device % 3) continue
      const partition = partitionOf('default', `d${device}`, partitions)
      const isOdd = (turn * 31 + device * 17) % 397 === 0
      const value = Math.sin(turn / 9 + device) * 10 + ((turn * 7919 + device * 104729) % 100) / 50
      writers[partition]!.number(
        prefixes[device]!,
        startAt + turn * 30 * minute,
        isOdd ? value * (3 + turn / 100) : value,
        ++receivedAt,
      )
      if (random.next() < 0.01) flush(partition)
    }
  }
  for (let partition = 0; partition < partitions; partition++) flush(partition)
  await Promise.all(appends)
  return receivedAt
}

function newRun(place: string, append: AppendAnomalies, snapshotEveryMs = 0): DetectorRun {
  const run = new DetectorRun({
    log,
    append,
    directory: join(directory, place),
    tier: 2,
    scoreMin: 0.01,
    seriesMax: 128,
    snapshotEveryMs,
    logger: silentLogger,
  })
  runs.push(run)
  return run
}

async function isAtEnd(run: DetectorRun, readings: number): Promise<void> {
  await waitFor(() => run.totals().readings >= readings)
}

const told = (anomalies: readonly Anomaly[]): string[] => anomalies.map((each) => JSON.stringify(each)).sort()

describe('detection', () => {
  it('finds the same after kills, with the same ids and scores, each for the table once', async () => {
    await appendRounds(260, 1_500)
    const undisturbed: Anomaly[] = []
    let appends = 0
    const append: AppendAnomalies = async (_, rows) => {
      appends++
      undisturbed.push(...decodeAnomalies(rows))
    }
    const whole = newRun('whole', append, 1e9)
    await whole.start((error) => {
      throw error
    })
    const end = await log.end('readings')
    const reached = (): boolean => whole.totals().readings > 0 && positionOf(whole, end)
    await waitFor(reached)
    expect(undisturbed.length).toBeGreaterThan(20)
    expect(whole.totals().coldSeries).toBeGreaterThan(50)

    const byId = new Map<string, Anomaly>()
    let kills = 0
    for (let isDone = false; !isDone; ) {
      let left = 1 + Math.floor((random.next() * appends) / 3)
      let ended: Error | undefined
      const run = newRun('killed', async (_, rows) => {
        // A kill before, or after, the anomalies are durable.
        if (left < 0 && random.next() < 0.5) throw new Error('killed before')
        for (const each of decodeAnomalies(rows)) byId.set(each.id, each)
        left -= 1
        if (left < 0) throw new Error('killed after')
      })
      await run.start((error) => {
        ended = error
      })
      await waitFor(() => ended !== undefined || positionOf(run, end))
      if (ended) kills++
      else isDone = true
    }
    expect(kills).toBeGreaterThan(2)
    expect(told([...byId.values()])).toEqual(told(undisturbed))
  })

  it('goes on from its snapshot, and has the log wait for it', async () => {
    await appendRounds(20, 600)
    const first = newRun('one', async () => {}, 1e9)
    await first.start(() => {})
    const end = await log.end('readings')
    await waitFor(() => positionOf(first, end))
    expect(await log.committed('detector', 'readings')).toEqual(new Map())
    await first.stop()
    expect(await log.committed('detector', 'readings')).toEqual(end)
    await appendRounds(20, 10)
    const second = newRun('one', async () => {}, 1e9)
    await second.start(() => {})
    await isAtEnd(second, 200)
    expect(second.totals().readings).toBe(200)
  })

  it('tells again what could not be told, and reads nothing meanwhile', async () => {
    await appendRounds(20, 600)
    let refusals = 0
    const run = newRun('one', async () => {
      if (++refusals < 4) throw new RetryableError('the log is full')
    })
    await run.start(() => {})
    await waitFor(() => refusals >= 4)
    expect(run.totals().anomalies).toBeGreaterThan(0)
  })

  it('does not use a snapshot of another detector', async () => {
    await appendRounds(20, 600)
    const first = newRun('one', async () => {}, 1e9)
    await first.start(() => {})
    const end = await log.end('readings')
    await waitFor(() => positionOf(first, end))
    await first.stop()
    const run = new DetectorRun({
      log,
      append: async () => {},
      directory: join(directory, 'one'),
      tier: 1,
      scoreMin: 0.01,
      seriesMax: 128,
      logger: silentLogger,
    })
    runs.push(run)
    await run.start(() => {})
    await isAtEnd(run, 12_000)
    expect(run.totals().readings).toBe(12_000)
  })
})

function positionOf(run: DetectorRun, end: ReadonlyMap<number, number>): boolean {
  const position = run.reached()
  return [...end].every(([partition, offset]) => (position.get(partition) ?? 0) >= offset)
}
