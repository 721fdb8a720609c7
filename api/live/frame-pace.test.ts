import { expect, it } from 'vitest'
import { atEase, FramePace, frameMs, pressed } from './frame-pace.ts'

/** Distances of frames of which each takes so long. */
function distances(pace: FramePace, count: number, tookMs: number): number[] {
  return Array.from({ length: count }, () => {
    nowMs += 10_000
    const beganAtMs = nowMs
    pace.told(beganAtMs, tookMs)
    return pace.waitMs(beganAtMs)
  })
}
let nowMs = 0

it('frames come twenty times a second where there is time', () => {
  const pace = new FramePace(() => 0.5)
  expect(distances(pace, 5, 4)).toEqual(Array(5).fill(frameMs))
  expect([pace.isPressed, pace.heldBackCount]).toEqual([false, 0])
})

it('handing them out takes a tenth of the time at most', () => {
  const pace = new FramePace(() => 0.5)
  expect(distances(pace, 2, 12)).toEqual([120, 120])
  expect(distances(pace, 1, 1_000)).toEqual([atEase.frameMsMax])
  expect(pace.heldBackCount).toBe(3)
})

it('and a fiftieth while the machine has little idle, until there is enough again', () => {
  let idle = 0.02
  const pace = new FramePace(() => idle)
  expect(distances(pace, 2, 4)).toEqual([200, 200])
  expect(distances(pace, 1, 1_000)).toEqual([pressed.frameMsMax])
  idle = 0.3
  expect(distances(pace, 1, 4)).toEqual([200])
  idle = 0.4
  expect(distances(pace, 1, 4)).toEqual([frameMs])
})

it('few viewers, who cost nothing, get theirs also where the machine is short', () => {
  expect(distances(new FramePace(() => 0), 5, 0.5)).toEqual(Array(5).fill(frameMs))
})

it('what the machine says is a part of it', () => {
  const pace = new FramePace()
  expect(distances(pace, 3, 0)).toEqual([frameMs, frameMs, frameMs])
})
