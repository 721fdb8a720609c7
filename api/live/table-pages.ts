// The table, for viewers that catch up: a page at a time, a few pages at once over all viewers, first come first served, so that a thousand who ask for
// years leave room for everybody else's questions. A viewer that takes its time holds a piece of a page, not the page: the rest is asked for again.
import { setTimeout as wait } from 'node:timers/promises'
import type { EventLog } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RetryableError } from '../../runtime/errors.ts'
import { Lane } from '../../storage/embedded-server/lane.ts'
import { isWithoutTables } from '../queries/question.ts'
import type { ReadingKey, ReadingRow } from '../queries/readings.ts'
import type { ReceivedKey } from '../queries/received-readings.ts'
import type { Subscription } from './channel.ts'
import { clockDifferenceMax, type HistoryCursor, past } from './history.ts'

/** A page of the table's readings, by observedAt, device and metric. */
export type AskHistory = (
  question: Subscription & { readonly from: Micros; readonly after: ReadingKey | undefined; readonly limit: number },
  signal: AbortSignal,
) => Promise<readonly ReadingRow[]>

/** A page of the table's readings that were received after an instant, by receivedAt. */
export type AskReceived = (
  question: Subscription & { readonly past: Micros; readonly after: ReceivedKey | undefined; readonly limit: number },
  signal: AbortSignal,
) => Promise<readonly ReadingRow[]>

export interface TablePagesOptions {
  readonly log: Pick<EventLog, 'hasManyAppenders'>
  readonly history: AskHistory
  readonly received: AskReceived
  /** How long the table may be away. */
  readonly patienceMs: number
}

/** How long the table may be away before what it would have given is declared a gap. */
export const patienceMsDefault = 10_000
/** Below what the embedded store does at once (4): a question of anybody else finds a place. */
export const pagesMax = 3
/** Pages by receivedAt cost a look at all of a series each. */
export const pageRows = { observed: 2_000, received: 20_000 } as const
/** What is handed out at once. */
export const pieceRows = 500
/** A viewer that has not taken a piece after so long is asked for the rest of the page later. */
export const slowMs = 100
const retryMs = 250

export class TablePages {
  private readonly options: TablePagesOptions
  private readonly lane = new Lane('pages of history', pagesMax, Number.POSITIVE_INFINITY)

  constructor(options: TablePagesOptions) {
    this.options = options
  }

  /** All rows behind the cursor, in order, to the end of the table. Throws what the store does, once it was away for longer than patience lasts. */
  async *pieces(
    subscription: Subscription,
    from: HistoryCursor,
    gone: AbortSignal,
  ): AsyncGenerator<readonly ReadingRow[]> {
    const { patienceMs } = this.options
    let cursor = from
    let isSlow = false
    for (;;) {
      const limit = isSlow ? pieceRows : pageRows[from.by]
      let rows = await patiently(gone, patienceMs, () => this.page(subscription, cursor, limit, gone))
      let isEnd = rows.length < limit
      let timer: NodeJS.Timeout | undefined
      const letGo = (): void => {
        isSlow = true
        if (rows.length > 0) isEnd = false
        rows = []
      }
      isSlow = false
      while (rows.length > 0) {
        const piece = rows.slice(0, pieceRows)
        rows = rows.slice(piece.length)
        cursor = past(cursor, piece.at(-1)!)
        timer = setTimeout(letGo, slowMs)
        try {
          yield piece
        } finally {
          clearTimeout(timer)
        }
      }
      if (isEnd || gone.aborted) return
    }
  }

  private async page(
    subscription: Subscription,
    cursor: HistoryCursor,
    limit: number,
    gone: AbortSignal,
  ): Promise<readonly ReadingRow[]> {
    const { history, received, log } = this.options
    // What one process received before the cursor may lie behind it in the log, where another's clock was ahead.
    const slack = log.hasManyAppenders ? clockDifferenceMax : 0
    const leave = await this.lane.enter(gone)
    try {
      if (cursor.by === 'observed')
        return await history({ ...subscription, from: cursor.since, after: cursor.after, limit }, gone)
      const past = Math.max(0, Math.min(...cursor.past) - slack)
      return await received({ ...subscription, past, after: cursor.after, limit }, gone)
    } finally {
      leave()
    }
  }
}

/** A store that is started again is there within seconds: asks until it is, or was away for longer than patience lasts. */
export async function patiently<Answer>(
  gone: AbortSignal,
  patienceMs: number,
  ask: () => Promise<Answer>,
): Promise<Answer> {
  // From when it was first found away: waiting for a turn is no sign of it.
  let until: number | undefined
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      const passes = error instanceof RetryableError || isWithoutTables(error)
      until ??= performance.now() + patienceMs
      if (gone.aborted || !passes || performance.now() >= until) throw error
      await wait(retryMs, undefined, { signal: gone }).catch(() => {})
    }
  }
}
