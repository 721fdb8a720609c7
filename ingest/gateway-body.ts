// One body over HTTP on its way: kept until it is whole; one that comes whole is never copied.
import { Buffer } from 'node:buffer'
import type { DeviceCredential } from '../domain/authority.ts'
import type { HttpExchange } from '../runtime/web-server.ts'
import type { CodecName } from './codecs/codec.ts'
import { ingestLimits as limits } from './limits.ts'

/** What a body asks of those that it is one of. */
export interface BodyOwner {
  readonly nowMs: number
  /** False: there is no room for so many bytes more, and the body was refused. */
  hold(body: Body, bytes: number): boolean
  whole(body: Body, bytes: Buffer): void
}

export class Body {
  readonly exchange: HttpExchange
  readonly credential: DeviceCredential
  readonly device: string
  readonly codec: CodecName
  /** When it began, or brought enough to be waited for again. */
  since: number
  bytes = 0
  private stepBytes = 0
  /** One buffer that grows by doubling: an object for each piece would take a hundred times what a peer sends that sends byte by byte. */
  private kept: Buffer | undefined
  private readonly owner: BodyOwner

  constructor(owner: BodyOwner, of: Pick<Body, 'exchange' | 'credential' | 'device' | 'codec' | 'since'>) {
    this.owner = owner
    this.exchange = of.exchange
    this.credential = of.credential
    this.device = of.device
    this.codec = of.codec
    this.since = of.since
  }

  onBytes(bytes: Buffer, isLast: boolean): void {
    if (!this.owner.hold(this, bytes.length)) return
    if (isLast && this.kept === undefined) {
      this.bytes = bytes.length
      this.owner.whole(this, bytes)
      return
    }
    const kept = this.append(bytes)
    this.stepBytes += bytes.length
    if (this.stepBytes >= limits.bodyStepBytes) {
      this.stepBytes = 0
      this.since = this.owner.nowMs
    }
    if (isLast) this.owner.whole(this, kept.subarray(0, this.bytes))
  }

  clear(): void {
    this.bytes = 0
    this.kept = undefined
  }

  private append(bytes: Buffer): Buffer {
    const length = this.bytes + bytes.length
    let { kept } = this
    if (kept === undefined || length > kept.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(length, Math.min(2 * this.bytes, limits.bodyBytesMax)))
      kept?.copy(larger, 0, 0, this.bytes)
      kept = larger
      this.kept = larger
    }
    bytes.copy(kept, this.bytes)
    this.bytes = length
    return kept
  }
}
