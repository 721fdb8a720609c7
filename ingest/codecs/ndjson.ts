// NDJSON: the JSON codec line by line. A line that can't be used is refused alone; the others are kept. Blank lines say nothing.

import type { Codec } from './codec.ts'
import { decodeText } from './json.ts'

/** A line that is no JSON costs twenty times what a good one does: a payload of nothing else would hold everybody up. */
export const malformedLinesMax = 1_000
const lineFeed = 0x0a

export const ndjson: Codec = {
  name: 'ndjson',
  decode(bytes, start, end, out) {
    // What is behind the payload is somebody else's, and is not searched.
    const upToEnd = bytes.subarray(0, end)
    let malformed = 0
    let lineStart = start
    while (lineStart < end) {
      const found = upToEnd.indexOf(lineFeed, lineStart)
      const lineEnd = found === -1 ? end : found
      if (!isBlank(bytes, lineStart, lineEnd) && !decodeText(bytes, lineStart, lineEnd, out)) malformed++
      if (malformed > malformedLinesMax) {
        const detail = `more than ${malformedLinesMax} lines of the payload are not JSON; none of it is used: mend it, or send it in parts`
        out.abandon('malformed-payload', detail)
        return
      }
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
