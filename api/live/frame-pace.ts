// How often `latest` gets frames: twenty times a second where there is time, less often where handing them out takes too much of it. Devices wait for
// acknowledgements and the table for rows; a screen shows the same in the end.
import { cpus } from 'node:os'

/** `latest` gets at most twenty frames a second. */
export const frameMs = 50
/** The most of the time that handing out frames may take, and how far they are apart at most for it. */
export const atEase = { shareMax: 0.1, frameMsMax: 250 } as const
/** The same where the machine is short of processor. */
export const pressed = { shareMax: 0.02, frameMsMax: 500 } as const
/** Below this part of the machine idle it is short; no longer above the second. */
const pressedBelowIdle = 0.2
const atEaseAboveIdle = 0.35
const lookMs = 1_000

export class FramePace {
  /** Frames so far that were held back for more than the usual distance: viewers had fewer. */
  heldBackCount = 0
  isPressed = false
  private readonly idleShare: () => number
  private lookedAtMs = Number.NEGATIVE_INFINITY
  private nextAtMs = 0

  /** `idleShare`: the part of the machine's processors that was idle since it was asked last. */
  constructor(idleShare: () => number = createIdleShare()) {
    this.idleShare = idleShare
  }

  /** From now until the next frame may go out. */
  waitMs(nowMs: number): number {
    return Math.max(0, this.nextAtMs - nowMs)
  }

  /** A frame was handed out. */
  told(beganAtMs: number, tookMs: number): void {
    if (beganAtMs - this.lookedAtMs >= lookMs) {
      this.lookedAtMs = beganAtMs
      this.isPressed = this.idleShare() < (this.isPressed ? atEaseAboveIdle : pressedBelowIdle)
    }
    const { shareMax, frameMsMax } = this.isPressed ? pressed : atEase
    const distanceMs = Math.min(frameMsMax, Math.max(frameMs, tookMs / shareMax))
    if (distanceMs > frameMs) this.heldBackCount++
    this.nextAtMs = beganAtMs + distanceMs
  }
}

/** 1 where the machine does not say. */
function createIdleShare(): () => number {
  let before = { idle: 0, all: 0 }
  return () => {
    const now = { idle: 0, all: 0 }
    for (const { times } of cpus()) {
      now.idle += times.idle
      now.all += times.user + times.nice + times.sys + times.irq + times.idle
    }
    const all = now.all - before.all
    const share = all > 0 ? (now.idle - before.idle) / all : 1
    before = now
    return share
  }
}
