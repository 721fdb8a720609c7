// The ring against a plain list: whatever is pushed, answered and taken, acknowledgements come in order and the credit adds up.
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AckRing, AckSlab, ackKinds } from './mqtt-acks.ts'

type Step =
  | { do: 'publish'; qos: 0 | 1 | 2; id: number; bytes: number }
  | { do: 'pass'; id: number; bytes: number }
  | { do: 'answer'; id: number }
  | { do: 'durable'; by: number }

interface Expected {
  kind: number
  id: number
  cycle: number
  bytes: number
  passed?: boolean
}

const id = fc.integer({ min: 1, max: 65_535 })
const bytes = fc.integer({ min: 1, max: 1_000 })
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('publish' as const), qos: fc.constantFrom(0, 1, 2), id, bytes }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), id: fc.integer({ min: 1, max: 9 }), bytes }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('answer' as const), id: fc.integer({ min: 1, max: 9 }) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('durable' as const), by: fc.integer({ min: 0, max: 2 }) }) },
)

describe('AckRing', () => {
  it('does what a list does', () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const ring = new AckRing()
        const slab = new AckSlab()
        let list: Expected[] = []
        let cycle = 1
        for (const each of steps) {
          if (each.do === 'publish') {
            const kind = [ackKinds.none, ackKinds.puback, ackKinds.pubrec][each.qos]!
            const packetId = each.qos === 0 ? 0 : each.id
            ring.push(kind, packetId, cycle, each.bytes)
            list.push({ kind, id: packetId, cycle, bytes: each.bytes })
          } else if (each.do === 'pass') {
            ring.pushPassed(ackKinds.puback, each.id, each.bytes)
            list.push({
              kind: ackKinds.puback,
              id: each.id,
              cycle: Number.POSITIVE_INFINITY,
              bytes: each.bytes,
              passed: true,
            })
          } else if (each.do === 'answer') {
            const waiting = list.find((entry) => entry.passed && entry.id === each.id && entry.cycle > 0)
            if (waiting) waiting.cycle = 0
            expect(ring.answered(ackKinds.puback, each.id)).toBe(waiting !== undefined)
          } else {
            const durable = cycle + each.by - 1
            const stop = list.findIndex((entry) => entry.cycle > durable)
            const taken = stop < 0 ? list : list.slice(0, stop)
            list = stop < 0 ? [] : list.slice(stop)
            expect(ring.ready(durable)).toBe(taken.length > 0)
            const acks = taken.filter(({ kind }) => kind !== ackKinds.none)
            const wanted = acks.flatMap((entry) => [entry.kind, 2, entry.id >> 8, entry.id & 255])
            expect([...(slab.take(ring, durable) ?? [])]).toEqual(wanted)
            cycle += each.by
          }
          expect(ring.bytes).toBe(list.reduce((sum, entry) => sum + entry.bytes, 0))
          expect(ring.publishes).toBe(list.filter(({ kind }) => kind !== ackKinds.none).length)
          expect(ring.empty).toBe(list.length === 0)
        }
      }),
    )
  })

  it('keeps what was handed out: a later flush does not write over it', () => {
    const ring = new AckRing()
    const slab = new AckSlab()
    const taken: Buffer[] = []
    for (let n = 0; n < 400; n++) {
      for (let i = 0; i < 100; i++) ring.push(ackKinds.puback, n + 1, n, 10)
      taken.push(slab.take(ring, n)!)
    }
    taken.forEach((acks, n) => {
      expect(acks.length).toBe(400)
      for (let i = 0; i < 100; i++) expect(acks.readUInt16BE(4 * i + 2)).toBe(n + 1)
    })
  })
})
