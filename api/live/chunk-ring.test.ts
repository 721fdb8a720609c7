import { describe, expect, it } from 'vitest'
import type { Chunk } from '../../domain/event-log.ts'
import { createRandom } from '../../tests/helpers/random.ts'
import { ChunkRing } from './chunk-ring.ts'

const bytesMax = 100_000
const chunksMax = 200

function chunk(partition: number, offset: number, bytes: number): Chunk {
  return { topic: 'readings', partition, offset, count: 1, receivedAt: 1, rows: Buffer.alloc(bytes) }
}

/** What the ring holds, from the first that it still has. */
function held(ring: ChunkRing, from: number): Chunk[] {
  const chunks: Chunk[] = []
  for (let number = from; ; number++) {
    const next = ring.at(number)
    if (next === undefined) return chunks
    if (next !== 'gone') chunks.push(next)
  }
}

describe('the ring of newest chunks', () => {
  it('holds no more than it may, whatever comes, and says from where on it has all', () => {
    const random = createRandom()
    const ring = new ChunkRing(bytesMax, chunksMax)
    const next = [5, 0, 9]
    ring.startAt(new Map(next.map((offset, partition) => [partition, offset])))
    const start = ring.reach(new Map(next.map((offset, partition) => [partition, offset])))!
    for (let round = 0; round < 3_000; round++) {
      // Now many small ones, now a few large ones, now one that is larger than the ring.
      const largest = random.between(0, 50) === 0 ? 2 * bytesMax : random.between(0, 1) === 0 ? 20 : 9_000
      const some = Array.from({ length: random.between(1, 40) }, () => {
        const partition = random.between(0, 2)
        return chunk(partition, next[partition]!++, random.between(1, largest))
      })
      ring.push(some)
      const first = ring.reach(new Map(next.map((offset, partition) => [partition, offset])))!
      const chunks = held(ring, first)
      const bytes = chunks.reduce((sum, { rows }) => sum + rows.length, 0)
      expect(ring.bytes).toBe(bytes)
      expect(bytes).toBeLessThanOrEqual(bytesMax)
      expect(chunks.length).toBeLessThanOrEqual(chunksMax)
      // All that came after the first of each partition is there, to the last.
      const beginning = next.map((end, partition) => {
        const own = chunks.filter((each) => each.partition === partition).map(({ offset }) => offset)
        expect(own).toEqual(Array.from({ length: own.length }, (_, i) => end - own.length + i))
        return end - own.length
      })
      expect(ring.reach(new Map(beginning.map((offset, partition) => [partition, offset])))).toBe(first)
      const lost = beginning.findIndex((offset, partition) => offset > [5, 0, 9][partition]!)
      if (lost < 0) continue
      const before = new Map(
        beginning.map((offset, partition) => [partition, partition === lost ? offset - 1 : offset]),
      )
      expect(ring.reach(before)).toBeUndefined()
      expect(ring.at(start)).toBe('gone')
    }
    expect(ring.at(start)).toBe('gone')
  })

  it('begins anew where its feed does', () => {
    const ring = new ChunkRing(bytesMax, chunksMax)
    ring.startAt(new Map([[0, 0]]))
    ring.push([chunk(0, 0, 10), chunk(0, 1, 10)])
    const old = ring.reach(new Map([[0, 0]]))!
    ring.startAt(new Map([[0, 7]]))
    expect([ring.bytes, ring.at(old), ring.reach(new Map([[0, 2]]))]).toEqual([0, 'gone', undefined])
    ring.push([chunk(0, 7, 10)])
    expect(held(ring, ring.reach(new Map([[0, 7]]))!).map(({ offset }) => offset)).toEqual([7])
  })
})
