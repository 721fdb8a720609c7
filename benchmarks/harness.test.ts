// The harness decides whether a figure counts: its order of turns, its medians, and what it does with rounds that don't.
import { describe, expect, it } from 'vitest'
import { interleave, type Measurement, Report, type Side, spreadOf } from './harness.ts'
import { expectedSums } from './weir-side.ts'

const quiet = (): Report => new Report('test', true, { test: { ratio: 4 } })

function side(name: string, order: string[], answers: (round: number) => Measurement): Side {
  return {
    name,
    async measure(round) {
      order.push(name)
      return answers(round)
    },
  }
}

describe('interleave', () => {
  it('takes turns A B B A A B', async () => {
    const order: string[] = []
    const fine = () => ({ figures: { rate: 1 } })
    const rounds = await interleave(side('A', order, fine), side('B', order, fine), 3, quiet())
    expect(order.join(' ')).toBe('A B B A A B')
    expect(rounds).toHaveLength(3)
  })

  it('does a void round again and leaves it out', async () => {
    const answers = (round: number): Measurement => ({ figures: { round }, ...(round === 1 ? { void: 'counts' } : {}) })
    const report = quiet()
    const rounds = await interleave(
      side('A', [], answers),
      side('B', [], () => ({ figures: {} })),
      3,
      report,
    )
    expect(rounds.map(({ a }) => a.figures.round)).toEqual([0, 2, 3])
    expect(report.failures).toEqual([])
  })

  it('gives up, and fails, when rounds keep being void', async () => {
    const report = quiet()
    const never = () => ({ figures: {}, void: 'wrong counts' })
    expect(await interleave(side('A', [], never), side('B', [], never), 3, report)).toEqual([])
    expect(report.failures.join()).toContain('wrong counts')
  })
})

describe('figures', () => {
  it('has the median between the two in the middle', () => {
    expect(spreadOf([4, 1, 3, 2])).toEqual({ median: 2.5, min: 1, max: 4, rounds: 4 })
    expect(spreadOf([9, 1, 5])).toEqual({ median: 5, min: 1, max: 9, rounds: 3 })
  })

  it('fails a ratio below its bar, and one without any round', () => {
    const report = quiet()
    report.ratio('ratio', [5, 5, 3], { min: 4 })
    report.ratio('lower is better', [1.5], { max: 2 })
    expect(report.failures).toEqual([])
    expect(report.ratios.ratio).toMatchObject({ median: 5, baseline: 4, met: true })
    report.ratio('ratio', [3.9, 3.8], { min: 4 })
    report.ratio('nothing measured', [], { min: 4 })
    expect(report.failures).toHaveLength(2)
  })
})

describe('expectedSums', () => {
  it('adds up what the messages say, turns of the ring included', () => {
    const setup = {
      host: '',
      port: 0,
      shape: 'pipelined',
      connections: 2,
      window: 1,
      prefix: 'd',
      topic: '',
      firstAt: 1_000,
    } as const
    // Values go 10.00, 10.01, … 19.99 and begin again.
    expect(expectedSums(setup, [3, 1_002])).toEqual({
      rows: 1_005,
      distinct: 1_005,
      min: 10,
      max: 19.99,
      sum: 1000 + 1001 + 1002 + 1_000 * 1000 + (999 * 1000) / 2 + 1000 + 1001,
      instants: 3 + (1_002 * 1_001) / 2,
    })
  })
})
