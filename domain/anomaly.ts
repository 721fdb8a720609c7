// What a detector found: one reading that is like none before, why, and what would have been nothing new. As bytes it is a RowBinary row of the table
// `anomalies`, in the log topic `anomalies`. Everything in it follows from the readings alone, so the same readings give the same rows again.

import type { DeviceName, MetricName, Micros, Tenant } from './reading.ts'

export interface Anomaly {
  readonly tenant: Tenant
  readonly device: DeviceName
  readonly metric: MetricName
  readonly observedAt: Micros
  /** Of the reading: a later finding about the same instant takes the place of an earlier one. */
  readonly receivedAt: Micros
  readonly id: string
  /** Name and version, `coverage-net/1`. */
  readonly detector: string
  /** Above 0, below 1. */
  readonly score: number
  readonly value: number
  readonly expectedLow: number
  readonly expectedHigh: number
  /** For a person. */
  readonly explanation: string
  /** For a program: JSON of an object. */
  readonly evidence: string
}

export const anomalyStructure =
  "tenant LowCardinality(String), device LowCardinality(String), metric LowCardinality(String), observedAt DateTime64(6, 'UTC'), " +
  "receivedAt DateTime64(6, 'UTC'), id String, detector LowCardinality(String), score Float64, value Float64, expectedLow Float64, " +
  'expectedHigh Float64, explanation String, evidence String'

/** Deterministic: 14 hex digits of observedAt, a dash, 16 of a hash of series and detector. Sorts by time. */
export function anomalyId(
  anomaly: Pick<Anomaly, 'tenant' | 'device' | 'metric' | 'observedAt'>,
  detector: string,
): string {
  const key = `${anomaly.tenant}\0${anomaly.device}\0${anomaly.metric}\0${detector}`
  const instant = anomaly.observedAt.toString(16).padStart(14, '0')
  return `${instant}-${hash(key, 0x811c9dc5)}${hash(key, 0x9747b28c)}`
}

/** FNV-1a over UTF-16 code units, mixed at the end so that two seeds give two hashes. */
function hash(text: string, seed: number): string {
  let bits = seed
  for (let i = 0; i < text.length; i++) {
    bits = Math.imul(bits ^ text.charCodeAt(i), 0x01000193)
    bits ^= bits >>> 15
  }
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b)
  bits ^= bits >>> 13
  return (bits >>> 0).toString(16).padStart(8, '0')
}

/** RowBinary: each text with its varint length, instants as i64, numbers as f64, little-endian. */
export function encodeAnomaly(anomaly: Anomaly): Buffer {
  const parts: Buffer[] = []
  const text = (value: string): void => {
    const bytes = Buffer.from(value, 'utf8')
    const length: number[] = []
    let rest = bytes.length
    while (rest > 127) {
      length.push((rest & 127) | 128)
      rest >>>= 7
    }
    length.push(rest)
    parts.push(Buffer.from(length), bytes)
  }
  const instant = (micros: number): void => {
    const bytes = Buffer.alloc(8)
    bytes.writeBigInt64LE(BigInt(micros))
    parts.push(bytes)
  }
  const number = (value: number): void => {
    const bytes = Buffer.alloc(8)
    bytes.writeDoubleLE(value)
    parts.push(bytes)
  }
  text(anomaly.tenant)
  text(anomaly.device)
  text(anomaly.metric)
  instant(anomaly.observedAt)
  instant(anomaly.receivedAt)
  text(anomaly.id)
  text(anomaly.detector)
  number(anomaly.score)
  number(anomaly.value)
  number(anomaly.expectedLow)
  number(anomaly.expectedHigh)
  text(anomaly.explanation)
  text(anomaly.evidence)
  return Buffer.concat(parts)
}

/** The anomalies of a chunk. Throws a RangeError on bytes that are not rows. */
export function decodeAnomalies(rows: Uint8Array): Anomaly[] {
  const bytes = Buffer.from(rows.buffer, rows.byteOffset, rows.byteLength)
  let at = 0
  const text = (): string => {
    let length = 0
    let shift = 0
    let byte: number
    do {
      byte = bytes.readUInt8(at++)
      if (shift > 21) throw new RangeError(`not an anomaly: bad length at byte ${at - 1}`)
      length |= (byte & 127) << shift
      shift += 7
    } while (byte & 128)
    if (at + length > bytes.length) throw new RangeError(`not an anomaly: text past the end at byte ${at}`)
    at += length
    return bytes.utf8Slice(at - length, at)
  }
  const instant = (): number => {
    at += 8
    return Number(bytes.readBigInt64LE(at - 8))
  }
  const number = (): number => {
    at += 8
    return bytes.readDoubleLE(at - 8)
  }
  const anomalies: Anomaly[] = []
  while (at < bytes.length) {
    anomalies.push({
      tenant: text(),
      device: text(),
      metric: text(),
      observedAt: instant(),
      receivedAt: instant(),
      id: text(),
      detector: text(),
      score: number(),
      value: number(),
      expectedLow: number(),
      expectedHigh: number(),
      explanation: text(),
      evidence: text(),
    })
  }
  return anomalies
}
