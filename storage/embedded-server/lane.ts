// A bounded number of statements at once, and a bounded queue before them; past it the caller is refused.
import { EngineError } from './engine-error.ts'

export class Lane {
  private inside = 0
  private readonly waiting: (() => void)[] = []
  private readonly what: string
  private readonly insideMax: number
  private readonly waitingMax: number

  constructor(what: string, insideMax: number, waitingMax: number) {
    this.what = what
    this.insideMax = insideMax
    this.waitingMax = waitingMax
  }

  /** Resolves with the way out, to be called once. */
  async enter(signal: AbortSignal): Promise<() => void> {
    signal.throwIfAborted()
    if (this.inside >= this.insideMax) {
      if (this.waiting.length >= this.waitingMax) {
        throw new EngineError(
          202,
          'TOO_MANY_SIMULTANEOUS_QUERIES',
          `Too many ${this.what}: ${this.insideMax} run and ${this.waitingMax} wait; try again later`,
        )
      }
      await this.turn(signal)
    } else this.inside++
    return () => {
      const next = this.waiting.shift()
      if (next) next()
      else this.inside--
    }
  }

  private turn(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const go = (): void => {
        signal.removeEventListener('abort', leave)
        resolve()
      }
      const leave = (): void => {
        this.waiting.splice(this.waiting.indexOf(go), 1)
        reject(signal.reason)
      }
      this.waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }
}
