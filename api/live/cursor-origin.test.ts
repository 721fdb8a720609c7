// Cursors against a real log: memory first, then the log itself, and never an alarm for a cursor of its own.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { EventLog } from '../../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from '../../stream/log/embedded-log.ts'
import { ChunkRing } from './chunk-ring.ts'
import { isOfThisLog } from './cursor-origin.ts'

const directory = mkdtempSync(join(tmpdir(), 'weir-test-cursor-'))
const gone = new AbortController().signal
const chunksAppended = 5
let log: EventLog

beforeAll(async () => {
  log = await openEmbeddedLog({
    ...{ directory, mode: 'append', partitions: 2, quotaBytes: 1024 ** 3, retentionMs: 3_600_000, groups: [] },
    ...{ segmentBytes: 1024 * 1024, logger: silentLogger, clock: systemClock },
  })
  const prefix = encodeRowPrefix('default', 'd', 'm')
  for (let i = 1; i <= chunksAppended; i++) {
    const rows = new RowWriter()
    rows.number(prefix, i, i, receivedAtOf(i))
    await log.append('readings', 0, rows.rows(), 1, receivedAtOf(i))
  }
})
afterAll(async () => {
  await log?.close()
  rmSync(directory, { recursive: true, force: true })
})

/** Of the chunk before this place. */
const receivedAtOf = (place: number): number => 1_000_000 + place * 10
const at = (place: number, receivedAt: number) => ({
  position: new Map([[0, place]]),
  receivedAt: new Map([[0, receivedAt]]),
})
const nowhere = { position: new Map<number, number>(), receivedAt: new Map<number, number>() }

it.each([1, 3, chunksAppended])(
  'place %i: its own instant, or a later one, is of this log; an earlier one is not',
  async (place) => {
    const asked = (receivedAt: number, known = { log, ring: new ChunkRing(), place: nowhere }) =>
      isOfThisLog(at(place, receivedAt), known, gone)
    expect(await asked(receivedAtOf(place))).toBe(true)
    expect(await asked(receivedAtOf(place) + 5)).toBe(true)
    expect(await asked(receivedAtOf(place) - 1)).toBe(false)
    // The hub knows its own place without the log.
    const hub = { log, ring: new ChunkRing(), place: at(place, receivedAtOf(place)) }
    expect(await asked(receivedAtOf(place), hub)).toBe(true)
    expect(await asked(receivedAtOf(place) - 1, hub)).toBe(false)
  },
)

it('out of memory', async () => {
  const ring = new ChunkRing()
  ring.startAt(new Map([[0, 0]]))
  for await (const chunks of log.tail('readings', new Map(), gone)) {
    ring.push(chunks)
    if (chunks.at(-1)!.offset === chunksAppended - 1) break
  }
  for (let place = 1; place <= chunksAppended; place++) expect(ring.newestBefore(0, place)).toBe(receivedAtOf(place))
  expect(ring.newestBefore(0, chunksAppended + 1)).toBeUndefined()
  expect(ring.newestBefore(1, 1)).toBeUndefined()
  expect(await isOfThisLog(at(2, receivedAtOf(1)), { log, ring, place: nowhere }, gone)).toBe(false)
})

it('says nothing against a cursor that says nothing, or stands at the beginning', async () => {
  const known = { log, ring: new ChunkRing(), place: nowhere }
  expect(await isOfThisLog({ position: new Map([[0, 3]]), receivedAt: new Map() }, known, gone)).toBe(true)
  expect(await isOfThisLog(at(0, 1), known, gone)).toBe(true)
})
