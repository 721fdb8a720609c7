// Reads a columnar frame of the live port as docs/live.md describes it, independently of the code that writes it.
export interface ColumnsFrame {
  readonly cursor: string
  /** Undefined: of the subscription of the address. */
  readonly id: unknown
  readonly items: { device: string; metric: string; observedAt: number; value?: number; text?: string }[]
}

export function decodeColumns(bytes: Buffer): ColumnsFrame {
  const version = bytes.readUInt8(0)
  if (version !== 1) throw new Error(`a columnar frame of version ${version}`)
  const [cursorLength, idLength] = [bytes.readUInt16LE(2), bytes.readUInt16LE(4)]
  const [count, seriesCount, textCount, total] = [8, 12, 16, 20].map((at) => bytes.readUInt32LE(at)) as [
    number,
    number,
    number,
    number,
  ]
  if (total !== bytes.length) throw new Error(`${bytes.length} bytes of a frame of ${total}`)
  let at = 24 + 20 * count
  const take = (length: number): string => {
    at += length
    return bytes.toString('utf8', at - length, at)
  }
  const cursor = take(cursorLength)
  const id = idLength === 0 ? undefined : (JSON.parse(take(idLength)) as unknown)
  const series = Array.from({ length: seriesCount }, () => {
    const device = take(bytes.readUInt8(at++))
    at += 2
    return { device, metric: take(bytes.readUInt16LE(at - 2)) }
  })
  const texts = Array.from({ length: textCount }, () => {
    at += 2
    return take(bytes.readUInt16LE(at - 2))
  })
  if (at !== bytes.length) throw new Error(`${bytes.length - at} bytes beyond the texts`)
  const items = Array.from({ length: count }, (_, i) => {
    const value = bytes.readDoubleLE(24 + 8 * count + 8 * i)
    return {
      ...series[bytes.readUInt32LE(24 + 16 * count + 4 * i)]!,
      observedAt: bytes.readDoubleLE(24 + 8 * i),
      ...(Number.isNaN(value) ? { text: texts.shift()! } : { value }),
    }
  })
  return { cursor, id, items }
}
