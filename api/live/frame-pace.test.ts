import { expect, it } from 'vitest'
import { atEase, FramePace, frameMs, pressed } from './frame-pace.ts'

/** Distances of frames of which each takes so long and comes so late. */
function distances(pace: FramePace, count: number, tookMs: number, lateMs: number): number[] {
  let dueAtMs = 0
  return Array.from({ length: count }, () => {
    const beganAtMs = dueAtMs + lateMs
    pace.told(dueAtMs, beganAtMs, tookMs)
    dueAtMs = beganAtMs + pace.waitMs(beganAtMs)
    return dueAtMs - beganAtMs
  })
}

it('frames come twenty times a second where there is time, however late a single one was', () => {
  const pace = new FramePace()
  expect(distances(pace, 20, 4, 1)).toEqual(Array(20).fill(frameMs))
  expect(distances(pace, 1, 4, 3_000)).toEqual([frameMs])
  expect(distances(pace, 20, 4, 1)).toEqual(Array(20).fill(frameMs))
  expect([pace.isPressed, pace.heldBackCount]).toEqual([false, 0])
})

it('handing them out takes a tenth of the time at most', () => {
  const pace = new FramePace()
  expect(distances(pace, 2, 12, 0)).toEqual([120, 120])
  expect(distances(pace, 1, 1_000, 0)).toEqual([atEase.frameMsMax])
  expect(pace.heldBackCount).toBe(3)
})

it('and a fiftieth where they come late as a rule, until they no longer do', () => {
  const pace = new FramePace()
  expect(distances(pace, 10, 4, 15).at(-1)).toBe(200)
  expect(distances(pace, 1, 1_000, 15)).toEqual([pressed.frameMsMax])
  expect(pace.isPressed).toBe(true)
  expect(distances(pace, 10, 4, 1).at(-1)).toBe(frameMs)
  expect(pace.isPressed).toBe(false)
})

it('few viewers, who cost nothing, get theirs also where time is short', () => {
  expect(distances(new FramePace(), 20, 0.5, 20)).toEqual(Array(20).fill(frameMs))
})
