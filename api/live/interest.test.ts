import { describe, expect, it } from 'vitest'
import { createRandom } from '../../tests/helpers/random.ts'
import { everyName } from '../parameters.ts'
import { Channel } from './channel.ts'
import { Interest } from './interest.ts'

/** Wants the series whose number its key has a multiple of. */
function make(multiple: number): Channel {
  return new Channel({ tenant: String(multiple), device: everyName, metric: everyName, mode: 'every' })
}
const multipleOf = ({ subscription }: Channel): number => Number(subscription.tenant)

describe('who wants a series', () => {
  it('is known whatever came and went since it was last heard of', () => {
    const interest = new Interest((channel, id) => id % multipleOf(channel) === 0)
    const open = new Set<Channel>()
    const random = createRandom()
    const below = (end: number): number => random.between(0, end - 1)
    for (let step = 0; step < 20_000; step++) {
      const [some] = [...open].slice(below(open.size + 1))
      if (some && below(2) === 0) {
        open.delete(some)
        interest.remove(some)
        interest.remove(some)
      } else if (open.size < 40) {
        const channel = make(1 + below(5))
        open.add(channel)
        interest.add(channel)
      }
      if (below(500) === 0) {
        for (const each of open) interest.remove(each)
        open.clear()
      }
      const id = below(60)
      expect(new Set(interest.of(id))).toEqual(new Set([...open].filter((each) => id % multipleOf(each) === 0)))
      expect(interest.of(id).length).toBe(new Set(interest.of(id)).size)
    }
  })

  it('is asked of no series while channels come and go, and of those that ended never', () => {
    let asked = 0
    const interest = new Interest((_, id) => {
      asked++
      return id >= 0
    })
    const stays = make(1)
    interest.add(stays)
    for (let id = 0; id < 1_000; id++) expect(interest.of(id)).toEqual([stays])
    expect(asked).toBe(1_000)
    for (let i = 0; i < 3_000; i++) {
      const channel = make(1)
      interest.add(channel)
      interest.remove(channel)
    }
    expect(asked).toBe(1_000)
    for (let id = 0; id < 1_000; id++) expect(interest.of(id)).toEqual([stays])
    expect(asked).toBe(1_000)
  })

  it('does not change in a list that was handed out', () => {
    const interest = new Interest(() => true)
    const [a, b] = [make(1), make(2)]
    interest.add(a)
    interest.add(b)
    const list = interest.of(0)
    interest.remove(a)
    expect(list).toEqual([a, b])
    expect(interest.of(0)).toEqual([b])
  })
})
