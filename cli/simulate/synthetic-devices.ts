// Devices that never were, with values that could be: slow waves over the day, noise that remembers, counters that only grow, a door now and then.

/** From 0 to below 1. */
export type Chance = () => number

export interface SyntheticDevice {
  readonly name: string
  /** What it measures at an instant (milliseconds): metrics, nested where it has parts. */
  measure(at: number): object
}

const dayMs = 86_400_000

interface DeviceKind {
  readonly name: string
  create(chance: Chance): (at: number) => object
}

const kinds: readonly DeviceKind[] = [
  {
    name: 'boiler',
    create: (chance) => {
      const temperature = wandering(chance, 72, 6, 0.4)
      const pressure = wandering(chance, 1.6, 0.15, 0.01)
      return (at) => {
        const celsius = round(temperature(at), 2)
        return { temperature: celsius, pressure: round(pressure(at), 3), burner: celsius < 74 }
      }
    },
  },
  {
    name: 'pump',
    create: (chance) => {
      const rpm = wandering(chance, 1480, 40, 6)
      const vibration = wandering(chance, 2.1, 0.3, 0.08)
      return (at) => ({ motor: { rpm: round(rpm(at), 0) }, vibration: round(Math.abs(vibration(at)), 3) })
    },
  },
  {
    name: 'room',
    create: (chance) => {
      const temperature = wandering(chance, 21.5, 1.5, 0.05)
      const humidity = wandering(chance, 45, 8, 0.3)
      const co2 = wandering(chance, 650, 200, 8)
      return (at) => ({
        temperature: round(temperature(at), 2),
        humidity: round(humidity(at), 1),
        co2: round(Math.max(400, co2(at)), 0),
        door: chance() < 0.02,
      })
    },
  },
  {
    name: 'meter',
    create: (chance) => {
      const power = wandering(chance, 2.4, 1.2, 0.1)
      let energy = round(chance() * 10_000, 3)
      let last: number | undefined
      return (at) => {
        const kilowatts = Math.max(0, power(at))
        if (last !== undefined) energy += (kilowatts * Math.max(0, at - last)) / 3_600_000
        last = at
        return { power: round(kilowatts, 3), energy: round(energy, 4), state: kilowatts > 0.2 ? 'on' : 'standby' }
      }
    },
  },
]

export function createDevices(count: number, chance: Chance): SyntheticDevice[] {
  const digits = String(count).length
  return Array.from({ length: count }, (_, place) => {
    const kind = kinds[place % kinds.length]!
    return { name: `${kind.name}-${String(place + 1).padStart(digits, '0')}`, measure: kind.create(chance) }
  })
}

/** A daily wave of its own phase, and noise of which each step keeps most of the one before. */
function wandering(chance: Chance, mean: number, swing: number, noise: number): (at: number) => number {
  const phase = chance() * dayMs
  const offset = (chance() - 0.5) * swing
  let drift = 0
  return (at) => {
    // The sum of a few uniform numbers is close enough to normal.
    drift = drift * 0.95 + (chance() + chance() + chance() - 1.5) * noise
    return mean + offset + swing * Math.sin(((at + phase) / dayMs) * 2 * Math.PI) + drift
  }
}

function round(value: number, decimals: number): number {
  return Number(value.toFixed(decimals))
}
