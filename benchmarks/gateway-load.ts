// The gateway's load generator: a process of its own, over bare sockets, with everything built before the clock runs. `http`: bodies of 100 readings, one
// request in flight a connection. `socket`: one reading a message on /v1/ingest, as many in flight as its window lets; `batched`: ten a message.
// Every message has its own times. Told what to do over IPC, like mqtt-load.ts.
import { connect, type Socket } from 'node:net'
import { clientFrame, ingestFrame, opcodes, ServerFrames } from '../tests/helpers/websocket.ts'

export type GatewayDoor = 'http' | 'socket' | 'batched'

export interface GatewayLoadSetup {
  readonly door: GatewayDoor
  readonly host: string
  readonly port: number
  readonly connections: number
  /** Messages in flight on a WebSocket. */
  readonly window: number
  readonly prefix: string
  readonly firstAt: number
  /** Times go on from here in a further run on the same data. */
  readonly readingsABody: number
}

export interface GatewayLoadReport {
  readonly seconds: number
  /** Readings acknowledged while it was sending. */
  readonly ackedPerS: number
  /** All that was sent, in readings; all of it was acknowledged when the run ends. */
  readonly acknowledged: number
  readonly generatorCores: number
}

const ringLength = 500
const settleMsMax = 60_000
/** Digits of `ts` in every message. */
const digits = 13

/** Sends while it is told to, and says when the last of it was acknowledged. */
abstract class Connection {
  /** Messages. */
  sent = 0
  acknowledged = 0
  protected readonly socket: Socket
  protected readonly ring: Ring
  protected readonly readings: number
  private readonly load: Load
  private isRunning = false

  constructor(setup: GatewayLoadSetup, load: Load, messageAt: (place: number) => Buffer) {
    this.load = load
    this.readings = setup.readingsABody
    const messages = Array.from({ length: ringLength }, (_, place) => {
      const bytes = messageAt(place)
      return { bytes, times: timesIn(bytes) }
    })
    this.ring = new Ring(messages, setup.firstAt, 1)
    this.socket = connect(setup.port, setup.host)
    this.socket.setNoDelay(true)
    this.socket.on('close', () => load.fail('the other side closed the connection'))
  }

  start(): void {
    this.isRunning = true
    this.send()
  }

  stop(): void {
    this.isRunning = false
  }

  protected settle(messages: number): void {
    this.acknowledged += messages
    this.load.acknowledged += messages * this.readings
  }

  protected goOn(): void {
    if (this.isRunning) this.send()
    else this.load.checkSettled()
  }

  protected abstract send(): void
}

/** Messages as they go out, one after another in a ring; `ts` is written over at each turn. */
class Ring {
  readonly bytes: Buffer
  readonly starts: number[] = []
  readonly times: number[][] = []
  private next = 0
  private readonly step: number
  private now: number

  constructor(messages: readonly { bytes: Buffer; times: readonly number[] }[], firstAt: number, step: number) {
    let at = 0
    for (const { bytes, times } of messages) {
      this.starts.push(at)
      this.times.push(times.map((time) => at + time))
      at += bytes.length
    }
    this.starts.push(at)
    this.bytes = Buffer.concat(messages.map(({ bytes }) => bytes))
    this.now = firstAt
    this.step = step
  }

  /** The range of the next `count` messages, up to where the ring begins again. */
  take(count: number, mark?: (at: number) => void): { start: number; end: number; count: number } {
    const taken = Math.min(count, ringLength - this.next)
    const from = this.next
    for (let place = from; place < from + taken; place++) {
      mark?.(this.starts[place]!)
      for (const at of this.times[place]!) {
        this.writeTime(at, this.now)
        this.now += this.step
      }
    }
    this.next = (from + taken) % ringLength
    return { start: this.starts[from]!, end: this.starts[from + taken]!, count: taken }
  }

  private writeTime(at: number, time: number): void {
    let rest = time
    for (let digit = digits - 1; digit >= 0; digit--) {
      this.bytes[at + digit] = 48 + (rest % 10)
      rest = Math.floor(rest / 10)
    }
  }
}

const timeMark = '0'.repeat(digits)

function timesIn(bytes: Buffer): number[] {
  const found: number[] = []
  for (let at = bytes.indexOf(timeMark); at >= 0; at = bytes.indexOf(timeMark, at + digits)) found.push(at)
  return found
}

const valueAt = (index: number): string => (10 + (index % 1_000) / 100).toFixed(2)
const payloadAt = (index: number): string => `{"ts":${timeMark},"values":{"temperature":${valueAt(index)}}}`

/** Readings of the message at this place of the ring. */
const readingsAt = (place: number, count: number): string[] =>
  Array.from({ length: count }, (_, i) => payloadAt(place * count + i))

class HttpConnection extends Connection {
  private got = ''

