// The frames of /v1/ingest, found in a message's bytes without making anything of them: the payload goes to its codec as it came. A text frame is one
// JSON object, of which only the keys are read; a binary one has u32 id, u8 codec, u8 device length, device, payload.
import { frameCodecs } from './gateway-payloads.ts'

/** Where things stand in the message that was read last; one for all sockets. -1: not there. */
export class IngestFrame {
  id = -1
  codecStart = -1
  codecEnd = -1
  /** Of a binary frame: its place in `frameCodecs`. */
  codecNumber = -1
  deviceStart = -1
  deviceEnd = -1
  payloadStart = -1
  payloadEnd = -1
  /** The payload is a JSON string. */
  isPayloadText = false

  /** False: malformed. */
  readBinary(bytes: Buffer, start: number, end: number): boolean {
    const device = start + binaryHeadBytes
    if (device > end) return false
    const codecNumber = bytes[start + 4]!
    const deviceEnd = device + bytes[start + 5]!
    if (codecNumber >= frameCodecs.length || deviceEnd > end) return false
    this.id = bytes.readUInt32BE(start)
    this.codecNumber = codecNumber
    this.deviceStart = device === deviceEnd ? -1 : device
    this.deviceEnd = deviceEnd
    this.payloadStart = deviceEnd
    this.payloadEnd = end
    this.isPayloadText = false
    return true
  }

  /** False: malformed, or without an id or a payload. What stands within the payload is for its codec to judge. */
  readText(bytes: Buffer, from: number, to: number): boolean {
    this.id = -1
    this.codecStart = -1
    this.codecNumber = -1
    this.deviceStart = -1
    this.payloadStart = -1
    let at = skipSpace(bytes, from, to)
    if (bytes[at] !== brace) return false
    at = skipSpace(bytes, at + 1, to)
    while (at < to && bytes[at] !== braceEnd) {
      const keyEnd = endOfValue(bytes, at, to)
      if (bytes[at] !== quote || keyEnd < 0) return false
      const colon = skipSpace(bytes, keyEnd, to)
      if (bytes[colon] !== 0x3a) return false
      const start = skipSpace(bytes, colon + 1, to)
      const end = endOfValue(bytes, start, to)
      if (end < 0 || !this.member(bytes, at + 1, keyEnd - 1, start, end)) return false
      at = skipSpace(bytes, end, to)
      if (bytes[at] === comma) {
        at = skipSpace(bytes, at + 1, to)
        if (bytes[at] !== quote) return false
      } else if (bytes[at] !== braceEnd) return false
    }
    return at < to && skipSpace(bytes, at + 1, to) === to && this.id >= 0 && this.payloadStart >= 0
  }

  /** A key's length tells the four that are known apart; any other is not for us. */
  private member(bytes: Buffer, key: number, keyEnd: number, start: number, end: number): boolean {
    const length = keyEnd - key
    if (length === 2 && isWord(bytes, key, 'id')) {
      this.id = wholeNumber(bytes, start, end)
      return this.id >= 0
    }
    if (length === 7 && isWord(bytes, key, 'payload')) {
      this.isPayloadText = bytes[start] === quote
      this.payloadStart = start
      this.payloadEnd = end
      return true
    }
    if (length === 6 && isWord(bytes, key, 'device')) {
      this.deviceStart = start + 1
      this.deviceEnd = end - 1
      return bytes[start] === quote
    }
    if (length === 5 && isWord(bytes, key, 'codec')) {
      this.codecStart = start + 1
      this.codecEnd = end - 1
      return bytes[start] === quote
    }
    return true
  }
}

/** id, codec, length of the device's name */
const binaryHeadBytes = 6
const quote = 0x22
const backslash = 0x5c
const brace = 0x7b
const braceEnd = 0x7d
const comma = 0x2c
/** Digits of an id: it stays exact. */
const digitsMax = 15

function skipSpace(bytes: Buffer, from: number, to: number): number {
  let at = from
  while (at < to) {
    const byte = bytes[at]!
    if (byte !== 0x20 && byte !== 0x0a && byte !== 0x0d && byte !== 0x09) break
    at++
  }
  return at
}

/** Just past the JSON value that begins at `start`; -1 when it does not end. Brackets are counted, not matched: a codec reads the inside. */
function endOfValue(bytes: Buffer, start: number, end: number): number {
  const first = bytes[start]
  if (first === quote) return endOfString(bytes, start, end)
  let at = start
  if (first !== brace && first !== 0x5b) {
    while (at < end && isScalar(bytes[at]!)) at++
    return at > start ? at : -1
  }
  let depth = 0
  while (at < end) {
    const byte = bytes[at]!
    if (byte === quote) {
      at = endOfString(bytes, at, end)
      if (at < 0) return -1
      continue
    }
    at++
    if (byte === brace || byte === 0x5b) depth++
    else if ((byte === braceEnd || byte === 0x5d) && --depth === 0) return at
  }
  return -1
}

function endOfString(bytes: Buffer, start: number, end: number): number {
  for (let at = start + 1; at < end; at++) {
    const byte = bytes[at]!
    if (byte === quote) return at + 1
    if (byte === backslash) at++
  }
  return -1
}

/** Of a number, true, false or null. */
function isScalar(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2d ||
    byte === 0x2b ||
    byte === 0x2e ||
    byte === 0x45
  )
}

function isWord(bytes: Buffer, at: number, word: string): boolean {
  for (let i = 0; i < word.length; i++) if (bytes[at + i] !== word.charCodeAt(i)) return false
  return true
}

function wholeNumber(bytes: Buffer, start: number, end: number): number {
  if (end - start > digitsMax) return -1
  let number = 0
  for (let at = start; at < end; at++) {
    const digit = bytes[at]! - 0x30
    if (digit < 0 || digit > 9) return -1
    number = number * 10 + digit
  }
  return number
}
