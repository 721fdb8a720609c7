// What could not be used, kept with its bytes, cause and origin, so that it can be read, mended and put back. As bytes it is a RowBinary row of
// the table `dead_letters`, in the log topic `dead-letters`.

import type { RejectReason } from './outcome.ts'
import type { Micros } from './reading.ts'
import { varint } from './row-format.ts'

export interface DeadLetter {
  readonly tenant: string
  readonly device: string
  /** Unique; sorts by time of arrival: 16 hex digits of receivedAt, a dash, 8 hex digits of the payload's CRC32. */
  readonly id: string
  readonly reason: RejectReason
  /** A sentence: what was wrong, where, what to do. */
  readonly detail: string
  /** The metric concerned; empty when the whole payload was unusable. */
  readonly metric: string
  readonly codec: string
  /** Where it came in: an MQTT topic, or a route. */
  readonly origin: string
  readonly receivedAt: Micros
  readonly payload: Uint8Array
}

export const deadLetterStructure =
  'tenant LowCardinality(String), device LowCardinality(String), id String, reason LowCardinality(String), detail String, metric String, ' +
  "codec LowCardinality(String), origin String, receivedAt DateTime64(6, 'UTC'), payload String"

export function deadLetterId(receivedAt: Micros, payloadCrc: number): string {
  return `${receivedAt.toString(16).padStart(16, '0')}-${(payloadCrc >>> 0).toString(16).padStart(8, '0')}`
}

/** RowBinary: each text with its varint length, the instant as i64 little-endian. */
export function encodeDeadLetter(letter: DeadLetter): Buffer {
  const parts: Buffer[] = []
  const text = (value: string | Uint8Array): void => {
    const bytes =
      typeof value === 'string'
        ? Buffer.from(value, 'utf8')
        : Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    parts.push(varint(bytes.length), bytes)
  }
  text(letter.tenant)
  text(letter.device)
  text(letter.id)
  text(letter.reason)
  text(letter.detail)
  text(letter.metric)
  text(letter.codec)
  text(letter.origin)
  const instant = Buffer.alloc(8)
  instant.writeBigInt64LE(BigInt(letter.receivedAt))
  parts.push(instant)
  text(letter.payload)
  return Buffer.concat(parts)
}
