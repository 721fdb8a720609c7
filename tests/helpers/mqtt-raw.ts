// MQTT 3.1.1 over a bare socket: bytes as a test wants them, right or wrong, and a publisher that keeps many messages in flight, comes back after a
// fault and knows exactly which of its messages were acknowledged. No client library, which would repair what a test breaks.
import { once } from 'node:events'
import { connect as connectSocket, type Socket } from 'node:net'
import { waitFor } from './wait-for.ts'

export interface Address {
  readonly host: string
  readonly port: number
}

export const packetType = { connack: 2, publish: 3, puback: 4, pubrec: 5, pubcomp: 7, suback: 9, pingresp: 13 } as const

/** Any packet: the first byte, then the body with its length in front (MQTT 3.1.1 §2.2.3). */
export function packet(firstByte: number, ...body: readonly Uint8Array[]): Buffer {
  let rest = body.reduce((sum, part) => sum + part.length, 0)
  const length: number[] = []
  do {
    const digit = rest & 127
    rest >>>= 7
    length.push(rest > 0 ? digit | 128 : digit)
  } while (rest > 0)
  return Buffer.concat([Buffer.from([firstByte, ...length]), ...body])
}

/** Bytes with their length in front. */
export function field(content: string | Uint8Array): Buffer {
  const bytes = Buffer.from(content as string)
  const length = Buffer.alloc(2)
  length.writeUInt16BE(bytes.length)
  return Buffer.concat([length, bytes])
}

export function uint16(value: number): Buffer {
  return Buffer.from([value >> 8, value & 255])
}

export interface ConnectOptions {
  readonly clean?: boolean
  readonly keepaliveS?: number
  readonly protocol?: string
  readonly level?: number
  readonly username?: string
  readonly password?: string
  readonly will?: { readonly topic: string; readonly payload: string }
}

export function connectPacket(clientId: string, options: ConnectOptions = {}): Buffer {
  const { clean = true, keepaliveS = 0, protocol = 'MQTT', level = 4, username, password, will } = options
  const flags =
    (clean ? 2 : 0) | (will ? 4 : 0) | (username === undefined ? 0 : 128) | (password === undefined ? 0 : 64)
  // Version 5 has properties before the client id (MQTT 5.0 §3.1.2.11): none here.
  const properties = level === 5 ? [Buffer.from([0])] : []
  return packet(
    0x10,
    field(protocol),
    Buffer.from([level, flags]),
    uint16(keepaliveS),
    ...properties,
    field(clientId),
    ...(will ? [field(will.topic), field(will.payload)] : []),
    ...(username === undefined ? [] : [field(username)]),
    ...(password === undefined ? [] : [field(password)]),
  )
}

export interface Publish {
  readonly topic: string | Uint8Array
  readonly payload: string | Uint8Array
  readonly qos?: 0 | 1 | 2
  readonly id?: number
  /** A repeat of one sent before. */
  readonly dup?: boolean
}

export function publishPacket({ topic, payload, qos = 1, id = 1, dup = false }: Publish): Buffer {
  const first = 0x30 | (qos << 1) | (dup ? 8 : 0)
  return packet(first, field(topic), ...(qos > 0 ? [uint16(id)] : []), Buffer.from(payload as string))
}

export interface Packet {
  readonly type: number
  readonly flags: number
  readonly body: Buffer
}

/** Whole packets out of what came; the rest is kept for later. */
class PacketReader {
  private kept: Buffer = Buffer.alloc(0)

  push(bytes: Buffer, each: (packet: Packet) => void): void {
    let all = this.kept.length > 0 ? Buffer.concat([this.kept, bytes]) : bytes
    for (;;) {
      let length = 0
      let at = 1
      let whole = false
      for (; at < Math.min(all.length, 5); at++) {
        length |= (all[at]! & 127) << (7 * (at - 1))
        if (all[at]! < 128) {
          at++
          whole = true
          break
        }
      }
      if (!whole || all.length < at + length) break
      each({ type: all[0]! >> 4, flags: all[0]! & 15, body: all.subarray(at, at + length) })
      all = all.subarray(at + length)
    }
    this.kept = all
  }
}

