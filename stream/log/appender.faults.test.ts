// The appender over a disk that is slow, writes short and fails at any moment, with turns that append more than an early commit takes: what is
// acknowledged was durable at that very moment, in order, once; every append is answered; after a failure the log goes on where it stood.

import fc from 'fast-check'
import { expect, it, vi } from 'vitest'
import type { EventLog } from '../../domain/event-log.ts'
import { LimitError, LogFailedError, RetryableError } from '../../runtime/errors.ts'
import { type DiskOperation, failure, MemoryDisk } from './memory-disk.ts'
import { openTestLog, testLogDirectory } from './test-log.ts'
import { verifyLog } from './verify-log.ts'

vi.setConfig({ testTimeout: 120_000 })

const partitions = 2
/** Several early commits, and now and then more than one commit takes. */
const segmentBytes = 192 * 1024
const never = new AbortController().signal

function open(disk: MemoryDisk): Promise<EventLog> {
  return openTestLog(disk, { segmentBytes, groups: ['writer'] })
}

/** By partition, in order. */
async function contents(log: EventLog): Promise<string[][]> {
  const found: string[][] = Array.from({ length: partitions }, () => [])
  let left = [...(await log.end('readings')).values()].reduce((sum, offset) => sum + offset, 0)
  if (left === 0) return found
  for await (const chunks of log.tail('readings', new Map(), never)) {
    for (const { partition, rows } of chunks) found[partition]!.push(nameOf(rows))
    left -= chunks.length
    if (left <= 0) break
  }
  return found
}

/** Number and length: what was appended can be told by it. */
function nameOf(rows: Uint8Array): string {
  const text = Buffer.from(rows).toString()
  const name = text.slice(0, text.indexOf(':'))
  expect(text.length).toBe(Number(name.split('/')[1]))
  return name
}

/** What `writeDurably` takes of the system; each call waits for some turns of the event loop first, and may be cut short. */
function makeSlow(disk: MemoryDisk, chance: () => number): void {
  const { writeDurably } = disk.files
  disk.files.writeDurably = async (descriptor, buffer, at, length, position) => {
    for (let turns = Math.floor(chance() * 4); turns > 0; turns--) await new Promise(setImmediate)
    const taken = chance() < 0.3 ? Math.max(1, Math.floor(length * chance())) : length
    return writeDurably(descriptor, buffer, at, taken, position)
  }
}

const operations = ['write', 'fdatasync', 'rename', 'open', 'syncDirectory'] as const

it('a large turn has its first part on the way to the disk before it is over, and is acknowledged in order', async () => {
  const disk = new MemoryDisk()
  const log = await open(disk)
  let writes = 0
  const { writeDurably } = disk.files
  disk.files.writeDurably = (...place) => {
    writes++
    return writeDurably(...place)
  }
  const acknowledged: number[] = []
  const appends: Promise<unknown>[] = []
  for (let i = 0; i < 6; i++)
    appends.push(log.append('readings', 0, Buffer.alloc(30_000), 1, 1).then((offset) => acknowledged.push(offset)))
  expect(writes, 'in the turn of the appends').toBe(1)
  await Promise.all(appends)
  expect(acknowledged).toEqual([0, 1, 2, 3, 4, 5])
  expect(writes, 'the rest is one commit').toBe(2)
  await log.close()
})

it('a first part that can not be made durable takes the rest of its turn with it: nothing of either is acknowledged', async () => {
  const disk = new MemoryDisk()
  const log = await open(disk)
  let hasFailed = false
  disk.fault = (operation, file) => {
    if (operation !== 'fdatasync' || !file.endsWith('.seg') || hasFailed) return undefined
    hasFailed = true
    throw failure('EIO', file)
  }
  const outcomes = await Promise.allSettled(
    Array.from({ length: 6 }, () => log.append('readings', 0, Buffer.alloc(30_000), 1, 1)),
  )
  expect(outcomes.map(({ status }) => status)).toEqual(Array(6).fill('rejected'))
  await expect.poll(() => log.state().state, { timeout: 20_000 }).toBe('ok')
  expect(await log.append('readings', 0, Buffer.from('after'), 1, 1)).toBe(0)
  await log.close()
})

