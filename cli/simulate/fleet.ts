// A fleet of synthetic devices at a steady rate: each publishes in its turn. They share a bounded number of connections, as devices behind
// gateways do.

import type { Clock } from '../../runtime/clock.ts'
import { pause } from './pace.ts'
import type { Publisher } from './publisher.ts'
import { type Chance, createDevices } from './synthetic-devices.ts'

export interface FleetOptions {
  readonly devices: number
  /** Publishes a second, all together. */
  readonly rate: number
  /** How long; Infinity: until the signal. */
  readonly seconds: number
  readonly open: (place: number) => Promise<Publisher>
  readonly clock: Clock
  readonly chance: Chance
  readonly signal: AbortSignal
}

const connectionsMax = 50
const tickMs = 10
/** When acknowledgements don't keep up, what is more overdue than this is left out: a fleet doesn't make up for lost time. */
const overdueSecondsMax = 1

/** Resolves with how many payloads were published. */
export async function runFleet({ devices, rate, seconds, open, clock, chance, signal }: FleetOptions): Promise<number> {
  const fleet = createDevices(devices, chance)
  const publishers: Publisher[] = []
  for (let place = 0; place < Math.min(devices, connectionsMax); place++) publishers.push(await open(place))
  const startedAt = performance.now()
  const turnsMax = Math.ceil(seconds * rate)
  let turn = 0
  let published = 0
  for (;;) {
    const elapsed = (performance.now() - startedAt) / 1000
    // The first one at once.
    const due = Math.min(Math.floor(elapsed * rate) + 1, turnsMax)
    turn = Math.max(turn, due - Math.ceil(overdueSecondsMax * rate))
    for (; turn < due; turn++) {
      const place = turn % devices
      const device = fleet[place]!
      const at = Math.floor(clock.nowMicros() / 1000)
      const payload = JSON.stringify({ ts: at, values: device.measure(at) })
      const publisher = publishers[place % publishers.length]!
      if (!(await publisher.publish(`devices/${device.name}/telemetry`, payload))) return published
      published++
    }
    if (turn >= turnsMax || !(await pause(tickMs, signal))) return published
  }
}
