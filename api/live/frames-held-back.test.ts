// Whatever the distance of frames does while time is short, viewers who come, go and come back with their cursors lose nothing by it: in `every` each
// reading is told once, in the order of the log for those of a series; in `latest` no series goes back, and at the end each stands where the log does.
import fc from 'fast-check'
import { afterEach, expect, it, vi } from 'vitest'
import type { Chunk, EventLog, LogPosition } from '../../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { everyName } from '../parameters.ts'
import type { LiveReadings, LiveRevision } from '../wire.ts'
import type { LiveMode } from './channel.ts'
import { decodeCursor } from './cursor.ts'
import type { LiveFrame } from './frame.ts'
import { LiveHub } from './hub.ts'
import { LastValues } from './last-values.ts'
import type { Outbox } from './outbox.ts'

interface Row {
  readonly series: number
  readonly observedMs: number
}

/** One partition, whose readers wait at its end as those of a real one do. */
class MemoryLog {
  readonly chunks: Chunk[] = []
  readonly rows: Row[][] = []
  private waiting: (() => void)[] = []
  private count = 0

  /** Each row as much late, in rows, as it says; no two are one identity. */
  append(rows: readonly { readonly series: number; readonly late: number }[]): void {
    const writer = new RowWriter()
    const told = rows.map(({ series, late }) => {
      const number = ++this.count
      const observedMs = late === 0 ? number * 100 : Math.max(0, number - late) * 100 + 1 + (number % 99)
      const prefix = encodeRowPrefix('default', 'd', `s${series}`)
      writer.number(prefix, observedMs * 1000, number, this.receivedAt(number))
      return { series, observedMs }
    })
    const receivedAt = this.receivedAt(this.count)
    const shared = { topic: 'readings', partition: 0, count: rows.length, receivedAt } as const
    this.chunks.push({ ...shared, offset: this.chunks.length, rows: writer.rows() })
    this.rows.push(told)
    for (const go of this.waiting.splice(0)) go()
  }

  asEventLog(): EventLog {
    const end = async (): Promise<LogPosition> => new Map([[0, this.chunks.length]])
    return {
      ...{ partitions: 1, hasManyAppenders: false, end, beginning: async () => new Map([[0, 0]]) },
      receivedAtMax: () => this.chunks.at(-1)?.receivedAt ?? 0,
      tail: (_topic: string, from: LogPosition, signal: AbortSignal) => this.tail(from.get(0) ?? 0, signal),
    } as unknown as EventLog
  }

  private async *tail(from: number, signal: AbortSignal): AsyncGenerator<readonly Chunk[]> {
    for (let at = from; !signal.aborted; ) {
      const some = this.chunks.slice(at, at + 2)
      at += some.length
      if (some.length > 0) yield some
      else
        await new Promise<void>((go) => {
          this.waiting.push(go)
          signal.addEventListener('abort', () => go(), { once: true })
        })
    }
  }

  /** As `receivedAt` is: rising, and of our clock. */
  private receivedAt(number: number): number {
    return 1_700_000_000_000_000 + number
  }
}

/** Stands for one that comes and goes; what it was told is that of all its connections. */
class Visitor {
  readonly mode: LiveMode
  readonly told: { readonly series: string; readonly observedMs: number; readonly isRevision: boolean }[] = []
  /** Nothing here is lost, and nobody let go. */
  readonly unexpected: string[] = []
  /** The log's end when it first came. */
  from: number | undefined
  private cursor: string | undefined
  private outbox: Outbox | undefined

  constructor(mode: LiveMode) {
    this.mode = mode
  }

  come(hub: LiveHub, end: number, onWrite: () => void): void {
    if (this.outbox) return
    this.from ??= end
    const since = this.cursor === undefined ? 'now' : decodeCursor(this.cursor)!
    const write = (frame: LiveFrame): boolean => {
      onWrite()
      if (frame.cursor !== '') this.cursor = frame.cursor
      if (frame.event === 'readings')
        for (const { metric, observedAt } of (JSON.parse(frame.data()) as LiveReadings).items)
          this.note(metric, observedAt, false)
      if (frame.event === 'revision') {
        const { metric, observedAt } = JSON.parse(frame.data()) as LiveRevision
        this.note(metric, observedAt, true)
      }
      if (frame.event === 'gap' || frame.event === 'bye') this.unexpected.push(`${frame.event} ${frame.data()}`)
      return true
    }
    this.outbox = hub.connect({ sizeOf: () => 1, write, end: () => {} })
    hub.open({ tenant: 'default', device: everyName, metric: everyName, mode: this.mode }, this.outbox, since)
  }

