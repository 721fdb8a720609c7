// How fast a device may send in the long run, where an operator says so (WEIR_RATE_LIMIT_READINGS_PER_S): a bucket a device, shared by all doors.
// What was sent is counted when it was taken, whole, once a payload; then the device is in debt, and waits until it is not. Nothing is dropped:
// HTTP answers 429, MQTT does not read the socket, /v1/ingest holds acknowledgements back.

/** What may come at once after a rest, in time at the rate. */
const burstMs = 1_000
/** Beyond it those that owe nothing are forgotten: a new bucket would be the same. */
const bucketsMax = 100_000
/** How many are let go where all of them owe. */
const letGoShare = 0.1

export class RateBucket {
  private readonly limits: RateLimits
  /** When it was, or will be, empty of what was counted; of a clock that never goes back. */
  private paidAt = Number.NEGATIVE_INFINITY

  constructor(limits: RateLimits) {
    this.limits = limits
  }

  /** Counts what was taken; answers how long to wait before more, in ms; 0: not at all. */
  spend(readings: number): number {
    const now = this.limits.nowMs()
    this.paidAt = Math.max(this.paidAt, now - burstMs) + readings * this.limits.msPerReading
    return Math.max(0, this.paidAt - now)
  }

  waitMs(): number {
    return Math.max(0, this.paidAt - this.limits.nowMs())
  }
}

export class RateLimits {
  readonly msPerReading: number
  readonly nowMs: () => number
  private readonly buckets = new Map<string, RateBucket>()

  constructor(readingsPerS: number, nowMs: () => number = () => performance.now()) {
    this.msPerReading = 1000 / readingsPerS
    this.nowMs = nowMs
  }

  of(tenant: string, device: string): RateBucket {
    const key = `${tenant}/${device}`
    let bucket = this.buckets.get(key)
    if (bucket === undefined) {
      if (this.buckets.size >= bucketsMax) this.forget()
      bucket = new RateBucket(this)
      this.buckets.set(key, bucket)
    }
    return bucket
  }

  get count(): number {
    return this.buckets.size
  }

  private forget(): void {
    for (const [key, bucket] of this.buckets) if (bucket.waitMs() === 0) this.buckets.delete(key)
    // All of them owe: the oldest go.
    for (const key of this.buckets.keys()) {
      if (this.buckets.size <= bucketsMax * (1 - letGoShare)) return
      this.buckets.delete(key)
    }
  }
}
