// A viewer over WebSocket, as a page is one: keeps every frame that came. Its socket is a bare one, so that it can stop reading.

import { decodeColumns } from './columns.ts'
import { waitFor } from './wait-for.ts'
import { type OpenOptions, TestSocket } from './websocket.ts'

export type LiveMessage = Record<string, unknown> & { readonly type: string; readonly cursor?: string }
export interface LiveItem {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly value?: number
  readonly text?: string
}

export interface LiveViewerOptions extends OpenOptions {
  /** Asks for columns, and keeps them in their place among the frames, as what they stand for. */
  readonly readsColumns?: boolean
}

export class LiveViewer {
  readonly socket: TestSocket

  private constructor(socket: TestSocket) {
    this.socket = socket
  }

  /** `url`: as the start-up line has it. Resolves once the server has answered the upgrade; throws what it answered when it refused. */
  static async open(url: string, query = '', given: LiveViewerOptions = {}): Promise<LiveViewer> {
    const { readsColumns = false, ...options } = given
    const { hostname, port } = new URL(url)
    const address = { host: hostname, port: Number(port) }
    const asked = readsColumns ? { ...options, protocol: 'weir.columns' } : options
    const socket = new TestSocket(address, `/v1/live${query === '' ? '' : `?${query}`}`, asked)
    if (readsColumns)
      socket.onBinary = (bytes) => void socket.messages.push({ type: 'readings', ...decodeColumns(bytes) })
    await waitFor(() => socket.isOpen || socket.isClosed, { withinMs: 20_000, what: 'an answer to the upgrade' })
    if (!socket.isOpen) throw new Error(`the upgrade was refused: ${socket.head}`)
    return new LiveViewer(socket)
  }

  get frames(): readonly LiveMessage[] {
    return this.socket.messages as LiveMessage[]
  }

  /** The first frame of this type that fits, among those that came and those that will. */
  waitForFrame(
    type: string,
    fits: (frame: LiveMessage) => boolean = () => true,
    withinMs = 20_000,
  ): Promise<LiveMessage> {
    return waitFor(() => this.frames.find((frame) => frame.type === type && fits(frame)), {
      withinMs,
      what: () => `a frame "${type}"; so far: ${this.frames.map((frame) => frame.type).join(' ')}`,
    })
  }

  /** What all frames so far said of readings, in order. */
  readings(id?: unknown): LiveItem[] {
    return this.frames
      .filter((frame) => frame.id === id)
      .flatMap((frame) => (frame.type === 'readings' ? (frame.items as LiveItem[]) : []))
  }

  /** Readings and revisions, in order. */
  told(): LiveItem[] {
    return this.frames.flatMap((frame) =>
      frame.type === 'readings' ? (frame.items as LiveItem[]) : frame.type === 'revision' ? [itemOf(frame)] : [],
    )
  }

  /** Of the last frame that had one. */
  cursor(): string | undefined {
    return this.frames.findLast(({ cursor }) => cursor !== undefined && cursor !== '')?.cursor
  }

  close(): void {
    this.socket.destroy()
  }
}

function itemOf(frame: LiveMessage): LiveItem {
  const { device, metric, observedAt, value, text } = frame as unknown as LiveItem
  return { device, metric, observedAt, ...(text === undefined ? { value } : { text }) } as LiveItem
}
