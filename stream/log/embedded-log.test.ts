// The embedded log against the port's contract, and what is its own: the number of partitions, the quota's sentence, what is made beforehand.

import { appendFile, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import * as path from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../runtime/clock.ts'
import { LimitError, StartError } from '../../runtime/errors.ts'
import { type Logger, silentLogger } from '../../runtime/logger.ts'
import { type EmbeddedLogOptions, openEmbeddedLog } from './embedded-log.ts'
import { eventLogContract, type LogSize } from './event-log.contract.ts'
import { type LogFiles, systemFiles } from './log-files.ts'

const made: string[] = []
async function directory(): Promise<string> {
  const place = await mkdtemp(path.join(tmpdir(), 'weir-log-'))
  made.push(place)
  return place
}
afterAll(async () => {
  for (const place of made) await rm(place, { recursive: true, force: true })
})

const kibibyte = 1024
function options(place: string, size: LogSize, mode: 'append' | 'read'): EmbeddedLogOptions {
  return {
    directory: path.join(place, 'log'),
    mode,
    partitions: 4,
    segmentBytes: size === 'small' ? 64 * kibibyte : 8 * kibibyte * kibibyte,
    quotaBytes: size === 'small' ? 256 * kibibyte : 64 * kibibyte * kibibyte,
    retentionMs: size === 'small' ? 0 : 3_600_000,
    groups: size === 'small' ? ['keeper'] : [],
    logger: silentLogger,
    clock: systemClock,
  }
}

eventLogContract({
  name: 'embedded',
  open: async (size) => {
    const place = await directory()
    return { place, log: await openEmbeddedLog(options(place, size, 'append')) }
  },
  reopen: (place, mode, size) => openEmbeddedLog(options(place, size, mode)),
})

describe('embedded log', () => {
  it('refuses another number of partitions than it was made with, in one sentence', async () => {
    const place = await directory()
    await (await openEmbeddedLog(options(place, 'usual', 'append'))).close()
    const error = await openEmbeddedLog({ ...options(place, 'usual', 'append'), partitions: 8 }).catch(
      (caught) => caught,
    )
    expect(error).toBeInstanceOf(StartError)
    expect(error.message).toMatch(/has 4 partitions.*8.*WEIR_PARTITIONS=4/)
  })

  it('takes the end for a tail when it is called, not when it is first read', async () => {
    const log = await openEmbeddedLog(options(await directory(), 'usual', 'append'))
    await log.append('readings', 0, Buffer.from('before'), 1, 1)
    const stop = new AbortController()
    const tail = log.tail('readings', 'end', stop.signal)
    await log.append('readings', 0, Buffer.from('after'), 1, 1)
    for await (const chunks of tail) {
      expect(chunks.map(({ rows }) => Buffer.from(rows).toString())).toEqual(['after'])
      stop.abort()
    }
    await log.close()
  })

  it('refuses a chunk that no commit can take, and takes the next', async () => {
    const log = await openEmbeddedLog(options(await directory(), 'small', 'append'))
    await expect(log.append('readings', 0, new Uint8Array(64 * kibibyte), 1, 1)).rejects.toBeInstanceOf(LimitError)
    expect(await log.append('readings', 0, new Uint8Array(50 * kibibyte), 1, 1)).toBe(0)
    await log.close()
  })

  it('refuses what would wait beyond its bound, and keeps what it took', async () => {
    const log = await openEmbeddedLog({ ...options(await directory(), 'usual', 'append'), quotaBytes: 1e9 })
    const rows = new Uint8Array(kibibyte * kibibyte)
    const outcomes = await Promise.allSettled(Array.from({ length: 80 }, () => log.append('readings', 0, rows, 1, 1)))
    const taken = outcomes.filter((each) => each.status === 'fulfilled').length
    const refused = outcomes.filter((each) => each.status === 'rejected')
    expect(taken).toBeGreaterThan(40)
    expect(refused.length).toBeGreaterThan(0)
    for (const each of refused) expect(each.reason).toMatchObject({ name: 'LimitError', limit: 'log-pending-bytes' })
    expect((await log.end('readings')).get(0)).toBe(taken)
    await log.close()
  })

  it('makes a spare segment in full beforehand, and never takes more files than the quota allows', async () => {
    const place = await directory()
    const log = await openEmbeddedLog({ ...options(place, 'small', 'append'), groups: [] })
    const rows = new Uint8Array(4000)
    for (let i = 0; i < 400; i++) await log.append('readings', i & 3, rows, 1, i)
    const spare = path.join(place, 'log', 'spare')
    await expect
      .poll(() =>
        stat(spare).then(
          ({ size }) => size,
          () => 0,
        ),
      )
      .toBe(64 * kibibyte)
    const segments = (await readdir(path.join(place, 'log'))).filter(
      (name) => name.endsWith('.seg') || name === 'spare',
    )
    expect(segments.length).toBeLessThanOrEqual(5)
    expect(log.bytesOnDisk()).toBe(segments.filter((name) => name !== 'spare').length * 64 * kibibyte)
    const reader = await openEmbeddedLog({ ...options(place, 'small', 'read'), groups: [] })
    expect(reader.bytesOnDisk()).toBeUndefined()
    await reader.close()
    await log.close()
  })

  it('a reader that was there before the log finds it when it comes', async () => {
    const place = await directory()
    const reader = await openEmbeddedLog(options(place, 'usual', 'read'))
    expect(await reader.end('readings')).toEqual(new Map())
    const consumer = await reader.subscribe('early', 'readings')
    const waiting = consumer.read(1, new AbortController().signal)
    const log = await openEmbeddedLog(options(place, 'usual', 'append'))
    await log.append('readings', 0, Buffer.from('hello'), 1, 1)
    expect(await waiting).toHaveLength(1)
    await consumer.close()
    await reader.close()
    await log.close()
  })

  it('a reader stays on while the appender is closed and opened again', async () => {
    const place = await directory()
    const reader = await openEmbeddedLog(options(place, 'usual', 'read'))
    const seen: number[] = []
    const stop = new AbortController()
    const reading = (async () => {
      for await (const chunks of reader.tail('readings', new Map(), stop.signal))
        seen.push(...chunks.map(({ offset }) => offset))
    })()
    for (let round = 0; round < 3; round++) {
      const log = await openEmbeddedLog(options(place, 'usual', 'append'))
      for (let i = 0; i < 5; i++) await log.append('readings', 0, Buffer.from('x'), 1, 1)
      await log.close()
    }
    await expect.poll(() => seen.length).toBe(15)
    expect(seen).toEqual(Array.from({ length: 15 }, (_, i) => i))
    stop.abort()
    await reading
    await reader.close()
  })

  it('keeps everything for a group whose position can not be read, and takes appends again once it can', async () => {
    const place = await directory()
    const errors: string[] = []
    const logger: Logger = { ...silentLogger, error: (_fields, message) => errors.push(message), child: () => logger }
    const log = await openEmbeddedLog({ ...options(place, 'small', 'append'), logger })
    const keeper = await log.subscribe('keeper', 'readings')
    const file = path.join(place, 'log', 'groups', 'keeper.readings.json')
    await writeFile(file, 'garbage')
    let kept = 0
    const full = await (async () => {
      for (;;) {
        const error = await log.append('readings', 0, new Uint8Array(4000), 1, 1).catch((caught: Error) => caught)
        if (typeof error !== 'number') return error
        kept++
      }
    })()
    expect(full).toMatchObject({ name: 'LimitError', limit: 'log-quota' })
    expect(errors.filter((message) => message.includes(file))).toHaveLength(1)
    await keeper.commit(new Map([[0, kept]]))
    await expect.poll(() => log.state().state).toBe('ok')
    expect(await log.append('readings', 0, new Uint8Array(1), 1, 1)).toBe(kept)
    await keeper.close()
    await log.close()
  })

  it('who follows a topic is not woken by others, nor reads what they write, and misses nothing of its own', async () => {
    const place = await directory()
    let reads = 0
    const counting: LogFiles = {
      ...systemFiles,
      read: (...of) => {
        reads++
        return systemFiles.read(...of)
      },
      readNow: (...of) => {
        reads++
        return systemFiles.readNow(...of)
      },
    }
    const log = await openEmbeddedLog({ ...options(place, 'usual', 'append'), files: counting })
    const consumer = await log.subscribe('one', 'dead-letters')
    const never = new AbortController().signal
    const next = async () => (await consumer.read(1e6, never)).map(({ partition, offset }) => [partition, offset])
    const letter = (partition: number) => log.append('dead-letters', partition, Buffer.from('letter'), 1, 1)
    await letter(1)
    expect(await next()).toEqual([[1, 0]])
    for (let round = 0; round < 3; round++) {
      const waiting = next()
      await log.append('readings', 0, Buffer.alloc(100), 1, 1)
      const before = reads
      for (let i = 0; i < 50; i++) await log.append('readings', i % 4, Buffer.alloc(5_000), 1, 1)
      expect(reads - before, 'reads of what others wrote').toBe(0)
      await letter(1)
      expect(await waiting).toEqual([[1, 1 + 2 * round]])
      // Not waiting meanwhile: passed over without being read.
      for (let i = 0; i < 50; i++) await log.append('readings', i % 4, Buffer.alloc(5_000), 1, 1)
      const late = next()
      await letter(1)
      expect(await late).toEqual([[1, 2 + 2 * round]])
    }
    expect(reads, 'in all').toBeLessThan(60)
    await consumer.close()
    await log.close()
  })

  it('who follows a topic that is silent for many segments keeps none of them open, and goes on in the last', async () => {
    const place = await directory()
    const log = await openEmbeddedLog({ ...options(place, 'usual', 'append'), segmentBytes: 64 * kibibyte })
    const reader = await openEmbeddedLog(options(place, 'usual', 'read'))
    const ending = new AbortController()
    const seen: number[] = []
    const reading = (async () => {
      for await (const chunks of reader.tail('anomalies', 'end', ending.signal))
        seen.push(...chunks.map(({ offset }) => offset))
    })()
    for (let round = 0; round < 3; round++) {
      for (let i = 0; i < 60; i++) await log.append('readings', i % 4, Buffer.alloc(9_000), 1, 1)
      await log.append('anomalies', 2, Buffer.from('x'), 1, 1)
      await expect.poll(() => seen.length, { timeout: 20_000 }).toBe(round + 1)
    }
    expect(seen).toEqual([0, 1, 2])
    ending.abort()
    await reading
    await reader.close()
    await log.close()
  })

  it('garbage behind the first line of a position is ignored; a position that can not be read is named', async () => {
    const place = await directory()
    const log = await openEmbeddedLog(options(place, 'usual', 'append'))
    await log.append('readings', 0, Buffer.from('x'), 1, 1)
    const consumer = await log.subscribe('one', 'readings')
    await consumer.commit(new Map([[0, 1]]))
    const file = path.join(place, 'log', 'groups', 'one.readings.json')
    await appendFile(file, Buffer.from([0, 255, 7, 10, 123]))
    expect(await log.committed('one', 'readings')).toEqual(new Map([[0, 1]]))
    expect(JSON.parse((await readFile(file, 'utf8')).split('\n')[0]!)).toEqual({ version: 1, position: { 0: 1 } })
    await writeFile(file, '{"position":{"0":-4}}')
    await expect(log.committed('one', 'readings')).rejects.toMatchObject({ name: 'LogDamagedError', file })
    await consumer.close()
    await log.close()
  })
})