  go(): void {
    // Cut off before it was told where it stands, it would begin at a later end: what lies between nobody owes it.
    if (this.cursor === undefined) return
    this.outbox?.leave()
    this.outbox = undefined
  }

  private note(series: string, observedMs: number, isRevision: boolean): void {
    this.told.push({ series, observedMs, isRevision })
  }
}

const row = fc.record({
  series: fc.nat(2),
  late: fc.oneof(fc.constant(0), fc.constant(0), fc.integer({ min: 1, max: 20 })),
})
const step = fc.oneof(
  fc.record({ kind: fc.constant('append' as const), rows: fc.array(row, { minLength: 1, maxLength: 4 }) }),
  fc.record({ kind: fc.constant('hand' as const), count: fc.integer({ min: 1, max: 4 }) }),
  fc.record({ kind: fc.constant('pass' as const), ms: fc.nat(300), late: fc.nat(40) }),
  fc.record({ kind: fc.constant('come' as const), who: fc.nat(3) }),
  fc.record({ kind: fc.constant('go' as const), who: fc.nat(3) }),
)

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

it('frames that are held back cost nobody a reading', async () => {
  let nowMs = 0
  let heldBack = 0
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
  vi.spyOn(performance, 'now').mockImplementation(() => nowMs)
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 12; turn++) await new Promise((go) => setImmediate(go))
  }
  const property = fc.asyncProperty(
    fc.array(step, { maxLength: 80, size: 'max' }),
    fc.nat(8),
    async (steps, costMs) => {
      const log = new MemoryLog()
      const lastValues = new LastValues()
      const hub = new LiveHub({
        ...{ log: log.asEventLog(), lastValues, clock: systemClock, logger: silentLogger },
        ...{ history: async () => [], received: async () => [] },
      })
      hub.startAt(new Map([[0, 0]]))
      const visitors = (['latest', 'every', 'latest', 'every'] as const).map((mode) => new Visitor(mode))
      let handed = 0
      const hand = (count: number): void => {
        const chunks = log.chunks.slice(handed, handed + count)
        handed += chunks.length
        for (const { rows } of chunks) lastValues.apply(rows)
        if (chunks.length > 0) hub.accept(chunks)
      }
      const pass = (ms: number, late: number): void => {
        nowMs += ms + late
        vi.advanceTimersByTime(ms)
      }
      const come = (visitor: Visitor): void =>
        visitor.come(hub, log.chunks.length, () => {
          nowMs += costMs
        })
      for (const each of steps) {
        if (each.kind === 'append') log.append(each.rows)
        else if (each.kind === 'hand') hand(each.count)
        else if (each.kind === 'pass') pass(each.ms, each.late)
        else if (each.kind === 'come') come(visitors[each.who]!)
        else visitors[each.who]!.go()
        await settle()
      }
      for (const visitor of visitors) if (visitor.from !== undefined) come(visitor)
      for (let time = 0; time < 8; time++) {
        hand(log.chunks.length)
        pass(600, 0)
        await settle()
      }
      heldBack += hub.heldBackFrameCount
      for (const { mode, from, told, unexpected } of visitors) {
        if (from === undefined) continue
        expect(unexpected).toEqual([])
        const owed = log.rows.slice(from).flat()
        for (const series of ['s0', 's1', 's2']) {
          const sent = owed.filter((each) => `s${each.series}` === series).map(({ observedMs }) => observedMs)
          const seen = told.filter((each) => each.series === series)
          if (mode === 'every') {
            expect(seen.map(({ observedMs }) => observedMs)).toEqual(sent)
            continue
          }
          const readings = seen.filter(({ isRevision }) => !isRevision).map(({ observedMs }) => observedMs)
          expect(readings).toEqual([...new Set(readings)].sort((a, b) => a - b))
          const newest = Math.max(
            ...log.rows
              .flat()
              .filter((each) => `s${each.series}` === series)
              .map((each) => each.observedMs),
          )
          if (sent.includes(newest)) expect(readings.at(-1)).toBe(newest)
        }
      }
      for (const visitor of visitors) visitor.go()
      hub.close()
    },
  )
  await fc.assert(property, { numRuns: Number(process.env.WEIR_TEST_RUNS ?? 300) })
  expect(heldBack).toBeGreaterThan(0)
}, 120_000)
