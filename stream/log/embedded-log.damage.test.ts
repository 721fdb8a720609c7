// What the log makes of files that are not as it left them: torn tails are cut, everything else is refused with file and byte, and no record is
// ever returned that is not one that was appended. RELIABILITY: D2 (writes lost by a power cut), D3 (cuts at every byte, flipped bits).

import fc from 'fast-check'
import { describe, expect, it, vi } from 'vitest'
import type { Chunk, EventLog, LogTopic } from '../../domain/event-log.ts'
import { LogDamagedError } from '../../runtime/errors.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { EndSignal } from './end-file.ts'
import { logTopics } from './frame-format.ts'
import { MemoryDisk } from './memory-disk.ts'
import { RecentBytes } from './recent-bytes.ts'
import { readEnd, recover } from './recovery.ts'
import { segmentHeaderBytes } from './segment-header.ts'
import { SegmentReader } from './segment-reader.ts'
import { listSegments } from './segment-scan.ts'
import { openTestLog, testLogDirectory } from './test-log.ts'
import { verifyLog } from './verify-log.ts'

// Thousands of logs are opened here.
vi.setConfig({ testTimeout: 120_000 })

const endFile = '/log/end'
const partitions = 2
const never = new AbortController().signal

interface Kept {
  readonly topic: LogTopic
  readonly partition: number
  readonly offset: number
  readonly rows: string
}

function open(disk: MemoryDisk, segmentBytes = 16_384): Promise<EventLog> {
  return openTestLog(disk, { segmentBytes })
}

async function appendSome(log: EventLog, kept: Kept[], sizes: readonly number[]): Promise<void> {
  await Promise.all(
    sizes.map(async (size, i) => {
      const topic = logTopics[(size + i) % logTopics.length]!
      const partition = size % partitions
      // Recognisable by itself, and different from every other.
      const rows = `${kept.length}:${i}:${size}:`.padEnd(size, 'abcdefg')
      const offset = await log.append(topic, partition, Buffer.from(rows), 1, 1)
      kept.push({ topic, partition, offset, rows })
    }),
  )
}

/** A stopped log of several segments, and what is in it. */
async function makeLog(): Promise<{ disk: MemoryDisk; kept: Kept[] }> {
  const disk = new MemoryDisk()
  const log = await open(disk)
  const kept: Kept[] = []
  for (let i = 0; i < 72; i++) await appendSome(log, kept, [30 + i, 300 + 3 * i, 7])
  await log.close()
  return { disk, kept }
}

const key = (each: { topic: string; partition: number; offset: number }) =>
  `${each.topic}/${each.partition}/${each.offset}`

/** Reads all topics as far as they go; every chunk must be one that was appended. Returns how many, and why it stopped. */
async function readAsFarAsItGoes(
  disk: MemoryDisk,
  kept: readonly Kept[],
): Promise<{ chunks: Chunk[]; error: unknown }> {
  const known = new Map(kept.map((each) => [key(each), each.rows]))
  const end = new EndSignal()
  const told = await readEnd(disk.files, testLogDirectory)
  if (told) end.set(told)
  const found: Chunk[] = []
  let error: unknown
  for (const topic of logTopics) {
    const recent = new RecentBytes()
    const reader = new SegmentReader({
      files: disk.files,
      directory: testLogDirectory,
      end,
      recent,
      topic,
      from: new Map(),
    })
    const wanted = kept.filter((each) => each.topic === topic).length
    try {
      for (let got = 0; got < wanted; ) {
        const chunks = await reader.read(1e6, never)
        got += chunks.length
        found.push(...chunks)
      }
    } catch (caught) {
      error = caught
    }
    await reader.close()
  }
  for (const chunk of found) expect(Buffer.from(chunk.rows).toString()).toBe(known.get(key(chunk)))
  return { chunks: found, error }
}

/** Everything that a log holds, through its own front. */
async function readLog(log: EventLog): Promise<Map<string, string>> {
  const found = new Map<string, string>()
  for (const topic of logTopics) {
    let left = [...(await log.end(topic)).values()].reduce((sum, offset) => sum + offset, 0)
    if (left === 0) continue
    for await (const chunks of log.tail(topic, new Map(), never)) {
      for (const chunk of chunks) found.set(key(chunk), Buffer.from(chunk.rows).toString())
      left -= chunks.length
      if (left <= 0) break
    }
  }
  return found
}

const asMap = (kept: readonly Kept[]) => new Map(kept.map((each) => [key(each), each.rows]))

async function newestSegment(disk: MemoryDisk): Promise<{ file: string; end: number }> {
  const { file } = (await listSegments(disk.files, testLogDirectory)).at(-1)!
  const end = (await readEnd(disk.files, testLogDirectory))!.byte
  expect(end, 'enough in the newest segment to be cut').toBeGreaterThan(segmentHeaderBytes + 4096)
  return { file, end }
}

