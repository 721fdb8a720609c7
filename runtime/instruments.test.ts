// Counters that are there before they count.
import { expect, it } from 'vitest'
import { createInstruments, renderInstruments } from './instruments.ts'

const textOf = async (instruments: ReturnType<typeof createInstruments>): Promise<string> =>
  renderInstruments([await instruments.snapshot()])

it('a counter whose label values are known has all of them, at 0, from the first look on', async () => {
  const instruments = createInstruments('ingest')
  const closed = instruments.counter('weir_test_closed_total', 'Closed', { cause: ['size', 'order'] })
  expect(await textOf(instruments)).toContain(
    'weir_test_closed_total{cause="size",process="ingest"} 0\nweir_test_closed_total{cause="order",process="ingest"} 0\n',
  )
  closed.inc({ cause: 'order' })
  expect(await textOf(instruments)).toContain(
    'weir_test_closed_total{cause="size",process="ingest"} 0\nweir_test_closed_total{cause="order",process="ingest"} 1\n',
  )
})

it('of several labels every combination begins at 0', async () => {
  const instruments = createInstruments('serve')
  instruments.counter('weir_test_retries_total', 'Retries', { group: ['writer'], topic: ['a', 'b'] })
  const text = await textOf(instruments)
  expect(text.match(/^weir_test_retries_total.*$/gm)).toEqual([
    'weir_test_retries_total{group="writer",topic="a",process="serve"} 0',
    'weir_test_retries_total{group="writer",topic="b",process="serve"} 0',
  ])
})

it('one whose label values are an open set has none before the first event', async () => {
  const instruments = createInstruments('ingest')
  const refused = instruments.counter('weir_test_refused_total', 'Refused', ['cause'])
  expect(await textOf(instruments)).not.toMatch(/^weir_test_refused_total\{/m)
  refused.inc({ cause: 'wrong-token' })
  expect(await textOf(instruments)).toContain('weir_test_refused_total{cause="wrong-token",process="ingest"} 1')
})

it('asked for twice it goes on counting, and has the values of both', async () => {
  const instruments = createInstruments('serve')
  instruments.counter('weir_test_retries_total', 'Retries', { topic: ['a'] }).inc({ topic: 'a' }, 2)
  instruments.counter('weir_test_retries_total', 'Retries', { topic: ['a', 'b'] }).inc({ topic: 'a' })
  const text = await textOf(instruments)
  expect(text.match(/^weir_test_retries_total.*$/gm)).toEqual([
    'weir_test_retries_total{topic="a",process="serve"} 3',
    'weir_test_retries_total{topic="b",process="serve"} 0',
  ])
})
