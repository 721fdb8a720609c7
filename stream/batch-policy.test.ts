import { describe, expect, it } from 'vitest'
import type { Chunk } from '../domain/event-log.ts'
import { Gathering, oldestReceivedAt } from './batch-policy.ts'

const limits = { rowsMin: 100, bytesMin: 1_000, ageMsMax: 250, rowsMax: 300, bytesMax: 4_000 }

function chunk(count: number, bytes: number, offset = 0, receivedAt = 0): Chunk {
  return { topic: 'readings', partition: 0, offset, count, receivedAt, rows: new Uint8Array(bytes) }
}

describe('Gathering', () => {
  it('is never due while it is empty', () => {
    expect(new Gathering(limits).dueInMs(1e9)).toBe(Number.POSITIVE_INFINITY)
  })

  it.each([
    ['rows', chunk(100, 1)],
    ['bytes', chunk(1, 1_000)],
  ])('is due at once with enough %s', (_, enough) => {
    const gathering = new Gathering(limits)
    gathering.add([enough], 0)
    expect(gathering.dueInMs(0)).toBe(0)
  })

  it('is due when its first chunk has waited long enough, however many came after', () => {
    const gathering = new Gathering(limits)
    gathering.add([chunk(1, 1)], 1_000)
    expect(gathering.dueInMs(1_000)).toBe(250)
    gathering.add([chunk(1, 1)], 1_200)
    expect(gathering.dueInMs(1_200)).toBe(50)
    expect(gathering.dueInMs(1_250)).toBe(0)
    expect(gathering.dueInMs(9_999)).toBe(0)
  })

  it('gives everything in order, and begins anew', () => {
    const gathering = new Gathering(limits)
    gathering.add([chunk(1, 10, 0), chunk(2, 20, 1)], 0)
    gathering.add([chunk(3, 30, 2)], 100)
    const taken = gathering.take()
    expect(taken).toMatchObject({ rows: 6, bytes: 60 })
    expect(taken.chunks.map(({ offset }) => offset)).toEqual([0, 1, 2])
    expect(gathering.dueInMs(500)).toBe(Number.POSITIVE_INFINITY)
    gathering.add([chunk(1, 1)], 600)
    expect(gathering.dueInMs(600)).toBe(250)
  })

  it('stops reading at its bound of bytes, and of rows', () => {
    const gathering = new Gathering(limits)
    expect(gathering.bytesFree()).toBe(4_000)
    gathering.add([chunk(1, 3_900)], 0)
    expect(gathering.bytesFree()).toBe(100)
    gathering.add([chunk(1, 500)], 0)
    expect(gathering.bytesFree()).toBe(0)
    gathering.take()
    gathering.add([chunk(300, 10)], 0)
    expect(gathering.bytesFree()).toBe(0)
  })

  it('knows the oldest receivedAt over partitions', () => {
    expect(oldestReceivedAt([])).toBeUndefined()
    expect(oldestReceivedAt([chunk(1, 1, 0, 30), chunk(1, 1, 0, 20), chunk(1, 1, 0, 40)])).toBe(20)
  })
})