  constructor(setup: GatewayLoadSetup, number: number, load: Load) {
    super(setup, load, (place) => {
      const body = `[${readingsAt(place, setup.readingsABody).join(',')}]`
      return Buffer.from(
        `POST /v1/telemetry/${setup.prefix}-${number} HTTP/1.1\r\nHost: ${setup.host}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      )
    })
    this.socket.on('data', (bytes: Buffer) => {
      this.got += bytes.toString('latin1')
      const end = this.got.indexOf('"deadLettered":0}')
      if (end < 0) return
      if (!this.got.startsWith('HTTP/1.1 200 ')) load.fail(`answered ${this.got.slice(0, 200)}`)
      this.got = ''
      this.settle(1)
      this.goOn()
    })
  }

  protected send(): void {
    const { start, end } = this.ring.take(1)
    this.sent++
    this.socket.write(this.ring.bytes.subarray(start, end))
  }
}

class SocketConnection extends Connection {
  private readonly window: number
  private readonly idAt: number
  private nextId = 1

  constructor(setup: GatewayLoadSetup, number: number, load: Load) {
    super(setup, load, (place) => {
      const readings = readingsAt(place, setup.readingsABody)
      const payload = readings.length === 1 ? readings[0]! : `[${readings.join(',')}]`
      return clientFrame(opcodes.binary, ingestFrame(0, 0, '', payload))
    })
    this.window = setup.window
    // Two bytes before the mask of a short frame, four of a longer one; the id stands behind it.
    this.idAt = this.readings === 1 ? 6 : 8
    const frames = new ServerFrames()
    let isOpen = false
    this.socket.write(
      `GET /v1/ingest?device=${setup.prefix}-${number} HTTP/1.1\r\nHost: ${setup.host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n`,
    )
    this.socket.on('data', (bytes: Buffer) => {
      let rest = bytes
      if (!isOpen) {
        isOpen = true
        if (!bytes.toString('latin1').startsWith('HTTP/1.1 101')) load.fail(`answered ${bytes.toString('latin1')}`)
        rest = bytes.subarray(bytes.indexOf('\r\n\r\n') + 4)
        load.opened()
      }
      frames.take(rest, (opcode, payload) => {
        const text = payload.toString('latin1')
        if (text.startsWith('{"type":"hello"')) return
        if (opcode !== opcodes.text || !text.startsWith('{"type":"ack","upTo":')) load.fail(`got ${opcode} ${text}`)
        this.settle(Number.parseInt(text.slice(21), 10) - this.acknowledged)
      })
      this.goOn()
    })
  }

  protected send(): void {
    let free = this.window - (this.sent - this.acknowledged)
    while (free > 0) {
      const { start, end, count } = this.ring.take(free, (at) =>
        this.ring.bytes.writeUInt32BE(this.nextId++, at + this.idAt),
      )
      this.socket.write(Buffer.from(this.ring.bytes.subarray(start, end)))
      this.sent += count
      free -= count
    }
  }
}

class Load {
  acknowledged = 0
  private readonly connections: Connection[] = []
  private settled: (() => void) | undefined
  private openedCount = 0
  private readonly expected: number

  constructor(setup: GatewayLoadSetup) {
    this.expected = setup.connections
    for (let number = 0; number < setup.connections; number++) {
      this.connections.push(
        setup.door === 'http' ? new HttpConnection(setup, number, this) : new SocketConnection(setup, number, this),
      )
      if (setup.door === 'http') this.opened()
    }
  }

  opened(): void {
    if (++this.openedCount === this.expected) process.send?.({ type: 'ready' })
  }

  fail(reason: string): never {
    process.send?.({ type: 'failed', reason })
    throw new Error(reason)
  }

  checkSettled(): void {
    if (this.settled && this.connections.every(({ sent, acknowledged }) => sent === acknowledged)) this.settled()
  }

  async run(seconds: number): Promise<GatewayLoadReport> {
    const before = { acknowledged: this.acknowledged, cpu: process.cpuUsage() }
    const beganAt = performance.now()
    for (const connection of this.connections) connection.start()
    await new Promise((resolve) => setTimeout(resolve, seconds * 1000))
    const elapsed = (performance.now() - beganAt) / 1000
    const inTime = this.acknowledged - before.acknowledged
    const cpu = process.cpuUsage(before.cpu)
    for (const connection of this.connections) connection.stop()
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.fail('not everything was acknowledged within 60 s'), settleMsMax)
      this.settled = () => {
        clearTimeout(timer)
        resolve()
      }
      this.checkSettled()
    })
    this.settled = undefined
    return {
      seconds: elapsed,
      ackedPerS: inTime / elapsed,
      acknowledged: this.acknowledged - before.acknowledged,
      generatorCores: (cpu.user + cpu.system) / 1e6 / elapsed,
    }
  }
}

if (process.send && process.argv[1] === import.meta.filename) {
  let load: Load | undefined
  process.on('message', async (command: { type: string; setup: GatewayLoadSetup; seconds: number }) => {
    if (command.type === 'setup') load = new Load(command.setup)
    else if (command.type === 'run') process.send!({ type: 'report', report: await load!.run(command.seconds) })
    else process.exit(0)
  })
}
