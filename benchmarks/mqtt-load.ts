// The load generator: a process of its own, so that what it costs is not charged to what is measured. QoS 1 over bare sockets; every packet is built
// before the clock runs, in a ring a connection. A second time around only the leading digits of a packet's time are written over, so that no two
// messages are alike. Told what to do over IPC (load-process.ts); acknowledgements must come in order, anything else ends the run.
import { connect, type Socket } from 'node:net'
import { connectPacket, publishPacket } from '../tests/helpers/mqtt-raw.ts'
import type { LoadCommand, LoadPhase, LoadReport, LoadSetup, Shape } from './load-process.ts'

/** Messages in a ring; the window must be far smaller, for a packet is written over only when it was acknowledged long ago. */
const ringLength = 1_000
/** Digits of `ts` that stand for the place in the ring; those before are written over at each turn. */
const ringDigits = 3
const metrics = ['temperature', 'humidity', 'pressure', 'vibration'] as const
const payloadBytes = 105
const pacingMs = 2
const settleMsMax = 60_000
/** Latencies in steps of 10 µs up to 20 s. */
const latencyStepMs = 0.01
const latencySteps = 2_000_000

export function valueAt(index: number): string {
  return (10 + (index % ringLength) / 100).toFixed(2).padStart(5, '0')
}

/** What message `index` of a connection says. Times are unique within a connection, devices between connections. */
export function messageAt(shape: Shape, prefix: string, connection: number, index: number, firstAt: number) {
  const place = index % ringLength
  const device =
    shape === 'many'
      ? `${prefix}-${String(connection * 20 + (place % 20)).padStart(4, '0')}`
      : `${prefix}-${String(connection).padStart(4, '0')}`
  const metric = shape === 'many' ? metrics[Math.floor(place / 20) % metrics.length]! : metrics[0]
  return { device, metric, observedAt: firstAt + index, value: Number(valueAt(index)) }
}

function payloadAt(shape: Shape, prefix: string, connection: number, index: number, firstAt: number): string {
  const { metric, observedAt } = messageAt(shape, prefix, connection, index, firstAt)
  return `{"ts":${observedAt},"values":{"${metric}":${valueAt(index)}}}`.padEnd(payloadBytes)
}

class Connection {
  acknowledged = 0
  sent = 0
  private readonly ring: Buffer
  private readonly starts = new Int32Array(ringLength + 1)
  /** Where the first digit of `ts` stands in each packet of the ring. */
  private readonly timeStarts = new Int32Array(ringLength)
  private readonly dueAt = new Float64Array(ringLength)
  private socket!: Socket
  private readonly setup: LoadSetup
  private readonly load: Load
  private kept: Buffer = Buffer.alloc(0)
  private turn: string

  constructor(setup: LoadSetup, number: number, load: Load) {
    this.setup = setup
    this.load = load
    const packets: Buffer[] = []
    let at = 0
    for (let place = 0; place < ringLength; place++) {
      const { device } = messageAt(setup.shape, setup.prefix, number, place, setup.firstAt)
      const packet = publishPacket({
        topic: setup.topic.replace('{device}', device),
        payload: payloadAt(setup.shape, setup.prefix, number, place, setup.firstAt),
        id: place + 1,
      })
      this.starts[place] = at
      this.timeStarts[place] = at + packet.length - payloadBytes + '{"ts":'.length
      at += packet.length
      packets.push(packet)
    }
    this.starts[ringLength] = at
    this.ring = Buffer.concat(packets)
    this.turn = this.leadingDigits(0)
  }