describe('a log whose files were changed', () => {
  it('cut at every byte of the last 4 KB: refused where something durable is missing, and everything before it readable', async () => {
    const { disk, kept } = await makeLog()
    const { file, end } = await newestSegment(disk)
    const whole = Buffer.from(disk.contents(file))
    for (let cut = end + 8; cut >= Math.max(segmentHeaderBytes, end - 4096); cut--) {
      const damaged = disk.copy()
      damaged.replace(file, whole.subarray(0, cut))
      const { chunks, error } = await readAsFarAsItGoes(damaged, kept)
      const opened = await open(damaged).catch((caught) => caught)
      if (cut >= end) {
        expect(chunks.length).toBe(kept.length)
        expect(await readLog(opened)).toEqual(asMap(kept))
        await opened.close()
        continue
      }
      expect(opened, `cut at ${cut}`).toBeInstanceOf(LogDamagedError)
      expect(opened).toMatchObject({ file, message: expect.stringContaining(file) })
      expect(opened.byte).toBeLessThanOrEqual(cut)
      expect(error).toBeInstanceOf(LogDamagedError)
      const lost = kept.length - chunks.length
      // A frame here is below 600 bytes: no more is lost than lies behind the cut.
      expect(lost).toBeGreaterThan(0)
      expect(lost).toBeLessThanOrEqual(3 * (1 + Math.ceil((end - cut) / 200)))
    }
  })

  it('cut at every byte of the last 4 KB, and nothing tells how far it went: cut back to a whole commit, and goes on', async () => {
    const { disk, kept } = await makeLog()
    const { file, end } = await newestSegment(disk)
    const whole = Buffer.from(disk.contents(file))
    let before = kept.length
    for (let cut = end; cut >= Math.max(segmentHeaderBytes, end - 4096); cut -= 7) {
      const damaged = disk.copy()
      damaged.replace(file, whole.subarray(0, cut))
      damaged.remove(endFile)
      const log = await open(damaged)
      const found = await readLog(log)
      expect(found.size % 3, 'only whole commits').toBe(0)
      expect(found.size).toBeLessThanOrEqual(before)
      before = found.size
      for (const [place, rows] of found) expect(asMap(kept).get(place)).toBe(rows)
      const more: Kept[] = []
      await appendSome(log, more, [100, 50])
      await log.close()
      const again = await open(damaged)
      expect((await readLog(again)).size).toBe(found.size + 2)
      await again.close()
    }
    expect(before).toBeLessThan(kept.length)
  })

  it('one bit flipped anywhere: always found, named by file and byte, everything before it readable', async () => {
    const { disk, kept } = await makeLog()
    const segments = await listSegments(disk.files, testLogDirectory)
    expect(segments.length).toBeGreaterThan(2)
    const ends = segments.map((_, i) => segments[i + 1]?.header.previousEnd)
    ends[segments.length - 1] = (await newestSegment(disk)).end
    await fc.assert(
      fc.asyncProperty(fc.nat(segments.length - 1), fc.nat(1_000_000), fc.nat(7), async (index, seed, bit) => {
        const { file } = segments[index]!
        const at = seed % ends[index]!
        const damaged = disk.copy()
        const bytes = Buffer.from(disk.contents(file))
        bytes[at]! ^= 1 << bit
        damaged.replace(file, bytes)
        const opened = await open(damaged).catch((caught) => caught)
        expect(opened, `${file} byte ${at}`).toBeInstanceOf(LogDamagedError)
        expect(opened.file).toBe(file)
        expect(opened.byte).toBeLessThanOrEqual(at)
        expect(opened.byte).toBeGreaterThan(at - (at < segmentHeaderBytes ? segmentHeaderBytes : 600))
        const report = await verifyLog(testLogDirectory, { files: damaged.files })
        expect(report.problems[0]).toMatchObject({ file, byte: opened.byte })
        const { chunks } = await readAsFarAsItGoes(damaged, kept)
        expect(chunks.length).toBeLessThan(kept.length)
      }),
      { numRuns: 1000 },
    )
  })

  it('one bit flipped in the last commits, and nothing tells how far they went: refused, or cut back to a whole commit', async () => {
    const { disk, kept } = await makeLog()
    const { file, end } = await newestSegment(disk)
    let cuts = 0
    for (let at = end - 1; at > end - 1200; at -= 7) {
      const damaged = disk.copy()
      const bytes = Buffer.from(disk.contents(file))
      bytes[at]! ^= 16
      damaged.replace(file, bytes)
      damaged.remove(endFile)
      const opened = await open(damaged).catch((caught) => caught)
      if (opened instanceof LogDamagedError) {
        expect(opened.message).toMatch(/a later commit follows at byte \d+/)
        continue
      }
      cuts++
      const found = await readLog(opened)
      expect(found.size).toBe(kept.length - 3)
      await opened.close()
    }
    expect(cuts).toBeGreaterThan(10)
  })

  it('garbage behind the end, in the file or added to it, is cut and never mistaken later', async () => {
    const { disk, kept } = await makeLog()
    const { file, end } = await newestSegment(disk)
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 1, maxLength: 3000 }),
        fc.boolean(),
        fc.nat(2000),
        async (garbage, isAdded, gap) => {
          const damaged = disk.copy()
          const bytes = Buffer.from(disk.contents(file))
          if (isAdded) damaged.replace(file, Buffer.concat([bytes, garbage]))
          else {
            bytes.set(garbage.subarray(0, Math.max(0, bytes.length - end - gap)), end + gap)
            damaged.replace(file, bytes)
          }
          const log = await open(damaged)
          expect(await readLog(log)).toEqual(asMap(kept))
          const more: Kept[] = []
          await appendSome(log, more, [200])
          await log.close()
          expect(damaged.contents(file).length).toBe(16_384)
          expect((await verifyLog(testLogDirectory, { files: damaged.files })).problems).toEqual([])
        },
      ),
      { numRuns: 200 },
    )
  })

  it('frames of the log itself, copied into rows or behind the end, are not taken for frames', async () => {
    const { disk, kept } = await makeLog()
    const { file, end } = await newestSegment(disk)
    const frames = Buffer.from(disk.contents(file).subarray(segmentHeaderBytes, end))
    const copied = disk.copy()
    copied.contents(file).set(frames.subarray(0, Math.min(frames.length, 16_384 - end)), end)
    const log = await open(copied)
    const rows = frames.subarray(0, 4000).toString('latin1')
    await log.append('readings', 0, Buffer.from(rows, 'latin1'), 1, 1)
    await log.close()
    const killed = copied.copy()
    const again = await open(killed)
    expect((await readLog(again)).size).toBe(kept.length + 1)
    await again.close()
  })

  it('a segment that is missing, in the middle or at the end, is damage', async () => {
    const { disk } = await makeLog()
    const segments = await listSegments(disk.files, testLogDirectory)
    for (const missing of [segments[1]!, segments.at(-1)!]) {
      const damaged = disk.copy()
      damaged.remove(missing.file)
      await expect(open(damaged)).rejects.toMatchObject({ name: 'LogDamagedError', file: missing.file })
      expect((await verifyLog(testLogDirectory, { files: damaged.files })).problems).not.toEqual([])
    }
  })

  it('only the newest segments are checked first where there are many; the rest is left for later, not forgotten', async () => {
    const { disk } = await makeLog()
    const segments = await listSegments(disk.files, testLogDirectory)
    const found = await recover(disk.files, testLogDirectory, partitions, silentLogger, 16_384)
    const unchecked = found!.unchecked.map(([segment]) => segment.file)
    expect(unchecked).toEqual(
      segments
        .slice(0, -2)
        .map(({ file }) => file)
        .reverse(),
    )
  })

  it('verify says nothing of a log that is sound, and counts it', async () => {
    const { disk, kept } = await makeLog()
    const report = await verifyLog(testLogDirectory, { files: disk.files })
    expect(report).toMatchObject({ problems: [], chunks: kept.length })
  })
})

