// What the log does when the disk fails it: never a false acknowledgement, a state that says why, and on again by itself where that is safe.
// RELIABILITY: D4 (disk full, an fsync error).

import { describe, expect, it, vi } from 'vitest'
import type { EventLog, LogState } from '../../domain/event-log.ts'
import { LimitError, LogFailedError, RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from './embedded-log.ts'
import { failure, MemoryDisk } from './memory-disk.ts'
import { verifyLog } from './verify-log.ts'

const directory = '/log'
const segmentBytes = 65_536
const never = new AbortController().signal

interface Opened {
  readonly log: EventLog
  readonly states: LogState['state'][]
  readonly errors: string[]
}

async function open(disk: MemoryDisk, quotaBytes = 1e9): Promise<Opened> {
  const errors: string[] = []
  const logger: Logger = {
    error: (_fields, message) => errors.push(message),
    warn: () => {},
    info: () => {},
    debug: () => {},
    child: () => logger,
  }
  const log = await openEmbeddedLog({
    directory,
    mode: 'append',
    partitions: 1,
    segmentBytes,
    quotaBytes,
    retentionMs: 1e12,
    // Never heard of: holds everything back.
    groups: ['writer'],
    logger,
    clock: { nowMicros: () => 1_700_000_000_000_000 },
    files: disk.files,
  })
  const states: LogState['state'][] = []
  log.onState(({ state }) => states.push(state))
  return { log, states, errors }
}

const append = (log: EventLog, rows: string) => log.append('readings', 0, Buffer.from(rows), 1, 1)
const becomes = (log: EventLog, state: LogState['state']) => expect.poll(() => log.state().state).toBe(state)

async function contents(log: EventLog): Promise<string[]> {
  const found: string[] = []
  const count = (await log.end('readings')).get(0) ?? 0
  if (count === 0) return found
  for await (const chunks of log.tail('readings', new Map(), never)) {
    found.push(...chunks.map((chunk) => Buffer.from(chunk.rows).toString()))
    if (found.length >= count) break
  }
  return found
}

/** Fails the next operation of a kind on a file of a kind, once. */
function failOnce(disk: MemoryDisk, operation: string, name: RegExp, code: string): { count: number } {
  const failed = { count: 0 }
  disk.fault = (each, file) => {
    if (failed.count > 0 || each !== operation || !name.test(file)) return undefined
    failed.count++
    throw failure(code, `${operation} of ${file}`)
  }
  return failed
}

describe('a failing disk', () => {
  for (const operation of ['fdatasync', 'write'] as const) {
    it(`${operation} of a commit fails: nothing of it is acknowledged, its segment is abandoned, and the log goes on in another`, async () => {
      const disk = new MemoryDisk()
      const { log, states, errors } = await open(disk)
      await append(log, 'before')
      const failed = failOnce(disk, operation, /\.seg$/, 'EIO')
      const during = await Promise.allSettled([append(log, 'lost 1'), append(log, 'lost 2')])
      expect(failed.count).toBe(1)
      for (const each of during) expect(each).toMatchObject({ status: 'rejected', reason: expect.any(RetryableError) })
      expect(log.state()).toMatchObject({ state: 'stalled', reason: expect.stringContaining('EIO') })
      await expect(append(log, 'refused')).rejects.toBeInstanceOf(RetryableError)
      expect(errors).toHaveLength(1)
      await becomes(log, 'ok')
      expect(await append(log, 'after'), 'offsets have no hole').toBe(1)
      expect(states).toEqual(['stalled', 'ok'])
      expect(await contents(log)).toEqual(['before', 'after'])
      await log.close()

      // The power goes later: what was acknowledged is there, in whatever state the abandoned segment is.
      for (const random of [() => 0, () => 0.99, Math.random]) {
        const after = disk.crash(random)
        const again = await open(after)
        expect(await contents(again.log)).toEqual(['before', 'after'])
        await again.log.close()
        expect((await verifyLog(directory, { files: after.files })).problems).toEqual([])
      }
    })
  }

  it('who reads on from the end before the new segment has its first commit goes on: the log is not damaged', async () => {
    const disk = new MemoryDisk()
    const { log } = await open(disk)
    await append(log, 'before')
    failOnce(disk, 'fdatasync', /\.seg$/, 'EIO')
    await expect(append(log, 'lost')).rejects.toBeInstanceOf(RetryableError)
    await becomes(log, 'ok')
    const from = await log.end('readings')
    const reading = log.tail('readings', from, never)[Symbol.asyncIterator]()
    const first = reading.next()
    // It stands where the new segment begins before anything is there.
    await new Promise((resolve) => setImmediate(resolve))
    await append(log, 'after')
    const { value } = await first
    expect(value?.map((chunk: { rows: Uint8Array }) => Buffer.from(chunk.rows).toString())).toEqual(['after'])
    await reading.return?.()
    await log.close()
  })

  it('a sync that failed is never trusted later: no second one is made on that file', async () => {
    const disk = new MemoryDisk()
    const { log } = await open(disk)
    await append(log, 'before')
    const synced: string[] = []
    let hasFailed = false
    disk.fault = (operation, file) => {
      if (operation !== 'fdatasync' && operation !== 'fsync') return undefined
      if (file.endsWith('spare') && !hasFailed) return undefined
      synced.push(file)
      if (hasFailed) return undefined
      hasFailed = true
      throw failure('EIO', file)
    }
    await expect(append(log, 'lost')).rejects.toThrow()
    await becomes(log, 'ok')
    await append(log, 'after')
    await log.close()
    expect(synced.filter((file) => file === synced[0])).toHaveLength(1)
    expect(synced.length).toBeGreaterThan(2)
  })

  it('appends gathered behind a failed commit are refused with it, and their offsets are given again', async () => {
    const disk = new MemoryDisk()
    const { log } = await open(disk)
    failOnce(disk, 'fdatasync', /\.seg$/, 'EIO')
    // Together they are more than one commit can be.
    const outcomes = await Promise.allSettled([append(log, 'x'.repeat(60_000)), append(log, 'behind it')])
    for (const each of outcomes) expect(each).toMatchObject({ status: 'rejected', reason: expect.any(RetryableError) })
    await becomes(log, 'ok')
    expect(await append(log, 'again')).toBe(0)
    expect(await contents(log)).toEqual(['again'])
    await log.close()
  })

  it('the new segment fails too, again and again: refused all the while, then on', async () => {
    const disk = new MemoryDisk()
    const { log } = await open(disk)
    await append(log, 'before')
    let failures = 0
    disk.fault = (operation) => {
      if (operation !== 'fdatasync' || failures >= 4) return undefined
      failures++
      throw failure('EIO', 'disk')
    }
    await expect(append(log, 'lost')).rejects.toBeInstanceOf(RetryableError)
    await becomes(log, 'ok')
    expect(failures).toBe(4)
    await append(log, 'after')
    await log.close()
    const again = await open(disk.crash(() => 0))
    expect(await contents(again.log)).toEqual(['before', 'after'])
    await again.log.close()
  })

  it('the name of the new segment can not be made durable: failed, until the log is opened again', async () => {
    const disk = new MemoryDisk()
    const { log, errors } = await open(disk)
    await append(log, 'before')
    let hasFailed = false
    disk.fault = (operation, file) => {
      if (operation === 'fdatasync' && file.endsWith('.seg') && !hasFailed) {
        hasFailed = true
        throw failure('EIO', file)
      }
      if (operation === 'syncDirectory' && disk.fileNames().includes('/log/0000000000000002.seg'))
        throw failure('EIO', file)
      return undefined
    }
    await expect(append(log, 'lost')).rejects.toThrow()
    await becomes(log, 'failed')
    await expect(append(log, 'refused')).rejects.toBeInstanceOf(LogFailedError)
    expect(errors.at(-1)).toMatch(/opened again/)
    await log.close()
    disk.fault = undefined
    const again = await open(disk.crash(() => 0.5))
    expect(await contents(again.log)).toEqual(['before'])
    expect(await append(again.log, 'after')).toBe(1)
    await again.log.close()
  })

  it('the disk is full: refused with a sentence once the open segment is, and on again when there is space', async () => {
    const disk = new MemoryDisk()
    const { log, states } = await open(disk)
    await expect.poll(() => disk.fileNames()).toContain('/log/spare')
    let isFull = true
    disk.fault = (operation, file) => {
      if (isFull && operation === 'write' && file.endsWith('spare') && disk.contents(file).length < segmentBytes)
        throw failure('ENOSPC', file)
      return undefined
    }
    const rows = 'x'.repeat(6000)
    let kept = 0
    const refused = await (async () => {
      for (;;) {
        const error = await append(log, rows).then(
          () => undefined,
          (caught) => caught,
        )
        if (error) return error
        kept++
      }
    })()
    expect(refused).toBeInstanceOf(LimitError)
    expect(refused).toMatchObject({ limit: 'log-disk', message: expect.stringMatching(/disk .*full.*Free space/) })
    expect(log.state().state).toBe('full')
    expect(kept).toBeGreaterThan(10)
    expect(disk.fileNames(), 'what could not be made whole is given back').not.toContain('/log/spare')
    isFull = false
    await becomes(log, 'ok')
    expect(await append(log, 'after')).toBe(kept)
    expect(states).toEqual(['full', 'ok'])
    expect(await contents(log)).toHaveLength(kept + 1)
    await log.close()
  })

  it('the disk does not answer: refused after a while, and on again when it does', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'performance'] })
    try {
      const disk = new MemoryDisk()
      const { log, states } = await open(disk)
      const answers: (() => void)[] = []
      const { fdatasync } = disk.files
      disk.files.fdatasync = async (descriptor) => {
        await new Promise<void>((resolve) => {
          answers.push(resolve)
        })
        return fdatasync(descriptor)
      }
      let hasWritten = false
      disk.fault = (operation, file) => {
        hasWritten ||= operation === 'write' && file.endsWith('.seg')
        return undefined
      }
      const slow = append(log, 'slow')
      await expect.poll(() => hasWritten).toBe(true)
      vi.advanceTimersByTime(7000)
      expect(log.state()).toMatchObject({ state: 'stalled', reason: expect.stringMatching(/not answered .* \d s/) })
      await expect(append(log, 'refused')).rejects.toBeInstanceOf(RetryableError)
      disk.files.fdatasync = fdatasync
      for (const answer of answers) answer()
      expect(await slow).toBe(0)
      expect(await append(log, 'after')).toBe(1)
      expect(states).toEqual(['stalled', 'ok'])
      await log.close()
    } finally {
      vi.useRealTimers()
    }
  })

  it('short writes are gone on with', async () => {
    const disk = new MemoryDisk()
    const { log } = await open(disk)
    disk.fault = (operation) => (operation === 'write' ? 1000 : undefined)
    await Promise.all([append(log, 'a'.repeat(5000)), append(log, 'b'.repeat(300)), append(log, 'c'.repeat(2500))])
    expect((await contents(log)).map((rows) => rows.length)).toEqual([5000, 300, 2500])
    await log.close()
    expect((await verifyLog(directory, { files: disk.crash(() => 0).files })).problems).toEqual([])
  })

  it('readers can not be told: appends go on, and the next notice says all', async () => {
    const disk = new MemoryDisk()
    const { log, states } = await open(disk)
    failOnce(disk, 'write', /end$/, 'EIO')
    expect(await append(log, 'a')).toBe(0)
    expect(await append(log, 'b')).toBe(1)
    await log.close()
    expect(states).toEqual([])
    const again = await open(disk)
    expect((await again.log.end('readings')).get(0)).toBe(2)
    await again.log.close()
  })
})
