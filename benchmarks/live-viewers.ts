// Many viewers in this process, on bare sockets: they walk frames and count, and a few of them look inside, so that what is measured is the server.

import { waitFor } from '../tests/helpers/wait-for.ts'
import { opcodes, ServerFrames, TestSocket } from '../tests/helpers/websocket.ts'

export interface LiveViewersOptions {
  readonly url: string
  readonly path: string
  readonly count: number
  /** How many look inside. */
  readonly lookers: number
  readonly onText: (text: string) => void
}

export class LiveViewers {
  frames = 0
  bytes = 0
  private readonly sockets: TestSocket[] = []

  static async open({ url, path, count, lookers, onText }: LiveViewersOptions): Promise<LiveViewers> {
    const viewers = new LiveViewers()
    const { hostname: host, port } = new URL(url)
    for (let i = 0; i < count; i++) {
      const socket = new TestSocket({ host, port: Number(port) }, path)
      viewers.sockets.push(socket)
      await waitFor(() => socket.isOpen, { withinMs: 20_000, everyMs: 1, what: 'a viewer to be let in' })
      const frames = new ServerFrames()
      const isLooker = i < lookers
      // Its own reader would parse every message of every viewer.
      socket.socket.removeAllListeners('data')
      socket.socket.on('data', (bytes: Buffer) => {
        viewers.bytes += bytes.length
        frames.take(bytes, (opcode, payload) => {
          if (opcode !== opcodes.text) return
          viewers.frames++
          if (isLooker) onText(payload.toString())
        })
      })
    }
    return viewers
  }

  /** These read no more. */
  freeze(count: number): void {
    for (const { socket } of this.sockets.slice(-count)) socket.pause()
  }

  close(): void {
    for (const socket of this.sockets) socket.destroy()
  }
}

/** CPU time of this process' main thread and all others, in µs. */
export function ownCpuUs(): number {
  const { user, system } = process.cpuUsage()
  return user + system
}