/** One socket. Nothing is sent but what the test sends. */
export class RawMqtt {
  readonly packets: Packet[] = []
  ended = false
  private readonly socket: Socket

  private constructor(socket: Socket) {
    this.socket = socket
    const reader = new PacketReader()
    socket.on('data', (bytes: Buffer) => reader.push(bytes, (packet) => this.packets.push(packet)))
    socket.on('error', () => {})
    socket.on('end', () => {
      this.ended = true
    })
    socket.on('close', () => {
      this.ended = true
    })
  }

  static async open({ host, port }: Address): Promise<RawMqtt> {
    const socket = connectSocket(port, host)
    socket.setNoDelay(true)
    await once(socket, 'connect')
    return new RawMqtt(socket)
  }

  /** Open, and let in: CONNECT was answered with CONNACK 0. */
  static async connected(address: Address, clientId: string, options = {}): Promise<RawMqtt> {
    const client = await RawMqtt.open(address)
    client.send(connectPacket(clientId, options))
    const answer = await client.next()
    if (answer.type !== packetType.connack || answer.body[1] !== 0)
      throw new Error(`CONNECT was answered with packet ${answer.type}, code ${answer.body[1]}`)
    return client
  }

  send(bytes: Uint8Array): void {
    if (!this.socket.destroyed) this.socket.write(bytes)
  }

  /** Takes the next packet out of those that came. */
  next(withinMs = 5_000): Promise<Packet> {
    return waitFor(() => this.packets.shift(), {
      withinMs,
      everyMs: 2,
      what: () => `an MQTT packet (the other side ${this.ended ? 'closed' : 'is open'})`,
    })
  }

  /** Publishes with QoS 1 and waits for its acknowledgement. */
  async publish(topic: string, payload: string | Uint8Array, id = 1, dup = false): Promise<void> {
    this.send(publishPacket({ topic, payload, id, dup }))
    const answer = await this.next()
    if (answer.type !== packetType.puback || answer.body.readUInt16BE(0) !== id)
      throw new Error(`expected PUBACK ${id}, got packet ${answer.type} ${answer.body.toString('hex')}`)
  }

  /** Resolves when the other side has closed. */
  async closed(withinMs = 5_000): Promise<void> {
    await waitFor(() => this.ended, { withinMs, everyMs: 2, what: 'the other side to close the connection' })
  }

  destroy(): void {
    this.socket.destroy()
  }
}

export interface Message {
  readonly topic: string
  readonly payload: string
}

export interface RawPublisherOptions {
  /** Asked at each connection: ports change when the product starts again. */
  readonly address: () => Address
  readonly clientId: string
  /** Most messages in flight. */
  readonly window: number
  /** Messages a second; without it as fast as they are acknowledged. */
  readonly ratePerS?: number
  /** Message number `index`, from 0 on; asked again when it is sent again. */
  readonly message: (index: number) => Message
  /** After a lost connection: send what was not acknowledged again with DUP (as a device does), or leave it unknown. */
  readonly resend: boolean
  readonly onAcknowledged: (index: number) => void
}

const tickMs = 10
const reconnectMs = 50

/** Sends numbered messages with QoS 1 and survives whatever happens to the other side. */
export class RawPublisher {
  /** Messages sent at least once: 0 … sent − 1. */
  sent = 0
  acknowledged = 0
  /** How often those were sent that were sent more than once. */
  readonly timesSent = new Map<number, number>()
  /** An answer that breaks the protocol, such as an acknowledgement out of order: a test must find this undefined. */
  broken: string | undefined
  private readonly options: RawPublisherOptions
  private inFlight: number[] = []
  private again: number[] = []
  private sending = false
  private stopped = false
  private up = false
  private socket: Socket | undefined
  private timer: NodeJS.Timeout | undefined
  private readonly ticker: NodeJS.Timeout | undefined
  private owed = 0
  private lastTickAt = 0

