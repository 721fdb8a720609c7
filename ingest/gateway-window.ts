// The messages of one socket of /v1/ingest that are not settled: a ring of numbers, no object a message. Refused ones are rare and keep their words.

/** Two numbers a message: id, and the cycle that makes it durable (negative: it was refused). */
const stride = 2

export class IngestWindow {
  /** The highest id that `settle` acknowledged at its end; -1: none. */
  ackedUpTo = -1
  private readonly entries: Float64Array
  private readonly capacity: number
  private head = 0
  private length = 0
  private rejects: Map<number, string> | undefined

  constructor(capacity: number) {
    this.capacity = capacity
    this.entries = new Float64Array(capacity * stride)
  }

  get isFull(): boolean {
    return this.length === this.capacity
  }

  get isEmpty(): boolean {
    return this.length === 0
  }

  /** To be acknowledged once `cycle` is durable. */
  push(id: number, cycle: number): void {
    this.add(id, cycle + 1)
  }

  /** To be refused once `cycle`, with its dead letter, is durable. */
  pushReject(id: number, cycle: number, reason: string, deadLetter: string): void {
    this.rejects ??= new Map()
    this.rejects.set(id, JSON.stringify({ type: 'reject', id, reason, ...(deadLetter !== '' && { deadLetter }) }))
    this.add(id, -cycle - 1)
  }

  /**
   * Takes what is durable from the front. What it returns is to be said first, `ackedUpTo` after it: so everything is said in the order of the ids,
   * and an acknowledgement never stands for a message that was refused.
   */
  settle(durableCycle: number): string[] | undefined {
    const { entries, capacity } = this
    let frames: string[] | undefined
    this.ackedUpTo = -1
    while (this.length > 0) {
      const at = this.head * stride
      const cycle = entries[at + 1]!
      if (Math.abs(cycle) - 1 > durableCycle) break
      const id = entries[at]!
      if (cycle > 0) this.ackedUpTo = id
      else {
        frames ??= []
        if (this.ackedUpTo >= 0) frames.push(ackFrame(this.ackedUpTo))
        frames.push(this.rejects!.get(id)!)
        this.rejects!.delete(id)
        this.ackedUpTo = -1
      }
      this.head = this.head + 1 === capacity ? 0 : this.head + 1
      this.length--
    }
    return frames
  }

  private add(id: number, cycle: number): void {
    const at = ((this.head + this.length) % this.capacity) * stride
    this.entries[at] = id
    this.entries[at + 1] = cycle
    this.length++
  }
}

export function ackFrame(upTo: number): string {
  return `{"type":"ack","upTo":${upTo}}`
}
