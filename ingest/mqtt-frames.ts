// MQTT 3.1.1 packets as bytes: what the front must understand of them to guard aedes, and the few that it writes itself.
import { isUtf8 } from 'node:buffer'
import { ingestLimits } from './limits.ts'
import { isMqttFilter } from './mqtt-topic.ts'

export const packetTypes = {
  connect: 1,
  connack: 2,
  publish: 3,
  puback: 4,
  pubrec: 5,
  pubrel: 6,
  pubcomp: 7,
  subscribe: 8,
  suback: 9,
  unsubscribe: 10,
  unsuback: 11,
  pingreq: 12,
  pingresp: 13,
  disconnect: 14,
} as const

/** First byte of each packet that a client may send besides PUBLISH, and the length that it must have; -1: any. */
const lengthOf = new Map<number, number>([
  [0x10, -1],
  [0x40, 2],
  [0x50, 2],
  [0x62, 2],
  [0x70, 2],
  [0x82, -1],
  [0xa2, -1],
  [0xc0, 0],
  [0xe0, 0],
])

/** Whether a client may send a packet with this first byte: type, flags, QoS. */
export function isFirstByte(first: number): boolean {
  return first >> 4 === packetTypes.publish ? isPacketStart(first, 0) : lengthOf.has(first)
}

/** Whether a client may send a packet that begins so: type, flags, QoS and, where it is fixed, length (MQTT 3.1.1 §2.2). */
export function isPacketStart(first: number, length: number): boolean {
  if (first >> 4 === packetTypes.publish) {
    const qos = (first >> 1) & 3
    return qos !== 3 && (qos > 0 || (first & 8) === 0)
  }
  const expected = lengthOf.get(first)
  return expected !== undefined && (expected === -1 || expected === length)
}

/**
 * Size of the packet that begins at `at`, header included; 0 when its header is not whole yet, -1 when its length field is malformed
 * (MQTT 3.1.1 §2.2.3 allows four bytes).
 */
export function packetSize(bytes: Uint8Array, at: number, end: number): number {
  let length = 0
  for (let i = 1; i <= 4; i++) {
    if (at + i >= end) return 0
    const byte = bytes[at + i]!
    length |= (byte & 127) << (7 * (i - 1))
    if (byte < 128) return 1 + i + length
  }
  return -1
}

/** Where the body of the packet at `at` begins, given that its header is whole. */
export function bodyStart(bytes: Uint8Array, at: number): number {
  let body = at + 1
  while (bytes[body++]! > 127);
  return body
}

export interface ConnectPacket {
  /** 3 is MQTT 3.1, 4 is 3.1.1. */
  readonly level: number
  readonly clean: boolean
  readonly keepaliveSeconds: number
  readonly clientId: string
  readonly username: string | undefined
  readonly password: Buffer | undefined
  readonly will:
    | { readonly topic: string; readonly payload: Buffer; readonly qos: number; readonly retain: boolean }
    | undefined
}

/** `version`: a protocol that we do not speak, and the CONNACK that its client can read, when it can read one. */
export type ConnectReading =
  | { readonly kind: 'connect'; readonly connect: ConnectPacket }
  | { readonly kind: 'version'; readonly level: number; readonly answer: Buffer }
  | { readonly kind: 'malformed' }

const malformed: ConnectReading = { kind: 'malformed' }

/** Reads the body of a CONNECT. Strings are copied, nothing refers to `bytes` afterwards. */
export function readConnect(bytes: Buffer, start: number, end: number): ConnectReading {
  const fields = new FieldReader(bytes, start, end)
  const name = fields.text()
  const level = fields.byte()
  if (name === undefined || level === undefined) return malformed
  if (!(name === 'MQTT' && level === 4) && !(name === 'MQIsdp' && level === 3)) {
    if (name !== 'MQTT' && name !== 'MQIsdp') return malformed
    return { kind: 'version', level, answer: level === 5 ? connackVersion5 : connack(1) }
  }
  const flags = fields.byte()
  const keepaliveSeconds = fields.uint16()
  const clientId = fields.text()
  if (flags === undefined || keepaliveSeconds === undefined || clientId === undefined) return malformed
  const [withUsername, withPassword, withWill] = [flags & 128, flags & 64, flags & 4]
  const willQos = (flags >> 3) & 3
  if ((flags & 1) !== 0 || willQos === 3 || (!withWill && (flags & 0x38) !== 0) || (withPassword && !withUsername)) {
    return malformed
  }
  let will: ConnectPacket['will']
  if (withWill) {
    const topic = fields.text()
    const payload = fields.bytes()
    if (topic === undefined || topic === '' || payload === undefined) return malformed
    will = { topic, payload, qos: willQos, retain: (flags & 32) !== 0 }
  }
  const username = withUsername ? fields.text() : undefined
  const password = withPassword ? fields.bytes() : undefined
  if ((withUsername && username === undefined) || (withPassword && password === undefined)) return malformed
  if (!fields.atEnd()) return malformed
  const connect = { level, clean: (flags & 2) !== 0, keepaliveSeconds, clientId, username, password, will }
  return { kind: 'connect', connect }
}