  open(clientId: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const socket = connect(this.setup.port, this.setup.host)
      this.socket = socket
      socket.setNoDelay(true)
      socket.once('connect', () => socket.write(connectPacket(clientId)))
      socket.once('data', (bytes: Buffer) => {
        if (bytes.length !== 4 || bytes[0] !== 0x20 || bytes[3] !== 0)
          return reject(new Error(`${clientId}: CONNECT was answered with ${bytes.toString('hex')}`))
        socket.on('data', (more: Buffer) => this.receive(more))
        resolve()
      })
      socket.on('error', reject)
      socket.on('close', () => this.load.fail(`${clientId}: the other side closed the connection`))
    })
  }

  close(): void {
    this.socket.removeAllListeners('close')
    this.socket.destroy()
  }

  /** PUBACKs only, four bytes each, in the order of the publishes. */
  private receive(bytes: Buffer): void {
    let all = bytes
    if (this.kept.length > 0) all = Buffer.concat([this.kept, bytes])
    const count = all.length >> 2
    const paced = this.load.latencies !== undefined
    const now = paced ? performance.now() : 0
    for (let i = 0, at = 0; i < count; i++, at += 4) {
      const place = (this.acknowledged + i) % ringLength
      if (all[at] !== 0x40 || ((all[at + 2]! << 8) | all[at + 3]!) !== place + 1)
        this.load.fail(`expected PUBACK ${place + 1}, got ${all.subarray(at, at + 4).toString('hex')}`)
      if (paced) this.load.recordLatency(now - this.dueAt[place]!)
    }
    this.acknowledged += count
    this.load.acknowledged += count
    this.kept = all.subarray(count * 4)
    if (this.load.asFastAsPossible) this.send(Number.POSITIVE_INFINITY, 0)
    this.load.checkSettled()
  }

  /** As many as the window lets, `most` at most, in one write (two where the ring begins again). */
  send(most: number, dueAt: number): number {
    const free = this.setup.window - (this.sent - this.acknowledged)
    let left = Math.min(free, most)
    const taken = Math.max(0, left)
    while (left > 0) {
      const from = this.sent % ringLength
      const count = Math.min(left, ringLength - from)
      if (from === 0) this.turn = this.leadingDigits(this.sent)
      if (this.sent >= ringLength) this.writeTurn(from, from + count)
      if (dueAt > 0) this.dueAt.fill(dueAt, from, from + count)
      this.socket.write(this.ring.subarray(this.starts[from], this.starts[from + count]))
      this.sent += count
      left -= count
    }
    this.load.sent += taken
    return taken
  }

  private leadingDigits(index: number): string {
    return String(this.setup.firstAt + index).slice(0, -ringDigits)
  }

  private writeTurn(from: number, to: number): void {
    // The last six of the leading digits are enough for a thousand million messages a connection.
    const digits = this.turn
    const skipped = digits.length - 6
    const a = digits.charCodeAt(skipped)
    const b = digits.charCodeAt(skipped + 1)
    const c = digits.charCodeAt(skipped + 2)
    const d = digits.charCodeAt(skipped + 3)
    const e = digits.charCodeAt(skipped + 4)
    const f = digits.charCodeAt(skipped + 5)
    const { ring, timeStarts } = this
    for (let place = from; place < to; place++) {
      const at = timeStarts[place]! + skipped
      ring[at] = a
      ring[at + 1] = b
      ring[at + 2] = c
      ring[at + 3] = d
      ring[at + 4] = e
      ring[at + 5] = f
    }
  }
}

class Load {
  sent = 0
  acknowledged = 0
  asFastAsPossible = false
  latencies: Uint32Array | undefined
  private latencyMsMax = 0
  private readonly setup: LoadSetup
  private connections: Connection[] = []
  private settled: (() => void) | undefined

  constructor(setup: LoadSetup) {
    this.setup = setup
  }

  async open(): Promise<void> {
    for (let number = 0; number < this.setup.connections; number++) {
      const connection = new Connection(this.setup, number, this)
      await connection.open(`${this.setup.prefix}-load-${number}`)
      this.connections.push(connection)
    }
  }

