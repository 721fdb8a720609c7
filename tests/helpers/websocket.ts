// A WebSocket client on a bare socket: what a well-behaved one never sends can be sent too, and reading can be stopped.
import { randomBytes } from 'node:crypto'
import { connect, type Socket } from 'node:net'
import { waitFor } from './wait-for.ts'

export interface Address {
  readonly host: string
  readonly port: number
}

export interface OpenOptions {
  readonly headers?: Readonly<Record<string, string>>
  readonly protocol?: string
}

/** A whole frame, masked as a client must (RFC 6455 §5.3). */
export function clientFrame(opcode: number, payload: Uint8Array, { fin = true } = {}): Buffer {
  const { length } = payload
  const header =
    length < 126
      ? Buffer.from([0, 0x80 | length])
      : length < 65_536
        ? Buffer.from([0, 0x80 | 126, length >> 8, length & 255])
        : Buffer.from([
            0,
            0x80 | 127,
            0,
            0,
            0,
            0,
            length >>> 24,
            (length >> 16) & 255,
            (length >> 8) & 255,
            length & 255,
          ])
  header[0] = (fin ? 0x80 : 0) | opcode
  // A mask of zeros is a mask: the payload stays as it is, which costs a load generator nothing.
  return Buffer.concat([header, Buffer.alloc(4), payload])
}

export const opcodes = { continuation: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const

/** Splits what a server sends into its frames. */
export class ServerFrames {
  private kept: Buffer = Buffer.alloc(0)

  take(bytes: Buffer, onFrame: (opcode: number, payload: Buffer) => void): void {
    const all = this.kept.length === 0 ? bytes : Buffer.concat([this.kept, bytes])
    let at = 0
    while (all.length - at >= 2) {
      let length = all[at + 1]! & 127
      let start = at + 2
      if (length === 126) {
        if (all.length - at < 4) break
        length = all.readUInt16BE(at + 2)
        start = at + 4
      } else if (length === 127) {
        if (all.length - at < 10) break
        length = Number(all.readBigUInt64BE(at + 2))
        start = at + 10
      }
      if (all.length < start + length) break
      onFrame(all[at]! & 15, all.subarray(start, start + length))
      at = start + length
    }
    this.kept = all.subarray(at)
  }
}

export class TestSocket {
  /** Text frames, parsed. */
  readonly messages: Record<string, unknown>[] = []
  readonly binary: Buffer[] = []
  /** The upgrade was answered with 101. */
  onOpen: (() => void) | undefined
  /** Instead of keeping what comes. */
  onMessage: ((message: Record<string, unknown>) => void) | undefined
  onBinary: ((bytes: Buffer) => void) | undefined
  closeCode: number | undefined
  closeReason = ''
  isClosed = false
  /** What the server answered to the upgrade. */
  head = ''
  readonly socket: Socket
  private readonly frames = new ServerFrames()

  constructor({ host, port }: Address, path: string, { headers = {}, protocol }: OpenOptions = {}) {
    this.socket = connect(port, host)
    this.socket.setNoDelay(true)
    const all = {
      Host: `${host}:${port}`,
      Upgrade: 'websocket',
      Connection: 'Upgrade',
      'Sec-WebSocket-Key': randomBytes(16).toString('base64'),
      'Sec-WebSocket-Version': '13',
      ...(protocol !== undefined && { 'Sec-WebSocket-Protocol': protocol }),
      ...headers,
    }
    const lines = Object.entries(all).map(([name, value]) => `${name}: ${value}\r\n`)
    this.socket.write(`GET ${path} HTTP/1.1\r\n${lines.join('')}\r\n`)
    this.socket.on('data', (bytes: Buffer) => this.onData(bytes))
    this.socket.on('error', () => {})
    this.socket.on('close', () => {
      this.isClosed = true
    })
  }

  get isOpen(): boolean {
    return this.head.startsWith('HTTP/1.1 101')
  }

  /** Resolves with the hello. */
  async hello(): Promise<Record<string, unknown>> {
    return waitFor(() => this.messages.find(({ type }) => type === 'hello'), { what: 'a hello' })
  }

  json(message: unknown): void {
    this.text(JSON.stringify(message))
  }

  text(text: string): void {
    this.socket.write(clientFrame(opcodes.text, Buffer.from(text)))
  }

  bytes(payload: Uint8Array): void {
    this.socket.write(clientFrame(opcodes.binary, payload))
  }

  /** The highest id that was acknowledged, or -1. */
  get ackedUpTo(): number {
    return Number(this.messages.findLast(({ type }) => type === 'ack')?.upTo ?? -1)
  }

  async closed(): Promise<number | undefined> {
    await waitFor(() => this.isClosed, { what: 'the socket to close' })
    return this.closeCode
  }

  destroy(): void {
    this.socket.destroy()
  }

  private heard(message: Record<string, unknown>): void {
    if (this.onMessage) this.onMessage(message)
    else this.messages.push(message)
  }

  private heardBinary(bytes: Buffer): void {
    if (this.onBinary) this.onBinary(bytes)
    else this.binary.push(bytes)
  }

  private onData(bytes: Buffer): void {
    let rest = bytes
    if (this.head === '' || !this.head.endsWith('\r\n\r\n')) {
      const all = Buffer.concat([Buffer.from(this.head, 'latin1'), bytes])
      const end = all.indexOf('\r\n\r\n')
      if (end < 0 || !all.subarray(0, 12).toString('latin1').includes('101')) {
        this.head = all.toString('latin1')
        return
      }
      this.head = all.subarray(0, end + 4).toString('latin1')
      this.onOpen?.()
      rest = all.subarray(end + 4)
    }
    this.frames.take(rest, (opcode, payload) => {
      if (opcode === opcodes.text) this.heard(JSON.parse(payload.toString()) as Record<string, unknown>)
      else if (opcode === opcodes.binary) this.heardBinary(Buffer.from(payload))
      else if (opcode === opcodes.ping) this.socket.write(clientFrame(opcodes.pong, payload))
      else if (opcode === opcodes.close) {
        this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005
        this.closeReason = payload.subarray(2).toString()
        this.socket.end()
      }
    })
  }
}

/** A binary frame of /v1/ingest. */
export function ingestFrame(id: number, codec: number, device: string, payload: string | Uint8Array): Buffer {
  const head = Buffer.alloc(6)
  head.writeUInt32BE(id, 0)
  head[4] = codec
  head[5] = Buffer.byteLength(device)
  return Buffer.concat([head, Buffer.from(device), Buffer.from(payload as string)])
}
