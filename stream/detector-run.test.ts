// Detection on the real log: killed anywhere it finds what it would have found undisturbed, with series moved to disk and back on the way.
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Anomaly, decodeAnomalies } from '../domain/anomaly.ts'
import { type EventLog, type LogConsumer, partitionOf } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { systemClock } from '../runtime/clock.ts'
import { OffsetOutOfRangeError, RetryableError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { createRandom } from '../tests/helpers/random.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { type AppendAnomalies, DetectorRun, type DetectorRunOptions } from './detector-run.ts'
import { createDetector } from './detectors/index.ts'
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
  log = await openLog('log')
  runs = []
  turn = 0
})
function openLog(name: string): Promise<EventLog> {
  return openEmbeddedLog({
    directory: join(directory, name),
    mode: 'append',
    partitions,
    quotaBytes: 1e9,
    retentionMs: 1e9,
    groups: [],
    logger: silentLogger,
    clock: systemClock,
    segmentBytes: 1024 * 1024,
  })
}

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

function newRun(
  place: string,
  append: AppendAnomalies,
  snapshotEveryMs = 0,
  changes: Partial<DetectorRunOptions> = {},
): DetectorRun {
  const run = new DetectorRun({
    log,
    append,
    directory: join(directory, place),
    tier: 2,
    scoreMin: 0.01,
    seriesMax: 128,
    snapshotEveryMs,
    logger: silentLogger,
    ...changes,
  })
  runs.push(run)
  return run
}

async function isAtEnd(run: DetectorRun, readings: number): Promise<void> {
  await waitFor(() => run.totals().readings >= readings)
}

/** Said by the first difference: there are thousands. */
function expectSame(found: readonly Anomaly[], expected: readonly Anomaly[]): void {
  const [own, others] = [found, expected].map((all) => all.map((each) => JSON.stringify(each)).sort()) as [
    string[],
    string[],
  ]
  const at = others.findIndex((each, i) => each !== own[i])
  expect({ count: own.length, first: own[at] }).toEqual({ count: others.length, first: others[at] })
}