/** The filters of a SUBSCRIBE or UNSUBSCRIBE; undefined when the packet is malformed. */
export function readFilters(bytes: Buffer, start: number, end: number, withQos: boolean): string[] | undefined {
  const fields = new FieldReader(bytes, start, end)
  if (!fields.uint16()) return undefined
  const filters: string[] = []
  while (!fields.atEnd()) {
    const filter = fields.text()
    if (filter === undefined || !isMqttFilter(filter)) return undefined
    if (withQos) {
      const qos = fields.byte()
      if (qos === undefined || qos > 2) return undefined
    }
    filters.push(filter)
  }
  return filters.length > 0 ? filters : undefined
}

/** A text as MQTT wants it: well-formed UTF-8 without U+0000 (MQTT 3.1.1 §1.5.3). */
export function readText(bytes: Buffer, start: number, end: number): string | undefined {
  const slice = bytes.subarray(start, end)
  return isUtf8(slice) && !slice.includes(0) ? slice.toString('utf8') : undefined
}

class FieldReader {
  private readonly source: Buffer
  private at: number
  private readonly end: number

  constructor(source: Buffer, start: number, end: number) {
    this.source = source
    this.at = start
    this.end = end
  }

  atEnd(): boolean {
    return this.at === this.end
  }

  byte(): number | undefined {
    return this.at < this.end ? this.source[this.at++] : undefined
  }

  uint16(): number | undefined {
    if (this.at + 2 > this.end) return undefined
    this.at += 2
    return this.source.readUInt16BE(this.at - 2)
  }

  bytes(): Buffer | undefined {
    const length = this.uint16()
    if (length === undefined || this.at + length > this.end) return undefined
    this.at += length
    return Buffer.from(this.source.subarray(this.at - length, this.at))
  }

  text(): string | undefined {
    const length = this.uint16()
    if (length === undefined || this.at + length > this.end) return undefined
    this.at += length
    return readText(this.source, this.at - length, this.at)
  }
}

/** Return codes of MQTT 3.1.1 §3.2.2.3: 0 accepted, 1 version, 2 client id, 3 server unavailable, 4 bad credentials, 5 not authorised. */
export type ConnackCode = 0 | 1 | 2 | 3 | 4 | 5

export function connack(code: ConnackCode): Buffer {
  return Buffer.from([0x20, 2, 0, code])
}

/** MQTT 5 §3.2: no flags, reason 0x84 (unsupported protocol version), no properties. A 3.1.1 answer would not be readable. */
const connackVersion5 = Buffer.from([0x20, 3, 0, 0x84, 0])
export const pingresp = Buffer.from([0xd0, 0])

export function pubcomp(packetId: number): Buffer {
  return Buffer.from([0x70, 2, packetId >> 8, packetId & 255])
}

/** Every filter of a SUBSCRIBE refused. */
export function subackRefused(packetId: number, filters: number): Buffer {
  const codes = new Array<number>(filters).fill(0x80)
  return Buffer.concat([header(0x90, 2 + filters), Buffer.from([packetId >> 8, packetId & 255, ...codes])])
}

/** The CONNECT that aedes gets: what its session needs, no credentials, and no keepalive, which the front owns. */
export function encodeConnect(connect: Pick<ConnectPacket, 'clientId' | 'clean' | 'will'>): Buffer {
  const { clientId, clean, will } = connect
  const flags = (clean ? 2 : 0) | (will ? 4 | (will.qos << 3) | (will.retain ? 32 : 0) : 0)
  const body = Buffer.concat([
    Buffer.from([0, 4, 77, 81, 84, 84, 4, flags, 0, 0]),
    field(Buffer.from(clientId)),
    ...(will ? [field(Buffer.from(will.topic)), field(will.payload)] : []),
  ])
  return Buffer.concat([header(0x10, body.length), body])
}

function field(bytes: Buffer): Buffer {
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes])
}

function header(first: number, length: number): Buffer {
  const bytes = [first]
  let rest = length
  while (rest > 127) {
    bytes.push((rest & 127) | 128)
    rest >>>= 7
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}

/** Why a client id can't be used; undefined: it can. An empty one is the caller's matter. */
export function isClientId(clientId: string, level: number): boolean {
  // MQTT 3.1 §3.1 says 1 to 23 characters.
  if (level === 3 && (clientId.length === 0 || clientId.length > 23)) return false
  if (Buffer.byteLength(clientId) > ingestLimits.clientIdBytesMax) return false
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is refused
  return !/[\u0000-\u001f\u007f-\u009f]/.test(clientId)
}
