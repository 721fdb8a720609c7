import { expect, it } from 'vitest'
import { createInstruments } from '../runtime/instruments.ts'
import { limitsHit } from './limits-hit.ts'

it('what live holds back for want of time stands among the limits that were hit, once it happened', async () => {
  const instruments = createInstruments('test')
  let heldBack = 0
  instruments.gauge('weir_live_frames_held_back', 'Frames', () => heldBack)
  instruments.gauge('weir_live_slow', 'Viewers', () => 2)
  const limits = async () =>
    limitsHit([{ process: 'serve', at: 0, parts: {}, instruments: await instruments.snapshot() }])
  const slow = { kind: 'viewer-closed', cause: 'slow', count: 2 }
  expect(await limits()).toEqual([slow])
  heldBack = 7
  expect(await limits()).toEqual([{ kind: 'frame-held-back', cause: 'busy', count: 7 }, slow])
})