describe('detection', () => {
  it('finds the same after kills, with the same ids and scores, each for the table once', async () => {
    await appendRounds(260, 1_500)
    const undisturbed: Anomaly[] = []
    let appends = 0
    const append: AppendAnomalies = async (_, rows) => {
      appends++
      undisturbed.push(...decodeAnomalies(rows))
    }
    // It commits nothing, so that the other begins at the beginning.
    const whole = newRun('whole', append, 1e9, { seriesMax: 1_000 })
    await whole.start((error) => {
      throw error
    })
    const end = await log.end('readings')
    const reached = (): boolean => whole.totals().readings > 0 && positionOf(whole, end)
    await waitFor(reached)
    expect(undisturbed.length).toBeGreaterThan(20)

    const byId = new Map<string, Anomaly>()
    let kills = 0
    let coldSeries = 0
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
      coldSeries = Math.max(coldSeries, run.totals().coldSeries)
      if (ended) kills++
      else isDone = true
    }
    expect(kills).toBeGreaterThan(2)
    expect(coldSeries).toBeGreaterThan(50)
    expectSame([...byId.values()], undisturbed)
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

  it('leaves a snapshot, and the position, also where nothing comes after', async () => {
    const run = newRun('one', async () => {}, 300)
    await run.start(() => {})
    await appendRounds(20, 10)
    await isAtEnd(run, 200)
    const end = await log.end('readings')
    const committed = async (): Promise<boolean> => {
      const position = await log.committed('detector', 'readings')
      return [...end].every(([partition, offset]) => position.get(partition) === offset)
    }
    await waitFor(committed, { what: 'the position to be committed' })
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

  it('begins anew with another log than that of its snapshot, and keeps what it has learned', async () => {
    await appendRounds(20, 600)
    const first = newRun('one', async () => {}, 1e9)
    await first.start(() => {})
    const end = await log.end('readings')
    await waitFor(() => positionOf(first, end))
    await first.stop()
    await log.close()
    log = await openLog('another')
    await appendRounds(20, 10)
    const found: Anomaly[] = []
    const second = newRun('one', async (_, rows) => void found.push(...decodeAnomalies(rows)), 1e9)
    const failures: Error[] = []
    await second.start((error) => failures.push(error))
    await isAtEnd(second, 200)
    const { readings, series, missedChunks } = second.totals()
    expect({ readings, series, missedChunks }).toEqual({ readings: 200, series: 20, missedChunks: 0 })
    const readingsKnown = found.map(({ evidence }) => (JSON.parse(evidence) as { readings: number }).readings)
    expect(readingsKnown.every((known) => known > 600)).toBe(true)
    await second.stop()
    expect(await log.committed('detector', 'readings')).toEqual(await log.end('readings'))
    expect(failures).toEqual([])
  })

  it('knows another log also when that has grown past its position, and looks at all of it', async () => {
    await appendRounds(20, 300)
    const first = newRun('one', async () => {}, 1e9)
    await first.start(() => {})
    const before = await log.end('readings')
    await waitFor(() => positionOf(first, before))
    await first.stop()
    await log.close()
    log = await openLog('another')
    await appendRounds(20, 900)
    for (const [partition, offset] of await log.end('readings')) expect(offset).toBeGreaterThan(before.get(partition)!)
    const second = newRun('one', async () => {}, 1e9)
    await second.start(() => {})
    await isAtEnd(second, 18_000)
    expect(second.totals().readings).toBe(18_000)
    await second.stop()
    // It is its own by now.
    const third = newRun('one', async () => {}, 1e9)
    await third.start(() => {})
    await appendRounds(20, 10)
    await isAtEnd(third, 200)
    expect(third.totals().readings).toBe(200)
  })

  it('looks at all of a partition where another log lies than the one that it had read, and again at no other', async () => {
    await appendRounds(20, 300)
    const first = newRun('one', async () => {}, 1e9)
    await first.start(() => {})
    await isAtEnd(first, 6_000)
    await first.stop()
    const devices = Array.from({ length: 20 }, (_, device) => partitionOf('default', `d${device}`, log.partitions))
    const inPartition = 300 * devices.filter((partition) => partition === devices[0]).length
    expect(inPartition).toBeLessThan(6_000)
    let faults = 1
    const found = withFaults(log, {
      read: () => {
        if (faults-- > 0) throw new OffsetOutOfRangeError('another log', { otherLogIn: devices[0]! })
      },
    })
    const second = newRun('one', async () => {}, 1e9, { log: found })
    await second.start(() => {})
    await isAtEnd(second, inPartition)
    await second.stop()
    // Its places are good by now.
    const third = newRun('one', async () => {}, 1e9)
    await third.start(() => {})
    await appendRounds(20, 10)
    await isAtEnd(third, 200)
    expect([second.totals().readings, third.totals().readings]).toEqual([inPartition, 200])
    expect(second.totals().missedChunks).toBe(0)
  })

  it('waits for a log that can not be opened again just now, says so, and goes on', async () => {
    await appendRounds(20, 600)
    let isGone = false
    let refusals = 0
    const flaky = withFaults(log, {
      end: () => {
        if (isGone && ++refusals < 3) throw new RetryableError('the log is away')
      },
      subscribe: () => {
        if (isGone && ++refusals < 6) throw new RetryableError('the log is away')
      },
      read: () => {
        if (isGone) return
        isGone = true
        throw new OffsetOutOfRangeError('retention was here')
      },
    })
    const failures: Error[] = []
    const run = newRun('one', async () => {}, 0, { log: flaky })
    await run.start((error) => failures.push(error))
    await waitFor(() => /^Detection waits for the log: the log is away/.test(run.totals().trouble ?? ''))
    await isAtEnd(run, 12_000)
    const end = await log.end('readings')
    await waitFor(() => positionOf(run, end) && run.totals().trouble === undefined)
    expect(run.totals()).toMatchObject({ readings: 12_000, missedChunks: 0 })
    expect(refusals).toBeGreaterThanOrEqual(6)
    expect(failures).toEqual([])
  })

  it('says no longer that it waits for a log that came late and has nothing to read', async () => {
    let refusals = 0
    const flaky = withFaults(log, {
      end: () => {
        if (++refusals < 3) throw new RetryableError('the log is away')
      },
    })
    const run = newRun('one', async () => {}, 0, { log: flaky })
    await run.start(() => {})
    await waitFor(() => /^Detection waits for the log: the log is away/.test(run.totals().trouble ?? ''))
    await waitFor(() => run.totals().trouble === undefined)
  })

  it('makes no snapshot because its position was not taken, and offers it again', async () => {
    const snapshotEveryMs = 1_000
    let isRefusing = true
    let refusals = 0
    const flaky = withFaults(log, {
      commit: () => {
        if (!isRefusing) return
        refusals++
        throw new RetryableError('no position is taken')
      },
    })
    const failures: Error[] = []
    const run = newRun('one', async () => {}, snapshotEveryMs, { log: flaky })
    await run.start((error) => failures.push(error))
    const beganAt = performance.now()
    let readings = 0
    for (let round = 0; round < 30 || refusals === 0; round++) {
      await appendRounds(20, 1)
      readings += 20
      await isAtEnd(run, readings)
    }
    expect(run.totals().snapshots).toBeLessThanOrEqual(1 + (performance.now() - beganAt) / snapshotEveryMs)
    expect(await log.committed('detector', 'readings')).toEqual(new Map())
    isRefusing = false
    await run.stop()
    expect(await log.committed('detector', 'readings')).toEqual(await log.end('readings'))
    expect(failures).toEqual([])
  })

  it('holds few series in memory and the others on disk, and finds what it finds with all of them in memory', async () => {
    const devices = 600
    await appendRounds(devices, 700)
    const end = await log.end('readings')
    const all: Anomaly[] = []
    const whole = newRun('whole', async (_, rows) => void all.push(...decodeAnomalies(rows)), 1e9, { seriesMax: 1_000 })
    const few: Anomaly[] = []
    const bounded = newRun('few', async (_, rows) => void few.push(...decodeAnomalies(rows)), 1e9)
    let inMemoryMax = 0
    let bytesMax = 0
    await whole.start(() => {})
    await waitFor(() => positionOf(whole, end), { withinMs: 60_000 })
    await bounded.start(() => {})
    await waitFor(
      () => {
        const { series, bytesHeld } = bounded.totals()
        inMemoryMax = Math.max(inMemoryMax, series)
        bytesMax = Math.max(bytesMax, bytesHeld)
        return positionOf(bounded, end)
      },
      { withinMs: 60_000 },
    )
    expect(all.length).toBeGreaterThan(20)
    expectSame(few, all)
    expect(whole.totals()).toMatchObject({ series: devices, coldSeries: 0 })
    const { series, coldSeries, droppedSeries } = bounded.totals()
    expect(series + coldSeries).toBe(devices)
    expect(droppedSeries).toBe(0)
    expect(inMemoryMax).toBeLessThanOrEqual(128)
    // One slab of 256 blocks, and the names.
    expect(bytesMax).toBeLessThan(whole.totals().bytesHeld / 2)
    // Of the places on disk at most as many lie idle as are in use, or some thousands: many more have been written.
    const blockBytes = createDetector(2).blockWords * 8
    expect((await stat(join(directory, 'few', 'cold'))).size / blockBytes).toBeLessThan(2 * 4_096)
  }, 120_000)

  it('learns anew, and counts, what it has no room for on disk either', async () => {
    await appendRounds(600, 60)
    const end = await log.end('readings')
    const run = newRun('one', async () => {}, 1e9, { coldSeriesMax: 100 })
    await run.start(() => {})
    await waitFor(() => positionOf(run, end), { withinMs: 60_000 })
    const { series, coldSeries, droppedSeries } = run.totals()
    expect(series).toBeLessThanOrEqual(128)
    expect(coldSeries).toBeLessThanOrEqual(100)
    expect(droppedSeries).toBeGreaterThan(100)
  }, 90_000)

  it('finds the same when readings come again, also after a restart, and values that are no numbers count for nothing', async () => {
    const prefix = encodeRowPrefix('default', 'd', 'v')
    const valueAt = (i: number): number =>
      (20 + 5 * Math.sin(i / 40) + ((i * 7_919) % 1_003) / 1_000) * (i % 211 === 0 ? 2 + i / 1_000 : 1)
    const count = 3_000
    let receivedAt = startAt
    const append = async (device: Buffer, indices: readonly number[], odd: readonly number[]): Promise<void> => {
      const writer = new RowWriter()
      for (const i of indices) {
        writer.number(device, startAt + i * 5 * minute, valueAt(i), ++receivedAt)
        for (const value of odd) writer.number(device, startAt + i * 5 * minute + 1, value, ++receivedAt)
      }
      const partition = partitionOf('default', device === prefix ? 'd' : 'e', partitions)
      await log.append('readings', partition, Buffer.from(writer.rows()), writer.count, receivedAt)
    }
    const plain = encodeRowPrefix('default', 'e', 'v')
    const found = new Map<string, string[]>([
      ['d', []],
      ['e', []],
    ])
    const tell: AppendAnomalies = async (_, rows) => {
      for (const { device, observedAt, score } of decodeAnomalies(rows))
        found.get(device)!.push(`${observedAt} ${score}`)
    }
    let run = newRun('one', tell, 1e9)
    await run.start(() => {})
    let notFinite = 0
    for (let at = 0; at < count; ) {
      const next = Math.min(count, at + random.between(1, 120))
      const indices = Array.from({ length: next - at }, (_, i) => at + i)
      await append(plain, indices, [])
      await append(prefix, indices, [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
      notFinite += 3 * indices.length
      // A device that was cut off sends its last readings again, in order, some of them twice; now and then detection was restarted before.
      const again = indices.slice(-random.between(1, 100))
      if (random.next() < 0.3) {
        const end = await log.end('readings')
        await waitFor(() => positionOf(run, end))
        notFinite -= run.totals().notFinite
        await run.stop()
        run = newRun('one', tell, 1e9)
        await run.start(() => {})
      }
      await append(
        prefix,
        again.flatMap((i) => (i % 3 === 0 ? [i, i] : [i])),
        [],
      )
      at = next
    }
    const end = await log.end('readings')
    await waitFor(() => positionOf(run, end))
    expect(found.get('e')!.length).toBeGreaterThan(5)
    expect(found.get('d')).toEqual(found.get('e'))
    expect(run.totals().notFinite).toBe(notFinite)
  }, 60_000)

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

interface Faults {
  readonly end?: () => void
  readonly subscribe?: () => void
  readonly read?: () => void
  readonly commit?: () => void
}

/** The same log, of which a call throws where its fault does. */
function withFaults(real: EventLog, faults: Faults): EventLog {
  return Object.assign(Object.create(real) as EventLog, {
    end: async (...given: Parameters<EventLog['end']>) => {
      faults.end?.()
      return real.end(...given)
    },
    subscribe: async (...given: Parameters<EventLog['subscribe']>): Promise<LogConsumer> => {
      faults.subscribe?.()
      const consumer = await real.subscribe(...given)
      return {
        ...consumer,
        read: async (bytesMax, signal) => {
          faults.read?.()
          return consumer.read(bytesMax, signal)
        },
        commit: async (position) => {
          faults.commit?.()
          return consumer.commit(position)
        },
      }
    },
  })
}

function positionOf(run: DetectorRun, end: ReadonlyMap<number, number>): boolean {
  const position = run.reached()
  return [...end].every(([partition, offset]) => (position.get(partition) ?? 0) >= offset)
}
