// Readings with a rhythm and now and then something odd, as five devices send them, and what the detector finds in them undisturbed.
import { createDetector } from '../../stream/detectors/index.ts'
import { createSlab } from '../../stream/detectors/layout.ts'
import { type Address, RawPublisher } from './mqtt-raw.ts'

export const oddDevices = 5
/** Of each device, before there is enough to find. */
export const oddMessagesMin = 2_000
const scoreMin = 0.01
const firstAt = 1_700_000_000_000
const stepMs = 300_000
export const oddEnvironment = { WEIR_DETECTOR_SCORE_MIN: String(scoreMin), WEIR_DETECTOR_TIER: '2' }

/** A rhythm with noise, and now and then something that grows. */
const valueAt = (device: number, index: number): number => {
  const usual = 20 + 5 * Math.sin(index / 40 + device) + ((index * 7_919 + device * 104_729) % 1_003) / 1_000
  return (index * 31 + device * 17) % 211 === 0 ? usual * (2 + index / 1_000) : usual
}

/** By device and instant: the score. */
export function undisturbed(sent: readonly number[]): Map<string, number> {
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

export function publishOddReadings(address: (device: number) => Address): RawPublisher[] {
  return Array.from(
    { length: oddDevices },
    (_, device) =>
      new RawPublisher({
        address: () => address(device),
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
}
