// What channels of `latest` are sent: now and then the newest value of each series that changed, and revisions of what is older. All of them at once,
// so that a frame is made once and its cursor is the hub's place.
import type { Logger } from '../../runtime/logger.ts'
import type { ItemMaker } from './channel.ts'
import { type Channels, wantsEvery } from './channels.ts'
import { encodeCursor, type LiveCursor } from './cursor.ts'
import type { LiveItem } from './frame.ts'
import { FramePace, frameMs } from './frame-pace.ts'
import type { LastValues } from './last-values.ts'

export interface LatestFramesOptions {
  readonly lastValues: LastValues
  readonly items: ItemMaker
  readonly channels: Channels
  readonly logger: Logger
  /** The hub's place. */
  readonly place: () => LiveCursor
  /** A frame has gone out: who stands where it ends may join. */
  readonly onTold: () => void
}

/** Revisions a frame, the rest with the next one: a device that sends a day late is not everybody's flood. */
const revisionsPerFrameMax = 200

export class LatestFrames {
  private readonly options: LatestFramesOptions
  /** Until when it waits for what the table knows. */
  private wholeUntilMs = 0
  private timer: NodeJS.Timeout | undefined
  private readonly pace = new FramePace()
  /** Where the last whole frame ended. */
  private toldUpTo = ''

  constructor(options: LatestFramesOptions) {
    this.options = options
  }

  /** The feed has a place; for so long a frame may wait for what the table knows. */
  begin(patienceMs: number): void {
    this.wholeUntilMs = performance.now() + patienceMs
  }

  /** The last values gather what changed while somebody wants it. */
  collect(isWanted: boolean): void {
    const { lastValues, place } = this.options
    this.toldUpTo = encodeCursor(place())
    lastValues.collectChanged = isWanted
    lastValues.takeChanged()
    lastValues.late.clear()
  }

  /** What the hub has taken in waits for a frame. */
  get isDue(): boolean {
    return this.timer !== undefined
  }

  /** Frames that were held back because time was short. */
  get heldBackCount(): number {
    return this.pace.heldBackCount
  }

  schedule(): void {
    if (this.timer !== undefined) return
    this.wait(this.pace.waitMs(performance.now()))
  }

  stop(): void {
    clearTimeout(this.timer)
  }

  private wait(ms: number): void {
    this.timer = setTimeout(() => this.send(), ms)
  }

  private send(): void {
    this.timer = undefined
    const { lastValues, channels, logger } = this.options
    if (!lastValues.isWhole && performance.now() < this.wholeUntilMs) {
      // What looks like the newest of a series may not be: nobody is told of an older one than the table has.
      this.wait(frameMs)
      return
    }
    const beganMs = performance.now()
    try {
      this.tell()
    } catch (error) {
      logger.error({ error }, 'the newest values could not be sent to viewers; those who wait for them are let go')
      this.dismiss()
    }
    this.pace.told(beganMs, performance.now() - beganMs)
    if (lastValues.late.size > 0 && channels.latestCount > 0) this.schedule()
  }

  /** They may have been told a part of a frame: they come back with the cursors that they have. */
  private dismiss(): void {
    const { channels, logger } = this.options
    for (const channel of [...channels]) {
      if (wantsEvery(channel)) continue
      for (const viewer of [...channel.viewers]) {
        try {
          viewer.bye('failed')
        } catch (error) {
          logger.error({ error }, 'a live viewer could not be let go')
        }
      }
    }
  }

  private tell(): void {
    const { lastValues, items, channels, place, onTold } = this.options
    this.addRevisions()
    for (const id of lastValues.takeChanged()) {
      let item: LiveItem | undefined
      for (const channel of channels.of(id)) {
        if (wantsEvery(channel)) continue
        item ??= items.last(id)
        channel.add(item)
        // More is to come at this place in the log: who resumes from this frame begins where the one before ended.
        if (channel.isFull) channel.flush(this.toldUpTo, this.toldUpTo)
      }
    }
    const before = this.toldUpTo
    const hasMore = lastValues.late.size > 0
    // What is left for the next frame lies before the hub's place.
    const cursor = hasMore ? before : encodeCursor(place())
    this.toldUpTo = cursor
    for (const channel of channels) {
      if (!wantsEvery(channel)) channel.flush(before, cursor)
    }
    onTold()
  }

  private addRevisions(): void {
    const { lastValues, items, channels } = this.options
    const { late } = lastValues
    let count = 0
    for (const [id, readings] of late) {
      if (count++ >= revisionsPerFrameMax) return
      late.delete(id)
      const wanting = channels.of(id).filter((channel) => !wantsEvery(channel))
      if (wanting.length === 0) continue
      const revised = items.revised(id, readings)
      for (const channel of wanting) channel.addRevision(revised)
    }
  }
}
