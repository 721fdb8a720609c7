// Somebody asks the store for what never ends. Devices are acknowledged all the same, and what they send is stored and answered while the query runs. It
// is in nobody's way, because it computes below everything else's priority, and what stores readings does not. No time is asserted, only what comes
// before what, and who computes as what.
import { readdirSync, readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const messages = 5_000
const firstAt = 1_700_000_000_000
const patient = { withinMs: 90_000, everyMs: 100 }
/** Half of those of people that may run at once: others are to be answered. */
const queries = 2
const endlessQuery = 'SELECT sum(sin(number)) AS heavy FROM numbers(1000000000000) SETTINGS max_execution_time = 400'
/** The engine lowers a thread's priority only where it may raise it again: with CAP_SYS_NICE, bit 23. */
const mayRaisePriority = ((): boolean => {
  const bits = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1]
  return bits !== undefined && (BigInt(`0x${bits}`) & (1n << 23n)) !== 0n
})()

interface Thread {
  readonly isLow: boolean
  readonly ticks: number
}

describe('a heavy query delays no acknowledgement', () => {
  let weir: WeirProcess
  let publisher: RawPublisher
  const acknowledged = new Set<number>()
  const leaving = new AbortController()
  const running: Promise<unknown>[] = []
  let ended = 0

  beforeAll(async () => {
    weir = await startWeir()
    publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'beside',
      window: 100,
      resend: false,
      message: (index) => ({ topic: 'devices/beside/telemetry', payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    const since = threadsOf(weir)
    for (let i = 0; i < queries; i++) {
      const query = queryStore(weir.data, endlessQuery, leaving.signal)
      running.push(query.catch((error: Error) => error).finally(() => ended++))
    }
    await waitFor(() => ticksOf(weir, since).all > 50, { ...patient, what: 'the queries to compute' })
  }, 180_000)
  afterAll(async () => {
    publisher?.stop()
    leaving.abort()
    await Promise.all(running)
  })

  it.skipIf(!mayRaisePriority)('what it computes, it computes below everything else (needs CAP_SYS_NICE)', async () => {
    const since = threadsOf(weir)
    const { low, all } = await waitFor(() => enough(ticksOf(weir, since)), {
      ...patient,
      what: 'a second of computing',
    })
    expect(low).toBeGreaterThan(0.75 * all)
  })

  it('devices are acknowledged, and what they sent is stored and answered, before it has ended', async () => {
    publisher.resume()
    await waitFor(() => acknowledged.size >= messages, { ...patient, what: `${messages} acknowledgements` })
    publisher.pause()
    await publisher.settled(patient.withinMs)
    expect(ended, 'queries that have ended').toBe(0)
    await waitFor(
      async () => {
        const found: number[] = []
        for await (const { value } of allReadings(weir.http, { device: 'beside', from: '0' })) found.push(value!)
        expect(found).toEqual(Array.from({ length: publisher.sent }, (_, index) => index))
        return true
      },
      { ...patient, what: 'all of them in the table' },
    )
    expect([publisher.broken, acknowledged.size]).toEqual([undefined, publisher.sent])
    expect(ended, 'queries that have ended').toBe(0)
  }, 300_000)

  it.skipIf(!mayRaisePriority)(
    'and what stores readings is none of it, once whoever asked has gone',
    async () => {
      leaving.abort()
      for (const each of await Promise.all(running)) expect(each).toBeInstanceOf(Error)
      // The engine may take a moment to end them.
      await waitFor(
        async () => {
          const rows = await queryStore(
            weir.data,
            "SELECT 1 FROM system.processes WHERE query LIKE '%AS heavy%1000000%'",
          )
          return rows.length <= 1
        },
        { ...patient, what: 'the queries to end' },
      )
      const since = threadsOf(weir)
      publisher.resume()
      const { low, all } = await waitFor(() => enough(ticksOf(weir, since)), {
        ...patient,
        what: 'a second of storing',
      })
      publisher.pause()
      expect(low).toBeLessThan(0.25 * all)
      await publisher.settled(patient.withinMs)
      await weir.stop()
    },
    300_000,
  )
})

/** Of the store's process, by their ids. */
function threadsOf(weir: WeirProcess): ReadonlyMap<string, Thread> {
  const directory = `/proc/${weir.pids().clickhouse}/task`
  const threads = new Map<string, Thread>()
  for (const id of readdirSync(directory)) {
    try {
      const text = readFileSync(`${directory}/${id}/stat`, 'latin1')
      // proc(5): behind the name come state (3), …, utime (14), stime (15), …, nice (19).
      const fields = text
        .slice(text.lastIndexOf(')') + 2)
        .split(' ')
        .map(Number)
      threads.set(id, { isLow: fields[16]! > 0, ticks: fields[11]! + fields[12]! })
    } catch {
      // It ended between the two looks.
    }
  }
  return threads
}

/** What the store's threads have computed since, and how much of it those of low priority. */
function ticksOf(weir: WeirProcess, since: ReadonlyMap<string, Thread>): { all: number; low: number } {
  let [all, low] = [0, 0]
  for (const [id, { isLow, ticks }] of threadsOf(weir)) {
    const more = ticks - (since.get(id)?.ticks ?? 0)
    all += more
    if (isLow) low += more
  }
  return { all, low }
}

/** A second of a core. */
function enough<T extends { readonly all: number }>(ticks: T): T | false {
  return ticks.all >= 100 && ticks
}
