// NDJSON: the JSON codec line by line. A line that can't be used is refused alone; the others are kept. Blank lines say nothing.

import type { Codec } from './codec.ts'
import { json } from './json.ts'

const lineFeed = 0x0a

export const ndjson: Codec = {
  name: 'ndjson',
  decode(bytes, start, end, out) {
    let lineStart = start
    while (lineStart < end) {
      const found = bytes.indexOf(lineFeed, lineStart)
      const lineEnd = found === -1 || found > end ? end : found
      if (!isBlank(bytes, lineStart, lineEnd)) json.decode(bytes, lineStart, lineEnd, out)
      lineStart = lineEnd + 1
    }
  },
}

function isBlank(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!
    if (byte !== 0x20 && byte !== 0x0d && byte !== 0x09) return false
  }
  return true
}
