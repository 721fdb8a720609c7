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

  /** Resolves with the way out, to be called once. `waitMsMax`: who has not come in by then is refused; 0: waits for as long as it takes. */
  async enter(signal: AbortSignal, waitMsMax = 0): Promise<() => void> {
    signal.throwIfAborted()
    if (this.inside >= this.insideMax) {
      if (this.waiting.length >= this.waitingMax) {
        throw this.full(`${this.insideMax} run and ${this.waitingMax} wait`)
      }
      await this.turn(signal, waitMsMax)
    } else this.inside++
    return () => {
      const next = this.waiting.shift()
      if (next) next()
      else this.inside--
    }
  }

  private turn(signal: AbortSignal, waitMsMax: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', leave)
      }
      const go = (): void => {
        settle()
        resolve()
      }
      const leave = (): void => {
        settle()
        this.waiting.splice(this.waiting.indexOf(go), 1)
        reject(
          signal.aborted
            ? signal.reason
            : this.full(`${this.insideMax} run, and none of them ended within ${waitMsMax} ms`),
        )
      }
      const timer = waitMsMax > 0 ? setTimeout(leave, waitMsMax) : undefined
      this.waiting.push(go)
      signal.addEventListener('abort', leave, { once: true })
    })
  }

  private full(how: string): EngineError {
    return new EngineError(202, 'TOO_MANY_SIMULTANEOUS_QUERIES', `Too many ${this.what}: ${how}; try again later`)
  }
}
