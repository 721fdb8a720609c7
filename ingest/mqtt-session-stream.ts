// Between a connection of the front and aedes: packets go in whole, bytes for the peer come out.
import { Duplex } from 'node:stream'
import type { DeviceCredential } from '../domain/authority.ts'
import { ingestLimits } from './limits.ts'

/** What a connection of the front hears from its session. */
export interface SessionOwner {
  readonly clientId: string
  readonly credential: DeviceCredential
  /** The session stands: packets may be passed. */
  onSessionReady(): void
  /** Bytes for the peer; `done` when more may come. */
  onSessionOutput(bytes: Buffer, done: () => void): void
  /** A passed publish of QoS 0 or 1 has been dealt with. Other packets are settled by their answer. */
  onPassedDone(): void
  /** The session is over: taken over, refused, an error, or DISCONNECT. */
  onSessionClosed(error: Error | undefined): void
  /** Bytes written to the peer that it has not taken. */
  readonly outputBytes: number
}

export interface BrokerSession {
  /** A whole packet; the bytes are kept. */
  pass(packet: Buffer): void
  close(): void
}

/** What aedes takes for a socket. */
export class SessionStream extends Duplex implements BrokerSession {
  readonly owner: SessionOwner
  private isOver = false

  constructor(owner: SessionOwner) {
    super({ writableHighWaterMark: ingestLimits.sessionOutputBytesMax })
    this.owner = owner
  }

  pass(packet: Buffer): void {
    if (!this.destroyed) this.push(packet)
  }

  close(): void {
    this.isOver = true
    this.destroy()
  }

  override _read(): void {
    // The front pushes, and holds back by its own count of what is under way.
  }

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.owner.onSessionOutput(chunk, done)
  }

  override _writev(chunks: { chunk: Buffer | string; encoding: BufferEncoding }[], done: () => void): void {
    const parts = chunks.map(({ chunk, encoding }) =>
      typeof chunk === 'string' ? Buffer.from(chunk, encoding) : chunk,
    )
    this.owner.onSessionOutput(parts.length === 1 ? parts[0]! : Buffer.concat(parts), done)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    if (!this.isOver) {
      this.isOver = true
      this.owner.onSessionClosed(error ?? undefined)
    }
    // Given on to nobody: aedes has its own word for it, and an unheard 'error' would end the process.
    done(null)
  }
}