  constructor(options: RawPublisherOptions) {
    this.options = options
    if (options.ratePerS !== undefined) this.ticker = setInterval(() => this.tick(options.ratePerS!), tickMs)
    this.open()
  }

  /** Sends from now on. */
  resume(): void {
    this.sending = true
    this.lastTickAt = performance.now()
    this.owed = 0
    this.pump()
  }

  /** Sends nothing new; what is in flight is still acknowledged, and sent again where it must be. */
  pause(): void {
    this.sending = false
  }

  /** Resolves when nothing is in flight. */
  async settled(withinMs = 20_000): Promise<void> {
    await waitFor(() => this.up && this.inFlight.length === 0 && this.again.length === 0, {
      withinMs,
      what: () => `${this.options.clientId} to have everything acknowledged (broken: ${this.broken})`,
    })
  }

  stop(): void {
    this.stopped = true
    clearInterval(this.ticker)
    clearTimeout(this.timer)
    this.socket?.destroy()
  }

  private open(): void {
    const { host, port } = this.options.address()
    const socket = connectSocket(port, host)
    this.socket = socket
    socket.setNoDelay(true)
    const reader = new PacketReader()
    socket.on('connect', () => socket.write(connectPacket(this.options.clientId)))
    socket.on('data', (bytes: Buffer) => reader.push(bytes, (packet) => this.receive(packet)))
    socket.on('error', () => {})
    socket.on('close', () => {
      this.up = false
      if (this.options.resend) this.again = [...this.inFlight, ...this.again]
      this.inFlight = []
      if (!this.stopped) this.timer = setTimeout(() => this.open(), reconnectMs)
    })
  }

  private receive({ type, body }: Packet): void {
    if (type === packetType.connack) {
      this.up = body[1] === 0
      if (!this.up) this.broken ??= `CONNECT was refused with ${body[1]}`
      this.lastTickAt = performance.now()
      this.pump()
      return
    }
    const index = this.inFlight.shift()
    const id = type === packetType.puback ? body.readUInt16BE(0) : -1
    if (index === undefined || id !== packetIdOf(index)) {
      // MQTT 3.1.1 §4.6: acknowledgements come in the order of the publishes.
      this.broken ??= `expected PUBACK ${index === undefined ? 'of nothing' : packetIdOf(index)}, got packet ${type}, id ${id}`
      return
    }
    this.acknowledged++
    this.options.onAcknowledged(index)
    if (this.options.ratePerS === undefined || this.again.length > 0) this.pump()
  }

  private tick(ratePerS: number): void {
    const now = performance.now()
    if (this.up && this.sending) this.owed = Math.min(this.owed + ((now - this.lastTickAt) / 1000) * ratePerS, ratePerS)
    this.lastTickAt = now
    this.pump()
  }

  private pump(): void {
    if (!this.up) return
    const out: Buffer[] = []
    const limited = this.options.ratePerS !== undefined
    while (this.inFlight.length < this.options.window) {
      const repeat = this.again.shift()
      if (repeat === undefined && (!this.sending || (limited && this.owed < 1))) break
      const index = repeat ?? this.sent++
      if (repeat !== undefined) this.timesSent.set(index, (this.timesSent.get(index) ?? 1) + 1)
      else if (limited) this.owed--
      this.inFlight.push(index)
      out.push(publishPacket({ ...this.options.message(index), id: packetIdOf(index), dup: repeat !== undefined }))
    }
    if (out.length > 0) this.socket!.write(Buffer.concat(out))
  }
}

function packetIdOf(index: number): number {
  return (index % 65_535) + 1
}
