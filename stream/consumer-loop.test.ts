import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { EventLog, LogConsumer } from '../domain/event-log.ts'
import { systemClock } from '../runtime/clock.ts'
import { LogDamagedError, OffsetOutOfRangeError, RetryableError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { type CountedReads, countReads } from '../tests/helpers/counted-reads.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import type { BatchLimits } from './batch-policy.ts'
import { type BatchHandler, backOffMs, ConsumerLoop } from './consumer-loop.ts'
import type { ConsumerEvents } from './events.ts'
import { openEmbeddedLog } from './log/embedded-log.ts'

const limits: BatchLimits = { rowsMin: 10, bytesMin: 1e6, ageMsMax: 20, rowsMax: 40, bytesMax: 1e6 }
const backOff = { firstMs: 1, longestMs: 5, random: () => 0.5 }

describe('ConsumerLoop', () => {
  let directory: string
  let log: EventLog
  let reads: CountedReads
  let said: string[]
  let crashes: Error[]
  const loops: ConsumerLoop[] = []

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'weir-loop-'))
    log = await openEmbeddedLog({
      directory,
      mode: 'append',
      partitions: 2,
      quotaBytes: 1e9,
      retentionMs: 1e9,
      groups: ['writer'],
      logger: silentLogger,
      clock: systemClock,
      segmentBytes: 1024 * 1024,
    })
    reads = countReads(log)
    said = []
    crashes = []
  })
  afterEach(async () => {
    for (const loop of loops.splice(0)) await loop.stop()
    await log.close()
    await rm(directory, { recursive: true, force: true })
  })

  const events: ConsumerEvents = {
    waiting: () => said.push('waiting'),
    resumed: (attempts) => said.push(`resumed ${attempts}`),
    attemptFailed: () => {},
    standsStill: (cause) => said.push(`stands still: ${cause.name}`),
    goesOn: () => said.push('goes on'),
    crashed: () => said.push('crashed'),
  }
  async function loopWith(
    handle: BatchHandler,
    given: BatchLimits = limits,
    from: EventLog = reads.log,
  ): Promise<ConsumerLoop> {
    const loop = new ConsumerLoop({
      log: from,
      group: 'writer',
      topic: 'readings',
      handle,
      events,
      crash: (error) => crashes.push(error),
      limits: given,
      backOff,
      standStillMs: 5,
      quietMs: 250,
    })
    loops.push(loop)
    await loop.start()
    return loop
  }
  /** One row a chunk; its number is its byte. */
  const append = async (...numbers: number[]): Promise<void> => {
    await Promise.all(numbers.map((n) => log.append('readings', 0, Buffer.from([n]), 1, n)))
  }
  const numbersOf = (batch: Parameters<BatchHandler>[0]): number[] => batch.chunks.map(({ rows }) => rows[0]!)

  it('hands on what comes, in order, and commits after', async () => {
    const seen: number[] = []
    await loopWith(async (batch) => {
      seen.push(...numbersOf(batch))
    })
    await append(1, 2, 3)
    await append(4)
    await waitFor(() => seen.length === 4)
    expect(seen).toEqual([1, 2, 3, 4])
    await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 4)
  })

  it('repeats the same batch while the store is away, and says so once', async () => {
    const attempts: number[][] = []
    let isAway = true
    await loopWith(async (batch) => {
      attempts.push(numbersOf(batch))
      if (isAway) throw new RetryableError('away')
    })
    await append(1, 2)
    await waitFor(() => attempts.length >= 4)
    expect((await log.committed('writer', 'readings')).get(0) ?? 0).toBe(0)
    isAway = false
    await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 2)
    expect(new Set(attempts.map(String))).toEqual(new Set(['1,2']))
    // The position is on disk a moment before whoever committed it knows.
    await waitFor(() => said.length === 2)
    expect(said).toEqual(['waiting', `resumed ${attempts.length}`])
  })

  it('stops reading at its bound while a batch is in hand, and goes on after', async () => {
    let release = (): void => {}
    const sizes: number[] = []
    await loopWith(
      async (batch) => {
        sizes.push(batch.rows)
        if (sizes.length === 1) await new Promise<void>((resolve) => (release = resolve))
      },
      { ...limits, rowsMin: 1, rowsMax: 5, bytesMax: 5 },
    )
    await append(1)
    await waitFor(() => sizes.length === 1)
    for (let n = 2; n <= 30; n++) await append(n)
    release()
    await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 30)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(30)
    // 29 rows were there to be had: what gathered beside the first batch was cut off by the bound, give or take one read.
    expect(Math.max(...sizes)).toBeLessThanOrEqual(10)
  })

  it('an error that nobody foresaw ends it, and nothing is committed', async () => {
    await loopWith(async () => {
      throw new TypeError('a bug')
    })
    await append(1)
    await waitFor(() => crashes.length === 1)
    expect(crashes[0]).toBeInstanceOf(TypeError)
    expect(said).toEqual(['crashed'])
    expect((await log.committed('writer', 'readings')).get(0) ?? 0).toBe(0)
    const seen: number[] = []
    await loopWith(async (batch) => {
      seen.push(...numbersOf(batch))
    })
    await waitFor(() => seen.length === 1)
  })

  it('stands still while its position can not be read, crashes nobody, and goes on once that is mended', async () => {
    const first = await loopWith(async () => {})
    await append(1, 2)
    await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 2)
    await first.stop()
    const file = join(directory, 'groups', 'writer.readings.json')
    const before = await readFile(file)
    await writeFile(file, 'not what was written')
    const seen: number[] = []
    const loop = await loopWith(async (batch) => {
      seen.push(...numbersOf(batch))
    })
    await append(3)
    expect(loop.standsStill()?.message).toContain(file)
    expect(await readFile(file, 'utf8'), 'evidence is not written over').toBe('not what was written')
    await writeFile(file, before)
    await waitFor(() => seen.length === 1)
    expect(seen).toEqual([3])
    expect(loop.standsStill()).toBeUndefined()
    expect(said).toEqual(['stands still: LogDamagedError', 'goes on'])
    expect(crashes).toEqual([])
  })

  it('handles what it has read before damage, stands still there, and says so once', async () => {
    const seen: number[] = []
    let isDamaged = true
    let looks = 0
    const damaged = new LogDamagedError('/log/1.seg', 4096, 'damaged at byte 4096')
    const inner = reads
    // Chunks up to 2 can be read; then the file is not what was written.
    reads = {
      ...inner,
      log: new Proxy(inner.log, {
        get: (target, name) => {
          const member: unknown = Reflect.get(target, name, target)
          if (typeof member !== 'function') return member
          if (name !== 'subscribe') return member.bind(target)
          return async (...[group, topic]: Parameters<EventLog['subscribe']>) => {
            const consumer = await target.subscribe(group, topic)
            let hasRead = (await log.committed(group, topic)).get(0) === 2
            return {
              ...consumer,
              read: async (...how: Parameters<typeof consumer.read>) => {
                if (hasRead && isDamaged) {
                  looks++
                  throw damaged
                }
                hasRead = true
                return consumer.read(...how)
              },
            }
          }
        },
      }),
    }
    await append(1, 2)
    const loop = await loopWith(async (batch) => {
      seen.push(...numbersOf(batch))
    })
    await waitFor(() => looks >= 3)
    await append(3)
    expect(seen).toEqual([1, 2])
    expect(loop.standsStill()).toBe(damaged)
    isDamaged = false
    await waitFor(() => seen.length === 3)
    expect(seen).toEqual([1, 2, 3])
    expect(said).toEqual(['stands still: LogDamagedError', 'goes on'])
    expect(crashes).toEqual([])
  })

  it('stands still no longer once its place is good, also where there is nothing to read', async () => {
    let reads = 0
    const passed = new OffsetOutOfRangeError('retention was here')
    const moved: EventLog = Object.assign(Object.create(log), {
      subscribe: async (...given: Parameters<EventLog['subscribe']>): Promise<LogConsumer> => {
        const consumer = await log.subscribe(...given)
        const read: LogConsumer['read'] = async (...asked) => {
          if (reads++ < 3) throw passed
          return consumer.read(...asked)
        }
        return { ...consumer, read }
      },
    })
    const loop = await loopWith(async () => {}, limits, moved)
    await waitFor(() => loop.standsStill() === passed)
    await waitFor(() => reads > 3 && loop.standsStill() === undefined)
    expect(said).toEqual(['stands still: OffsetOutOfRangeError', 'goes on'])
  })

  it('whose position a person has set back commits nothing of before: what is to be read again is not passed over after a crash', async () => {
    let isPastEnd = false
    let isAway = false
    const check = (): void => {
      if (isPastEnd) throw new OffsetOutOfRangeError('past the end: the topic was made anew')
    }
    const inner = reads.log
    reads = {
      ...reads,
      log: new Proxy(inner, {
        get: (target, name) => {
          const member: unknown = Reflect.get(target, name, target)
          if (typeof member !== 'function') return member
          if (name !== 'subscribe') return member.bind(target)
          return async (...[group, topic]: Parameters<EventLog['subscribe']>) => {
            check()
            const consumer = await target.subscribe(group, topic)
            const read: typeof consumer.read = async (...how) => {
              const chunks = await consumer.read(...how)
              check()
              return chunks
            }
            return { ...consumer, read }
          }
        },
      }),
    }
    await log.append('readings', 1, Buffer.from([1]), 1, 1)
    await append(2, 3, 4)
    const seen: number[] = []
    const loop = await loopWith(
      async (batch) => {
        if (isAway && seen.length > 0) throw new RetryableError('away')
        seen.push(...numbersOf(batch))
      },
      { ...limits, rowsMin: 1, rowsMax: 1, bytesMax: 1 },
    )
    await waitFor(async () => (await log.committed('writer', 'readings')).get(0) === 3)
    isPastEnd = true
    await append(5)
    await waitFor(() => loop.standsStill() !== undefined)
    await waitFor(async () => (await log.committed('writer', 'readings')).get(1) === 1)
    const person = await log.subscribe('writer', 'readings')
    await person.commit(
      new Map([
        [0, 0],
        [1, 0],
      ]),
    )
    await person.close()
    seen.length = 0
    isAway = true
    isPastEnd = false
    await waitFor(async () => (await log.committed('writer', 'readings')).get(1) === 1)
    expect(seen).toEqual([1])
    expect((await log.committed('writer', 'readings')).get(0)).toBe(0)
  })

  it('drain handles what was read, and reads no more', async () => {
    const seen: number[] = []
    const loop = await loopWith(
      async (batch) => {
        seen.push(...numbersOf(batch))
      },
      { ...limits, rowsMin: 1_000, ageMsMax: 60_000 },
    )
    await append(1, 2, 3)
    await waitFor(() => reads.given('readings') === 3)
    expect(loop.oldestReceivedAt()).toBe(1)
    await loop.drain(AbortSignal.timeout(60_000))
    expect(seen).toEqual([1, 2, 3])
    expect((await log.committed('writer', 'readings')).get(0)).toBe(3)
    await append(4)
    await loop.stop()
    expect(seen).toEqual([1, 2, 3])
  })

  it('drain ends at its deadline, and what was in hand is read again', async () => {
    const loop = await loopWith(async () => {
      throw new RetryableError('away for good')
    })
    await append(1)
    await waitFor(() => said.includes('waiting'))
    const deadline = new AbortController()
    const drained = loop.drain(deadline.signal)
    deadline.abort()
    await drained
    await loop.stop()
    const seen: number[] = []
    await loopWith(async (batch) => {
      seen.push(...numbersOf(batch))
    })
    await waitFor(() => seen.length === 1)
    expect(seen).toEqual([1])
  })

  it('drain ends at its deadline also where the log keeps a commit unanswered, and what it was of is read again', async () => {
    let asked = 0
    const mute: EventLog = Object.assign(Object.create(log), {
      subscribe: async (...given: Parameters<EventLog['subscribe']>): Promise<LogConsumer> => {
        const consumer = await log.subscribe(...given)
        const commit = (): Promise<void> => {
          asked++
          return new Promise(() => {})
        }
        return { ...consumer, commit }
      },
    })
    const seen: number[] = []
    const handle: BatchHandler = async (batch) => {
      seen.push(...numbersOf(batch))
    }
    const loop = await loopWith(handle, limits, mute)
    await append(1)
    await waitFor(() => asked === 1)
    const deadline = new AbortController()
    const drained = loop.drain(deadline.signal)
    deadline.abort()
    await drained
    await loop.stop()
    expect(crashes).toEqual([])
    await loopWith(handle)
    await waitFor(() => seen.length === 2)
    expect([seen, asked]).toEqual([[1, 1], 1])
  })

  it('backs off longer each time, up to a bound, never at one and the same moment', () => {
    const policy = { firstMs: 100, longestMs: 5_000, random: () => 0 }
    expect([0, 1, 2, 6, 60].map((attempt) => backOffMs(policy, attempt))).toEqual([50, 100, 200, 2_500, 2_500])
    expect(backOffMs({ ...policy, random: () => 1 }, 60)).toBe(5_000)
  })
})
