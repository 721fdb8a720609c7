// Reads of plain TCP sockets go into one piece of memory that all of them share, since what they bring is taken at once. Node allots 64 KB a read
// and passes it through a stream otherwise, which costs about a tenth of what an acknowledged publish takes. `onread` is Node's own way for this, and
// is open to sockets that are made by hand only: for those of a server it is set here. Where it can't be had, the stream does as well.
import { Socket } from 'node:net'
import type { Duplex } from 'node:stream'

/** What libuv reads at most at once. */
const sharedBytes = 64 * 1024
const shared = Buffer.allocUnsafeSlow(sharedBytes)

interface Handle {
  useUserBuffer?(buffer: Uint8Array): void
}

/** `take(bytes, end)` gets what was read: bytes[0, end), its own until it returns. False: this socket has to be listened to for 'data'. */
export function readIntoShared(socket: Duplex, take: (bytes: Buffer, end: number) => void): boolean {
  if (!(socket instanceof Socket) || socket.constructor !== Socket) return false
  const fields = socket as unknown as { _handle?: Handle | null } & Record<symbol, unknown>
  const handle = fields._handle
  const [kBuffer, kBufferCb] = keys(fields)
  if (!handle?.useUserBuffer || kBuffer === undefined || kBufferCb === undefined) return false
  handle.useUserBuffer(shared)
  fields[kBuffer] = shared
  fields[kBufferCb] = (length: number) => {
    take(shared, length)
    return true
  }
  socket.resume()
  return true
}

let known: readonly (symbol | undefined)[] | undefined

function keys(socket: object): readonly (symbol | undefined)[] {
  if (known) return known
  const symbols = Object.getOwnPropertySymbols(socket)
  known = ['kBuffer', 'kBufferCb'].map((name) => symbols.find(({ description }) => description === name))
  return known
}