it('what is acknowledged was durable then, in order, once; and each append is answered, whatever the disk does', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.record({
          sizes: fc.array(fc.oneof(fc.integer({ min: 20, max: 2_000 }), fc.integer({ min: 20_000, max: 90_000 })), {
            minLength: 1,
            maxLength: 10,
            size: 'max',
          }),
          /** Turns of the event loop before the next ones are sent. */
          turns: fc.nat(6),
          fault: fc.option(
            fc.record({
              operation: fc.constantFrom<DiskOperation>(...operations),
              code: fc.constantFrom('EIO', 'ENOSPC'),
              /** So many operations of that kind go well first. */
              after: fc.nat(2),
            }),
            { freq: 2, nil: undefined },
          ),
        }),
        { minLength: 1, maxLength: 8, size: 'max' },
      ),
      // The power goes at this acknowledgement.
      fc.nat(40),
      fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })),
      async (steps, crashAt, chances) => {
        const chance = () => chances.next().value as number
        const disk = new MemoryDisk()
        const log = await open(disk)
        makeSlow(disk, chance)
        const sent = new Set<string>()
        const acknowledged: string[][] = Array.from({ length: partitions }, () => [])
        let crashed: { disk: MemoryDisk; kept: string[][] } | undefined
        let acks = 0
        const send = (size: number): Promise<void> => {
          const name = `${sent.size}/${size}`
          const partition = size % partitions
          sent.add(name)
          return log.append('readings', partition, Buffer.from(`${name}:`.padEnd(size, 'x')), 1, 1).then(
            (offset) => {
              expect(offset, 'in order, without a hole').toBe(acknowledged[partition]!.length)
              acknowledged[partition]!.push(name)
              if (acks++ === crashAt) crashed = { disk: disk.crash(chance), kept: structuredClone(acknowledged) }
            },
            (error) => {
              if (!(error instanceof RetryableError || error instanceof LimitError || error instanceof LogFailedError))
                throw error
            },
          )
        }
        const sending: Promise<void>[] = []
        for (const { sizes, turns, fault } of steps) {
          if (fault) {
            let left = fault.after
            disk.fault = (operation, file) => {
              if (operation !== fault.operation || file.endsWith('end') || left-- > 0) return undefined
              disk.fault = undefined
              throw failure(fault.code, `${operation} of ${file}`)
            }
          }
          sending.push(...sizes.map(send))
          for (let i = 0; i < turns; i++) await new Promise(setImmediate)
          // What is refused meanwhile tells nothing: now and then it is waited for that the log goes on.
          if (chance() < 0.5) {
            await Promise.all(sending)
            await expect.poll(() => log.state().state, { timeout: 20_000 }).toMatch(/ok|failed/)
          }
        }
        disk.fault = undefined
        await Promise.all(sending)
        await expect.poll(() => log.state().state, { timeout: 20_000 }).toMatch(/ok|failed/)
        if (log.state().state === 'ok') expect(await contents(log)).toEqual(acknowledged)
        await log.close()
        for (const [after, kept] of [
          [disk.crash(chance), acknowledged],
          ...(crashed ? [[crashed.disk, crashed.kept] as const] : []),
        ] as const) {
          const again = await open(after)
          const found = await contents(again)
          for (const [partition, names] of kept.entries()) {
            expect(found[partition]!.slice(0, names.length)).toEqual(names)
            for (const name of found[partition]!) expect(sent.has(name), name).toBe(true)
            expect(new Set(found[partition]).size).toBe(found[partition]!.length)
          }
          await again.close()
          expect((await verifyLog(testLogDirectory, { files: after.files })).problems).toEqual([])
        }
      },
    ),
    { numRuns: 40 },
  )
})
