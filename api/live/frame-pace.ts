// How often `latest` gets frames: twenty times a second where there is time, less often where handing them out takes too much of it. Devices wait for
// acknowledgements and the table for rows; a screen shows the same in the end.

/** `latest` gets at most twenty frames a second. */
export const frameMs = 50
/** The most of the time that handing out frames may take, and how far they are apart at most for it. */
export const atEase = { shareMax: 0.1, frameMsMax: 250 } as const
/** The same where the processor is short. */
export const pressed = { shareMax: 0.02, frameMsMax: 500 } as const
/** A frame that comes so late after it was due, as a rule, says that the processor is short; and no longer below the second. */
const pressedAboveMs = 8
const atEaseBelowMs = 4
/** One pause, however long, is no rule. */
const lateMsCounted = 20
/** Of each new lateness in the mean. */
const lateWeight = 0.25

export class FramePace {
  /** Frames so far that were held back for more than the usual distance: viewers had fewer. */
  heldBackCount = 0
  isPressed = false
  private lateMs = 0
  private nextAtMs = 0

  /** From now until the next frame may go out. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.nextAtMs - nowMs)
  }

  /** A frame was handed out: when it was due, when it began, and how long it took. */
  told(dueAtMs: number, beganAtMs: number, tookMs: number): void {
    const lateMs = Math.min(lateMsCounted, Math.max(0, beganAtMs - dueAtMs))
    this.lateMs += (lateMs - this.lateMs) * lateWeight
    this.isPressed = this.lateMs > (this.isPressed ? atEaseBelowMs : pressedAboveMs)
    const { shareMax, frameMsMax } = this.isPressed ? pressed : atEase
    const distanceMs = Math.min(frameMsMax, Math.max(frameMs, tookMs / shareMax))
    if (distanceMs > frameMs) this.heldBackCount++
    this.nextAtMs = beganAtMs + distanceMs
  }
}
