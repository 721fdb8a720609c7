// Devices at every door at once (MQTT, HTTP, /v1/ingest) that send as fast as they are let, and know what was acknowledged; and what the process that
// takes it in holds meanwhile.
import { readFileSync } from 'node:fs'
import { allReadings } from './ask.ts'
import { type GatewaySender, sendOverHttp, sendOverSocket } from './gateway-senders.ts'
import { RawPublisher } from './mqtt-raw.ts'
import { pause, waitFor } from './wait-for.ts'
import type { WeirProcess } from './weir-process.ts'

export interface PressingFleetOptions {
  readonly weir: () => WeirProcess
  /** What devices are called before their kind and number. */
  readonly name: string
  /** How many of each. */
  readonly devices: { readonly mqtt: number; readonly http: number; readonly sockets: number }
  /** Publishes in flight of each MQTT device. */
  readonly window: number
  /** Of each MQTT device, in messages a second; without it as fast as they are acknowledged. */
  readonly ratePerS?: number
  /** Texts of a thousand characters beside the value. */
  readonly texts?: number
}

const firstAt = 1_700_000_000_000
const mebi = 1024 * 1024
const settledMsMax = 120_000
const valueAt = (index: number): number => (index * 7_919) % 1_000_003

export class PressingFleet {
  private readonly publishers: RawPublisher[] = []
  private readonly gateway: GatewaySender[] = []
  private readonly kept = new Map<string, Set<number>>()

  constructor({ weir, name, devices, window, ratePerS, texts = 0 }: PressingFleetOptions) {
    const padding = Array.from({ length: texts }, (_, i) => `,"text${i}":"${`${i}`.repeat(1_000)}"`).join('')
    const payload = (index: number): string => `{"ts":${firstAt + index},"v":${valueAt(index)}${padding}}`
    const names = (kind: string, count: number): string[] =>
      Array.from({ length: count }, (_, i) => `${name}-${kind}-${i}`)
    for (const device of names('mqtt', devices.mqtt)) {
      const kept = new Set<number>()
      this.kept.set(device, kept)
      const publisher = new RawPublisher({
        address: () => weir().mqtt,
        clientId: device,
        window,
        ...(ratePerS !== undefined && { ratePerS }),
        resend: true,
        message: (index) => ({ topic: `devices/${device}/telemetry`, payload: payload(index) }),
        onAcknowledged: (index) => kept.add(index),
      })
      publisher.resume()
      this.publishers.push(publisher)
    }
    const url = (): string => weir().urls.gateway!
    const readingsEach = 1 + texts
    for (const device of names('http', devices.http))
      this.gateway.push(sendOverHttp({ device, url, payload, readingsEach }))
    for (const device of names('socket', devices.sockets)) this.gateway.push(sendOverSocket({ device, url, payload }))
    for (const { device, kept } of this.gateway) this.kept.set(device, kept)
  }

  /** Messages. */
  get acknowledged(): number {
    let sum = 0
    for (const { size } of this.kept.values()) sum += size
    return sum
  }

  /** Of each device. */
  acknowledgedEach(): number[] {
    return [...this.kept.values()].map(({ size }) => size)
  }

  pause(): void {
    for (const each of [...this.publishers, ...this.gateway]) each.pause()
  }

  resume(): void {
    for (const each of [...this.publishers, ...this.gateway]) each.resume()
  }

  /** Pauses, and resolves when nothing is on its way. */
  async settled(): Promise<void> {
    this.pause()
    for (const publisher of this.publishers) await publisher.settled(settledMsMax)
    await waitFor(() => this.gateway.every((each) => each.isSettled()), {
      withinMs: settledMsMax,
      what: 'the gateway to have answered everything',
    })
    const broken = this.publishers.map((publisher) => publisher.broken).find((each) => each !== undefined)
    if (broken !== undefined) throw new Error(broken)
  }

  stop(): void {
    for (const each of [...this.publishers, ...this.gateway]) each.stop()
  }

  /** Resolves once every acknowledged reading can be asked for: once, in order, as it was sent. */
  async allStored(http: string, withinMs: number): Promise<void> {
    for (const [device, kept] of this.kept)
      await waitFor(() => isStored(http, device, kept), { withinMs, everyMs: 500, what: `all readings of ${device}` })
  }
}

async function isStored(http: string, device: string, kept: ReadonlySet<number>): Promise<true> {
  let last = -1
  let found = 0
  for await (const { observedAt, value } of allReadings(http, { device, metric: 'v', from: String(firstAt) })) {
    const index = observedAt - firstAt
    if (index <= last) throw new Error(`${device}: reading ${index} after ${last}: twice, or out of order`)
    if (value !== valueAt(index)) throw new Error(`${device}: reading ${index} is ${value}`)
    if (kept.has(index)) found++
    last = index
  }
  if (found !== kept.size) throw new Error(`${device}: of ${kept.size} acknowledged readings ${found} are there`)
  return true
}

/** Looks at a process' memory ten times a second. */
export class MemoryWatch {
  mostMiB = 0
  private isEnded = false

  constructor(pid: number) {
    void this.watch(pid)
  }

  end(): void {
    this.isEnded = true
  }

  private async watch(pid: number): Promise<void> {
    while (!this.isEnded) {
      try {
        this.mostMiB = Math.max(this.mostMiB, residentMiB(pid))
      } catch {
        // It has ended.
        return
      }
      await pause(100)
    }
  }
}

export function residentMiB(pid: number): number {
  const kibibytes = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return (Number(kibibytes) * 1024) / mebi
}

/** What ingest may take while nothing can be durable, and devices push some 240 MiB over MQTT alone. */
export const pressed = {
  budgetMiB: 16,
  /** Beside its budget, and as much again on its way to the log: what was read ahead, and garbage … */
  stalledMarginMiB: 64,
  /** … and while it catches up with all of it: more garbage. */
  catchingUpMarginMiB: 192,
  texts: 8,
  mqttDevices: 12,
  /** Of 8 KiB: 20 MiB a device. */
  window: 2_500,
} as const

/** Some traffic at every door, so that all that is made once has been made; then what the process holds, and a watch on it from here on. */
export async function warmUp(
  weir: WeirProcess,
): Promise<{ readonly warm: PressingFleet; readonly beforeMiB: number; readonly memory: MemoryWatch }> {
  const devices = { mqtt: 4, http: 2, sockets: 2 }
  const warm = new PressingFleet({ weir: () => weir, name: 'warm', devices, window: 50, ratePerS: 100 })
  await waitFor(() => warm.acknowledged > 500, { withinMs: 90_000, everyMs: 200, what: 'traffic' })
  await warm.settled()
  warm.stop()
  return { warm, beforeMiB: residentMiB(weir.pid), memory: new MemoryWatch(weir.pid) }
}
