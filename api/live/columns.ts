// Readings as columns, for a page that draws thousands: numbers lie where a Float64Array can be laid over them. docs/live.md has it byte for byte.
import type { LiveItem, SeriesLabel } from './frame.ts'

const columnsVersion = 1
const columnsHeaderBytes = 24

/** `id` is JSON, or ''. */
export function encodeColumns(cursor: string, id: string, items: readonly LiveItem[]): Buffer {
  const series = new Map<SeriesLabel, number>()
  const texts: Buffer[] = []
  let tailBytes = 0
  for (const { label, value } of items) {
    if (!series.has(label)) {
      series.set(label, series.size)
      tailBytes += label.columnBytes().length
    }
    if (typeof value !== 'string') continue
    const text = Buffer.from(value)
    texts.push(text)
    tailBytes += 2 + text.length
  }
  const count = items.length
  const cursorBytes = Buffer.from(cursor)
  const idBytes = Buffer.from(id)
  const observedAtAt = columnsHeaderBytes
  const valueAt = observedAtAt + 8 * count
  const seriesAt = valueAt + 8 * count
  const tailAt = seriesAt + 4 * count
  const bytes = Buffer.allocUnsafeSlow(tailAt + cursorBytes.length + idBytes.length + tailBytes)
  bytes[0] = columnsVersion
  bytes[1] = 0
  bytes.writeUInt16LE(cursorBytes.length, 2)
  bytes.writeUInt16LE(idBytes.length, 4)
  bytes.writeUInt16LE(0, 6)
  bytes.writeUInt32LE(count, 8)
  bytes.writeUInt32LE(series.size, 12)
  bytes.writeUInt32LE(texts.length, 16)
  bytes.writeUInt32LE(bytes.length, 20)
  for (let i = 0; i < count; i++) {
    const { label, observedAt, value } = items[i]!
    bytes.writeDoubleLE(observedAt, observedAtAt + 8 * i)
    bytes.writeDoubleLE(typeof value === 'string' ? Number.NaN : value, valueAt + 8 * i)
    bytes.writeUInt32LE(series.get(label)!, seriesAt + 4 * i)
  }
  let at = tailAt
  at += cursorBytes.copy(bytes, at)
  at += idBytes.copy(bytes, at)
  for (const label of series.keys()) at += label.columnBytes().copy(bytes, at)
  for (const text of texts) {
    bytes.writeUInt16LE(text.length, at)
    at += 2 + text.copy(bytes, at + 2)
  }
  return bytes
}