describe('a log that lost its power or its process at any moment', () => {
  it('holds everything acknowledged, in order, once; and nothing that was not appended', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            sizes: fc.array(fc.nat(900), { minLength: 1, maxLength: 12 }),
            crash: fc.boolean(),
            isKill: fc.boolean(),
          }),
          {
            minLength: 1,
            maxLength: 12,
          },
        ),
        fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
        async (steps, chance) => {
          const random = () => chance.next().value as number
          let disk = new MemoryDisk()
          let log = await open(disk)
          const acknowledged = new Map<string, string>()
          const sent = new Set<string>()
          let number = 0
          const send = (size: number) => {
            const rows = `${number++}:`.padEnd(size, 'x')
            const topic = logTopics[number % 2]!
            const partition = size % partitions
            sent.add(rows)
            return log.append(topic, partition, Buffer.from(rows), 1, 1).then((offset) => {
              acknowledged.set(key({ topic, partition, offset }), rows)
            })
          }
          for (const { sizes, crash, isKill } of steps) {
            const sending = Promise.allSettled(sizes.map(send))
            if (!crash) {
              await sending
              continue
            }
            // Somewhere in the middle of the commit.
            for (let turns = Math.floor(random() * 12); turns > 0; turns--) await new Promise(setImmediate)
            const kept = new Map(acknowledged)
            const after = isKill ? disk.copy() : disk.crash(random)
            await sending
            await log.close()
            disk = after
            log = await open(disk)
            const found = await readLog(log)
            for (const [place, rows] of kept) expect(found.get(place), place).toBe(rows)
            for (const rows of found.values()) expect(sent.has(rows), rows).toBe(true)
            expect(new Set(found.values()).size).toBe(found.size)
            acknowledged.clear()
            for (const [place, rows] of found) acknowledged.set(place, rows)
          }
          await log.close()
          expect((await verifyLog(testLogDirectory, { files: disk.files })).problems).toEqual([])
        },
      ),
      { numRuns: 100 },
    )
  })
})
