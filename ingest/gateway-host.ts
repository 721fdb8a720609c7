// What the doors of the gateway share.
import type { OriginRules } from '../runtime/access/request-origin.ts'
import type { RequestError } from '../runtime/errors.ts'
import type { Accepter } from './accept.ts'
import type { DeviceAuth } from './device-auth.ts'
import type { IngestEvents } from './events.ts'
import type { RateLimits } from './rate-limits.ts'

export interface GatewayHost {
  readonly accepter: Accepter
  readonly events: IngestEvents
  readonly auth: DeviceAuth
  readonly origins: OriginRules
  readonly rates: RateLimits | undefined
  /** Milliseconds of a live event loop, in steps: a loop that stood still ages nobody. */
  readonly nowMs: number
  /** Nothing is taken any more; what was taken is still answered. */
  readonly isDraining: boolean
  /** The memory for what is not durable yet is used up. */
  isMemoryUsed(): boolean
  /** Why nothing may be sent at the moment; undefined when it may. */
  refusal(): RequestError | undefined
}
