// MQTT over WebSocket as the byte stream that the MQTT front reads: message by message in, write by write out. The front stops reading when it has
// enough; this socket can't be paused, so what comes meanwhile waits here, and a peer that sends beyond the bound is closed with 4008.
import { Duplex } from 'node:stream'
import type { ServerSocket, SocketHandler } from '../runtime/web-server.ts'
import type { IngestEvents, SocketCloseCause } from './events.ts'
import { ingestLimits as limits } from './limits.ts'

export interface MqttSocketHost {
  readonly events: IngestEvents
  /** Bytes that wait in all sockets together. */
  queuedBytes: number
  readonly queuedBytesMax: number
  /** The socket is open: the front may have it. */
  opened(socket: MqttSocket): void
}

/** What a message that waits costs beside its bytes, roughly: a peer that sends byte by byte must not hold a hundred times what is counted. */
const messageOverheadBytes = 160
/** The next write waits until the peer has taken all but this much. */
const outputBytesLow = 64 * 1024

export class MqttSocket extends Duplex implements SocketHandler {
  readonly peer: string
  private readonly host: MqttSocketHost
  private connection: ServerSocket | undefined
  private queued = 0
  private written: (() => void) | undefined

  constructor(host: MqttSocketHost, peer: string) {
    super({ allowHalfOpen: false })
    this.host = host
    this.peer = peer
  }

  opened(connection: ServerSocket): void {
    this.connection = connection
    // The first to hear: what is handed on waits no longer.
    this.on('data', (chunk: Buffer) => this.count(-chunk.length - messageOverheadBytes))
    this.host.opened(this)
  }

  message(bytes: Uint8Array, isBinary: boolean): void {
    if (this.connection === undefined) return
    // MQTT 3.1.1 §6: control packets come in binary frames, anything else ends the connection.
    if (!isBinary) {
      this.close('not-binary', 1003)
      return
    }
    // The stream hands nothing on for nothing.
    if (bytes.length === 0) return
    const { host } = this
    const held = bytes.length + messageOverheadBytes
    if (this.queued + held > limits.mqttQueueBytesMax || host.queuedBytes + held > host.queuedBytesMax) {
      this.close('window', 4008)
      return
    }
    this.count(held)
    this.push(Buffer.from(bytes))
  }

  drained(): void {
    if (this.written === undefined || this.connection === undefined) return
    if (this.connection.bufferedBytes > outputBytesLow) return
    const { written } = this
    this.written = undefined
    written()
  }

  ended(): void {
    this.connection = undefined
    this.destroy()
  }

  override _read(): void {}

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    const { connection } = this
    if (connection?.send(chunk, true) && connection.bufferedBytes > outputBytesLow) this.written = done
    else done()
  }

  override _final(done: () => void): void {
    this.connection?.end(1000, '')
    done()
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    const { connection } = this
    this.connection = undefined
    this.count(-this.queued)
    this.written = undefined
    connection?.end(1000, '')
    done(error)
  }

  private close(cause: SocketCloseCause, code: number): void {
    this.host.events.socketClosed(cause, { path: '/mqtt', peer: this.peer })
    const { connection } = this
    this.connection = undefined
    connection?.end(code, cause)
    this.destroy()
  }

  private count(bytes: number): void {
    this.queued += bytes
    this.host.queuedBytes += bytes
  }
}
