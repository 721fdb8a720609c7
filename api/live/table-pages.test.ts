// Who may ask the table how much at once, with a table that answers when the test says so.
import { describe, expect, it } from 'vitest'
import { RetryableError } from '../../runtime/errors.ts'
import { everyName } from '../parameters.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { HistoryCursor } from './history.ts'
import { type AskHistory, pageRows, pagesMax, pieceRows, TablePages } from './table-pages.ts'

const subscription = { tenant: 'default', device: everyName, metric: everyName, mode: 'every' } as const
const seam = { place: new Map(), receivedBefore: [Number.MAX_SAFE_INTEGER] }
const from: HistoryCursor = { by: 'observed', since: 0, after: undefined, seam }
const received: HistoryCursor = { by: 'received', from: undefined, past: [0], after: undefined, seam }
const staying = new AbortController().signal

interface Asked {
  readonly after: { readonly observedAt: number } | undefined
  readonly limit: number
}

function row(observedMicros: number): ReadingRow {
  return { device: 'd', metric: 'v', observedMicros, receivedMicros: observedMicros, value: 1, text: '' }
}

/** A table of so many rows, observed at 0, 1, 2 …; the pages that were asked of it. */
function tableOf(count: number) {
  const asked: { first: number; limit: number }[] = []
  const page = async (first: number, limit: number) => {
    asked.push({ first, limit })
    return Array.from({ length: Math.max(0, Math.min(limit, count - first)) }, (_, i) => row(first + i))
  }
  const history = ({ after, limit }: Asked) => page((after?.observedAt ?? -1) + 1, limit)
  return { asked, history, received: history }
}

describe('viewers that ask the table', () => {
  it('are asked for a few pages at once, over all of them, in turn; who has gone is passed over', async () => {
    const open: { viewer: number; answer: (rows: ReadingRow[]) => void; signal: AbortSignal }[] = []
    const order: number[] = []
    const history: AskHistory = ({ from: viewer }, signal) => {
      order.push(viewer)
      return new Promise((answer) => open.push({ viewer, answer, signal }))
    }
    const pages = new TablePages({
      log: { hasManyAppenders: false },
      history,
      received: () => Promise.reject(),
      patienceMs: 0,
    })
    const gone = Array.from({ length: 300 }, () => new AbortController())
    const ended: number[] = []
    const viewers = gone.map(async ({ signal }, viewer) => {
      try {
        for await (const _ of pages.pieces(subscription, { ...from, since: viewer }, signal)) await Promise.resolve()
      } catch {
        expect(signal.aborted).toBe(true)
      }
      ended.push(viewer)
    })
    await expect.poll(() => open.length).toBe(pagesMax)
    // Of those that wait, half go away: nobody is asked for them.
    for (let viewer = pagesMax; viewer < 300; viewer += 2) gone[viewer]!.abort()
    await expect.poll(() => ended.length).toBe(Math.ceil((300 - pagesMax) / 2))
    // The first viewer's page is full, so it comes again, behind all others.
    const full = Array.from({ length: pageRows.observed }, (_, i) => row(i))
    let most = 0
    while (ended.length < 300) {
      most = Math.max(most, open.length)
      const { viewer, answer, signal } = open.shift()!
      expect(signal).toBe(gone[viewer]!.signal)
      answer(viewer === 0 && order.length <= pagesMax ? full : [])
      await expect.poll(() => open.length > 0 || ended.length === 300, { interval: 1 }).toBe(true)
    }
    await Promise.all(viewers)
    expect(most).toBeLessThanOrEqual(pagesMax)
    const stayed = Array.from({ length: 300 }, (_, viewer) => viewer).filter((viewer) => !gone[viewer]!.signal.aborted)
    expect(order).toEqual([...stayed, 0])
  })

  it.each([from, received])(
    'are given every row once, in order, however slowly they take them: by $by',
    async (start) => {
      const count = pageRows[start.by] + pieceRows + 7
      const table = tableOf(count)
      const pages = new TablePages({ log: { hasManyAppenders: false }, ...table, patienceMs: 0 })
      const told: number[] = []
      let pieces = 0
      for await (const piece of pages.pieces(subscription, start, staying)) {
        expect(piece.length).toBeLessThanOrEqual(pieceRows)
        told.push(...piece.map(({ observedMicros }) => observedMicros))
        // Slow at the first: the rest of its page is not kept for it.
        if (++pieces === 1) await expect.poll(() => piece.length).toBe(pieceRows)
        if (pieces === 1) await new Promise((go) => setTimeout(go, 300))
      }
      expect(told).toEqual(Array.from({ length: count }, (_, i) => i))
      expect(table.asked.slice(0, 3)).toEqual([
        { first: 0, limit: pageRows[start.by] },
        { first: pieceRows, limit: pieceRows },
        { first: 2 * pieceRows, limit: pageRows[start.by] },
      ])
    },
  )

  it('wait for a table that is away from when it is found away, however long they waited for their turn', async () => {
    let isAway = true
    let asked = 0
    const history = async () => {
      asked++
      if (isAway) throw new RetryableError('away')
      return []
    }
    const pages = new TablePages({ log: { hasManyAppenders: false }, history, received: history, patienceMs: 60_000 })
    const done = (async () => {
      for await (const _ of pages.pieces(subscription, from, staying)) expect.unreachable()
    })()
    await expect.poll(() => asked).toBeGreaterThan(1)
    isAway = false
    await done
    isAway = true
    const impatient = new TablePages({ log: { hasManyAppenders: false }, history, received: history, patienceMs: 0 })
    await expect(impatient.pieces(subscription, from, staying).next()).rejects.toThrow('away')
  })
})
