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

/** Readings in a ring; what is in flight is far less, for a message is written over only when it was acknowledged long ago. */
const ringReadings = 10_000
/** Digits of `ts` that stand for the place in the ring. */
const ringDigits = 4
/** Of those before them, as many as are written over at each turn: enough for ten thousand million readings a connection. */
const turnDigits = 6
const settleMsMax = 60_000

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

  constructor(setup: GatewayLoadSetup, load: Load, messageOf: (payload: string) => Buffer) {
    this.load = load
    this.readings = setup.readingsABody
    this.ring = new Ring(setup, messageOf)
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

/** Messages as they go out, one after another in a ring; a second time around only the leading digits of each `ts` are written over. */
class Ring {
  readonly bytes: Buffer
  readonly starts: number[] = []
  private readonly messages: number
  private readonly readings: number
  private readonly firstAt: number
  /** Where the digits begin that change with each turn, a reading. */
  private readonly timeStarts = new Int32Array(ringReadings)
  private turn = 0
  private next = 0

  constructor({ readingsABody, firstAt }: GatewayLoadSetup, messageOf: (payload: string) => Buffer) {
    this.readings = readingsABody
    this.firstAt = firstAt
    this.messages = ringReadings / readingsABody
    const parts: Buffer[] = []
    let at = 0
    for (let place = 0; place < ringReadings; place += readingsABody) {
      const bytes = messageOf(payloadAt(place, readingsABody, firstAt))
      this.starts.push(at)
      let mark = 0
      for (let i = 0; i < readingsABody; i++) {
        mark = bytes.indexOf(timeMark, mark) + timeMark.length
        this.timeStarts[place + i] = at + mark + String(firstAt).length - ringDigits - turnDigits
      }
      parts.push(bytes)
      at += bytes.length
    }
    this.starts.push(at)
    this.bytes = Buffer.concat(parts)
  }

  /** The range of the next `count` messages, up to where the ring begins again. */
  take(count: number): { start: number; end: number; from: number; count: number } {
    const from = this.next
    const taken = Math.min(count, this.messages - from)
    if (this.turn > 0) this.writeTurn(from * this.readings, (from + taken) * this.readings)
    this.next = from + taken
    if (this.next === this.messages) {
      this.next = 0
      this.turn++
    }
    return { start: this.starts[from]!, end: this.starts[from + taken]!, from, count: taken }
  }

  private writeTurn(from: number, to: number): void {
    const { bytes, timeStarts } = this
    const digits = String(this.firstAt + this.turn * ringReadings).slice(-ringDigits - turnDigits, -ringDigits)
    const codes = Array.from(digits, (digit) => digit.charCodeAt(0))
    const [a, b, c, d, e, f] = codes as [number, number, number, number, number, number]
    for (let place = from; place < to; place++) {
      const at = timeStarts[place]!
      bytes[at] = a
      bytes[at + 1] = b
      bytes[at + 2] = c
      bytes[at + 3] = d
      bytes[at + 4] = e
      bytes[at + 5] = f
    }
  }
}

const timeMark = '"ts":'

function payloadAt(place: number, count: number, firstAt: number): string {
  const readings = Array.from({ length: count }, (_, i) => {
    const value = (10 + ((place + i) % 1_000) / 100).toFixed(2)
    return `{${timeMark}${firstAt + place + i},"values":{"temperature":${value}}}`
  })
  return count === 1 ? readings[0]! : `[${readings.join(',')}]`
}

class HttpConnection extends Connection {
  private got = ''

  constructor(setup: GatewayLoadSetup, number: number, load: Load) {
    super(setup, load, (body) =>
      Buffer.from(
        `POST /v1/telemetry/${setup.prefix}-${number} HTTP/1.1\r\nHost: ${setup.host}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      ),
    )
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
    super(setup, load, (payload) => clientFrame(opcodes.binary, ingestFrame(0, 0, '', payload)))
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
      const { start, end, from, count } = this.ring.take(free)
      const { bytes, starts } = this.ring
      for (let message = from; message < from + count; message++) {
        const at = starts[message]! + this.idAt
        const id = this.nextId++
        bytes[at] = id >>> 24
        bytes[at + 1] = id >>> 16
        bytes[at + 2] = id >>> 8
        bytes[at + 3] = id
      }
      this.socket.write(bytes.subarray(start, end))
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
