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
    for (let i = 0; i < queries; i++) {
      const query = queryStore(weir.data, endlessQuery, leaving.signal)
      running.push(query.catch((error: Error) => error).finally(() => ended++))
    }
    const computing = new Computing(weir)
    await waitFor(() => computing.isEnough(), { ...patient, what: 'the queries to compute' })
  }, 180_000)
  afterAll(async () => {
    publisher?.stop()
    leaving.abort()
    await Promise.all(running)
  })

  it.skipIf(!mayRaisePriority)('what it computes, it computes below everything else (needs CAP_SYS_NICE)', async () => {
    const computing = new Computing(weir)
    await waitFor(() => computing.isEnough(), { ...patient, what: 'a second of computing' })
    expect(computing.low).toBeGreaterThan(0.75 * computing.all)
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
      const computing = new Computing(weir)
      publisher.resume()
      await waitFor(() => computing.isEnough(), { ...patient, everyMs: 5, what: 'a second of storing' })
      publisher.pause()
      expect(computing.low).toBeLessThan(0.2 * computing.all)
      await publisher.settled(patient.withinMs)
      await weir.stop()
    },
    300_000,
  )
})

/** What the store's threads compute, and how much of it as threads of low priority; a thread may be one only for as long as a statement takes. */
class Computing {
  all = 0
  low = 0
  private readonly weir: WeirProcess
  private threads: ReadonlyMap<string, Thread>

  constructor(weir: WeirProcess) {
    this.weir = weir
    this.threads = threadsOf(weir)
  }

  /** Looks again. True once there was a second of it. */
  isEnough(): boolean {
    const before = this.threads
    this.threads = threadsOf(this.weir)
    for (const [id, { isLow, ticks }] of this.threads) {
      const known = before.get(id)
      const more = ticks - (known?.ticks ?? 0)
      this.all += more
      if (isLow || known?.isLow) this.low += more
    }
    return this.all >= 100
  }
}

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