  /** One phase: sends for `seconds`, then waits until all of it is acknowledged. */
  async run(phase: LoadPhase): Promise<LoadReport> {
    const before = { sent: this.sent, acknowledged: this.acknowledged, cpu: process.cpuUsage() }
    const beganAt = performance.now()
    const beganEpochMs = performance.timeOrigin + beganAt
    if (phase.ratePerS === undefined) await this.sendFreely(phase.seconds)
    else await this.sendAtRate(phase.ratePerS, phase.seconds)
    const seconds = (performance.now() - beganAt) / 1000
    const acknowledgedInTime = this.acknowledged - before.acknowledged
    const cpu = process.cpuUsage(before.cpu)
    await this.settle()
    return {
      seconds,
      acknowledgedInTime,
      ackedPerS: acknowledgedInTime / seconds,
      sent: this.sent - before.sent,
      acknowledged: this.acknowledged - before.acknowledged,
      settledSeconds: (performance.now() - beganAt) / 1000,
      generatorCores: (cpu.user + cpu.system) / 1e6 / seconds,
      beganEpochMs,
      sentByConnection: this.connections.map((connection) => connection.sent),
      ...(this.latencies ? { latencyMs: this.takeLatencies() } : {}),
    }
  }

  recordLatency(ms: number): void {
    if (ms > this.latencyMsMax) this.latencyMsMax = ms
    const step = Math.min(latencySteps - 1, Math.floor(ms / latencyStepMs))
    this.latencies![step]!++
  }

  checkSettled(): void {
    if (this.settled && this.sent === this.acknowledged) this.settled()
  }

  fail(reason: string): never {
    process.send?.({ type: 'failed', reason })
    throw new Error(reason)
  }

  close(): void {
    for (const connection of this.connections) connection.close()
  }

  private async sendFreely(seconds: number): Promise<void> {
    this.asFastAsPossible = true
    for (const connection of this.connections) connection.send(Number.POSITIVE_INFINITY, 0)
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    this.asFastAsPossible = false
  }

  /** What falls due is sent when the window lets it; its latency counts from when it was due, so that a stall is not left out. */
  private sendAtRate(ratePerS: number, seconds: number): Promise<void> {
    this.latencies = new Uint32Array(latencySteps)
    this.latencyMsMax = 0
    const beganAt = performance.now()
    const total = Math.floor(ratePerS * seconds)
    let sent = 0
    let first = 0
    return new Promise((resolve) => {
      const timer = setInterval(() => {
        const elapsedMs = performance.now() - beganAt
        const due = Math.min(total, Math.floor((elapsedMs / 1000) * ratePerS))
        let free = true
        while (sent < due && free) {
          free = false
          const share = Math.ceil((due - sent) / this.connections.length)
          for (let i = 0; i < this.connections.length && sent < due; i++) {
            const connection = this.connections[(first + i) % this.connections.length]!
            // The due time of the earliest of this lot: none of them is made to look faster than it was.
            const taken = connection.send(Math.min(share, due - sent), beganAt + (sent / ratePerS) * 1000)
            sent += taken
            if (taken > 0) free = true
          }
          first++
        }
        if (elapsedMs >= seconds * 1000) {
          clearInterval(timer)
          resolve()
        }
      }, pacingMs)
    })
  }

  private async settle(): Promise<void> {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.fail('not everything was acknowledged within 60 s'), settleMsMax)
      this.settled = () => {
        clearTimeout(timer)
        resolve()
      }
      this.checkSettled()
    })
    this.settled = undefined
  }

  private takeLatencies(): NonNullable<LoadReport['latencyMs']> {
    const steps = this.latencies!
    this.latencies = undefined
    const count = steps.reduce((sum, each) => sum + each, 0)
    const at = (share: number): number => {
      let seen = 0
      for (let step = 0; step < steps.length; step++) {
        seen += steps[step]!
        if (seen >= count * share) return (step + 1) * latencyStepMs
      }
      return 0
    }
    return { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: this.latencyMsMax }
  }
}

// Only when it is the entry of a process: the benchmarks import messageAt() too.
if (process.send && process.argv[1] === import.meta.filename) {
  let load: Load | undefined
  process.on('message', async (command: LoadCommand) => {
    if (command.type === 'setup') {
      load = new Load(command.setup)
      await load.open()
      process.send!({ type: 'ready' })
    } else if (command.type === 'run') {
      process.send!({ type: 'report', report: await load!.run(command.phase) })
    } else {
      load?.close()
      process.disconnect()
    }
  })
}
