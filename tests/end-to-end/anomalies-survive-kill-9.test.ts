// Whatever is killed, what is found is what the detector finds in the same readings undisturbed: the same ids, the same scores, each once.
import { expect, it } from 'vitest'
import type { AnomaliesAnswer, AnomalyAnswer } from '../../api/wire.ts'
import { createDetector } from '../../stream/detectors/index.ts'
import { createSlab } from '../../stream/detectors/layout.ts'
import { ask, counterOf } from '../helpers/ask.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const scoreMin = 0.01
const devices = 5
const messagesMin = 2_000
const firstAt = 1_700_000_000_000
const stepMs = 300_000
const env = { WEIR_DETECTOR_SCORE_MIN: String(scoreMin), WEIR_DETECTOR_TIER: '2' }

/** A rhythm with noise, and now and then something that grows. */
const valueAt = (device: number, index: number): number => {
  const usual = 20 + 5 * Math.sin(index / 40 + device) + ((index * 7_919 + device * 104_729) % 1_003) / 1_000
  return (index * 31 + device * 17) % 211 === 0 ? usual * (2 + index / 1_000) : usual
}

/** By device and instant: the score. */
function undisturbed(sent: readonly number[]): Map<string, number> {
  const detector = createDetector(2)
  const found = new Map<string, number>()
  for (const [device, messages] of sent.entries()) {
    const slab = createSlab(detector.blockWords)
    for (let index = 0; index < messages; index++) {
      const at = firstAt + index * stepMs
      const score = detector.observe(slab, 0, at * 1000, valueAt(device, index))
      if (score >= scoreMin && !detector.explain().isWarmingUp) found.set(`d${device} ${at}`, score)
    }
  }
  return found
}

async function all(weir: WeirProcess): Promise<AnomalyAnswer[]> {
  return (await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?limit=1000`)).items
}

it('finds the same after kills of the serving process and of everything', async () => {
  const random = createRandom()
  let weir = await startWeir({ env })
  const { data } = weir
  const publishers = Array.from(
    { length: devices },
    (_, device) =>
      new RawPublisher({
        address: () => weir.mqtt,
        clientId: `d${device}`,
        window: 20,
        ratePerS: 250,
        resend: true,
        message: (index) => ({
          topic: `devices/d${device}/telemetry`,
          payload: `{"ts":${firstAt + index * stepMs},"values":{"v":${valueAt(device, index)}}}`,
        }),
        onAcknowledged: () => {},
      }),
  )
  for (const publisher of publishers) publisher.resume()
  for (const what of ['serve', 'all', 'serve', 'all'] as const) {
    await pause(1_000 + random.next() * 1_500)
    await weir.kill(what)
    if (what === 'all') weir = await startWeir({ data, env })
  }
  await waitFor(() => publishers.every((publisher) => publisher.sent >= messagesMin), { withinMs: 60_000 })
  for (const publisher of publishers) publisher.pause()
  await waitFor(() => publishers.every((publisher) => publisher.acknowledged >= publisher.sent))
  for (const publisher of publishers) publisher.stop()
  const expected = undisturbed(publishers.map((publisher) => publisher.sent))
  expect(expected.size).toBeGreaterThan(10)
  const found = await waitFor(
    async () => {
      const items = await all(weir)
      return items.length >= expected.size && items
    },
    { what: `${expected.size} anomalies` },
  )
  expect(new Set(found.map(({ id }) => id)).size).toBe(found.length)
  expect(new Map(found.map(({ device, observedAt, score }) => [`${device} ${observedAt}`, score]))).toEqual(expected)
  expect(await counterOf(weir.http, 'weir_detector_missed_chunks')).toBe(0)
  // After a stop in order nothing is read again.
  await weir.stop()
  weir = await startWeir({ data, env })
  await waitFor(async () => (await counterOf(weir.http, 'weir_detector_series')) === devices)
  expect(await counterOf(weir.http, 'weir_detector_readings')).toBe(0)
  expect((await all(weir)).length).toBe(expected.size)
})
