// The bytes of a dead letter for a person: as text where they are text, and as the dump that every hex editor shows.

export interface PayloadView {
  readonly bytes: Buffer
  /** Undefined: not UTF-8, or full of control characters. */
  readonly text: string | undefined
  /** Sixteen bytes a line: place, hexadecimal, and what is printable of it. */
  readonly dump: string
  /** Bytes that the dump leaves out. */
  readonly dumpLeft: number
}

const dumpBytesMax = 4_096

export function viewPayload(base64: string): PayloadView {
  const bytes = Buffer.from(base64, 'base64')
  return {
    bytes,
    text: textOf(bytes),
    dump: hexDump(bytes.subarray(0, dumpBytesMax)),
    dumpLeft: Math.max(0, bytes.length - dumpBytesMax),
  }
}

function textOf(bytes: Buffer): string | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
    return /[\p{Cc}\p{Co}\p{Cn}]/u.test(text.replaceAll(/[\r\n\t]/g, '')) ? undefined : text
  } catch {
    return undefined
  }
}

function hexDump(bytes: Buffer): string {
  const lines: string[] = []
  for (let at = 0; at < bytes.length; at += 16) {
    const row = [...bytes.subarray(at, at + 16)]
    const hex = row.map((byte) => byte.toString(16).padStart(2, '0'))
    const halves = `${hex.slice(0, 8).join(' ')}  ${hex.slice(8).join(' ')}`
    const shown = row.map((byte) => (byte >= 0x20 && byte < 0x7f ? String.fromCharCode(byte) : '.')).join('')
    lines.push(`${at.toString(16).padStart(6, '0')}  ${halves.padEnd(48)}  |${shown}|`)
  }
  return lines.join('\n')
}

/** What a form says the payload should be. Forms end their lines with CRLF, whatever stood there: text gets its LF back. */
export function mendedPayload(text: string, encoding: 'text' | 'base64'): Buffer | undefined {
  if (encoding === 'text') return Buffer.from(text.replaceAll('\r\n', '\n'))
  const bare = text.replaceAll(/\s/g, '')
  const isBase64 = /^[A-Za-z0-9+/]*={0,2}$/.test(bare) && bare.length % 4 === 0
  return isBase64 ? Buffer.from(bare, 'base64') : undefined
}
