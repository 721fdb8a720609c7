// The product's own detector, as the NAB scorer wants one (see the README of the benchmark's folder). Build first; options: {"tier": 0|1|2}.
import { createDetector as createOwn } from '../dist/stream/detectors/index.js'
import { createSlab } from '../dist/stream/detectors/layout.js'

export function createDetector({ options = {} } = {}) {
  const detector = createOwn(options.tier ?? 2)
  const slab = createSlab(detector.blockWords)
  return {
    update(timestampMs, value) {
      return detector.observe(slab, 0, timestampMs * 1000, value)
    },
  }
}
