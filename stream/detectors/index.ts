// The list of detectors that run over every series.
import { CoverageNet } from './coverage-net.ts'
import type { Detector } from './detector.ts'
import type { Tier } from './layout.ts'

export type { Tier } from './layout.ts'

export function createDetector(tier: Tier): Detector {
  return new CoverageNet(tier)
}
