// What channels of `every` are sent: each reading once, in the order of the log, and a revision in its place where it is not the newest of its series.
import type { Chunk } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { RowCursor } from '../../domain/row-format.ts'
import type { Channel, ItemMaker } from './channel.ts'
import { type Channels, wantsEvery } from './channels.ts'
import { cursorAfter, cursorWithin, encodeCursor, type LiveCursor } from './cursor.ts'
import { LiveFrame, type LiveItem } from './frame.ts'
import type { LastValues } from './last-values.ts'
import { NewestSentTable } from './newest-sent.ts'
import type { NewestSent } from './own-frames.ts'
import { noSeries } from './series-directory.ts'

export interface EveryFramesOptions {
  readonly lastValues: LastValues
  readonly items: ItemMaker
  readonly channels: Channels
}

/** Where in the log a reading stands. */
interface Place {
  readonly chunk: Chunk
  /** Of the chunk, up to this one. */
  readonly rows: number
  readonly before: LiveCursor
  readonly id: number
  readonly observedAt: Micros
  readonly receivedAt: Micros
  readonly value: number | string
}

export class EveryFrames {
  private readonly lastValues: LastValues
  private readonly items: ItemMaker
  private readonly channels: Channels
  private readonly newestSent = new NewestSentTable()
  /** One of the viewers came back: what of a series it was sent before is what was known then. */
  private hasResumed = false

  constructor({ lastValues, items, channels }: EveryFramesOptions) {
    this.lastValues = lastValues
    this.items = items
    this.channels = channels
  }

  /** A viewer joins that was sent these. */
  learn(newest: ReadonlyMap<number, NewestSent>, hasResumed: boolean): void {
    for (const [id, { observedAt, value }] of newest) this.newestSent.note(id, observedAt, value)
    if (hasResumed) this.hasResumed = true
  }

  /** When nobody looks any more. */
  forget(): void {
    this.newestSent.forget()
    this.hasResumed = false
  }

  /** Hands the readings of these chunks, which follow `cursor`, to the channels that want them. */
  add(chunks: readonly Chunk[], cursor: LiveCursor): void {
    const { newestSent, channels } = this
    let before = cursor
    for (const chunk of chunks) {
      const row = new RowCursor(chunk.rows)
      let rows = 0
      let id = noSeries
      while (row.next()) {
        rows++
        if (!row.isSameSeries) id = this.lastValues.identify(chunk.rows, row)
        // Asked for at each row: a viewer that is let go on the way may take its channel with it.
        if (id === noSeries || !channels.of(id).some(wantsEvery)) continue
        const { observedAt, receivedAt } = row
        const value = row.said()
        if (this.hasResumed && !newestSent.knows(id)) this.recallNewest(id, receivedAt)
        const item = this.items.make(id, observedAt, value)
        for (const channel of channels.of(id)) {
          if (!wantsEvery(channel)) continue
          if (newestSent.isNewest(id, observedAt, value)) channel.add(item)
          else this.sendRevision(channel, item, { chunk, rows, before, id, observedAt, receivedAt, value })
        }
        newestSent.note(id, observedAt, value)
      }
      before = cursorAfter([chunk], before)
      for (const channel of channels) if (channel.isFull) channel.flush('', encodeCursor(before))
    }
  }

  flush(cursor: LiveCursor): void {
    const encoded = encodeCursor(cursor)
    for (const channel of this.channels) if (wantsEvery(channel)) channel.flush('', encoded)
  }

  /** What was received before this row, a viewer that came back was sent. */
  private recallNewest(id: number, receivedBefore: number): void {
    const { lastValues, newestSent } = this
    if (!lastValues.hasValue(id) || lastValues.receivedAtOf(id) >= receivedBefore) return
    const { observedAt, value } = lastValues.last(id)
    newestSent.note(id, observedAt, value)
  }

  /** Frames stay in the order of the log: what came before it in the chunk goes out first, each with the cursor just past it. */
  private sendRevision(channel: Channel, item: LiveItem, place: Place): void {
    const { chunk, rows, before, id, observedAt, receivedAt, value } = place
    // Within a partition each row is received after the one before it.
    if (!channel.isEmpty) channel.flush('', encodeCursor(cursorWithin(chunk, rows - 1, before, receivedAt - 1)))
    const { from, to } = this.items.revised(id, { observedAt, value, from: observedAt, to: observedAt })
    channel.send(LiveFrame.revision(encodeCursor(cursorWithin(chunk, rows, before, receivedAt)), { item, from, to }))
  }
}
