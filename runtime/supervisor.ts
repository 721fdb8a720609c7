// A child process as a service of the first one: started, started again when it dies (with back-off, said in the log and in its status),
// asked to stop in order, ended when it doesn't. Nothing here waits for a child while devices are to be acknowledged.
import { type ChildProcess, fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import type { Logger } from './logger.ts'
import type { FromChild, RowsToAppend, ToChild } from './process-channel.ts'
import type { Health, Service } from './service.ts'
import type { ProcessStatus } from './status.ts'

export interface SupervisedOptions {
  readonly name: string
  readonly mainFile: string
  readonly words: readonly string[]
  /** Asked at each start, so that a restart can keep what the last one found (its port). */
  readonly environment: () => NodeJS.ProcessEnv
  /** Parts of the product that live there: while it is down, its status says so of each. */
  readonly parts: readonly string[]
  readonly logger: Logger
  readonly onListening?: (name: string, url: string) => void
  readonly onReady?: () => void
  /** Resolves once the rows are durable. */
  readonly onAppend?: (rows: RowsToAppend) => Promise<void>
  /** Before it was ever ready, it said that it can't start: a sentence. It is not started again, unless `isPatient` says so. */
  readonly onRefused?: (message: string) => void
  readonly isPatient?: () => boolean
  readonly backOff?: Partial<BackOff>
  /** A child says how it is about once a second; one that has said nothing for this long is named in the log. */
  readonly silentMsMax?: number
  /** One that has said nothing for this long is ended, and started again. Infinity: it is left alone. */
  readonly hungMsMax?: number
}

interface BackOff {
  readonly firstMs: number
  readonly mostMs: number
  /** Up for this long, it is well: the next death is a first one. */
  readonly wellAfterMs: number
}

export interface SupervisedProcess extends Service {
  /** From now on it is not started again: everything is being stopped. */
  letEnd(): void
  status(): ProcessStatus
  tell(message: ToChild): void
  pid(): number | undefined
}

const silentMsDefault = 10_000
const hungMsDefault = 60_000
/** Until it is ready for the first time it may have much to read, and no moment to speak: it is given so many times as long. */
const startPatience = 5

type Stage = 'idle' | 'starting' | 'up' | 'waiting' | 'stopping' | 'stopped'

export function superviseProcess(options: SupervisedOptions): SupervisedProcess {
  return new Supervised(options)
}

class Supervised implements SupervisedProcess {
  readonly name: string
  private readonly options: SupervisedOptions
  private readonly backOff: BackOff
  private stage: Stage = 'idle'
  private child: ChildProcess | undefined
  private ended: Promise<void> = Promise.resolve()
  private timer: NodeJS.Timeout | undefined
  private delayMs: number
  private readyAt: number | undefined
  private everReady = false
  private refused = false
  private lastEnd = ''
  private lastStatus: ProcessStatus | undefined
  private telling = false
  /** How long the child could have spoken and did not: time in which we ourselves were held up, or the machine slept, does not count. */
  private silentMs = 0
  private toldAt = 0
  private isSilent = false

  constructor(options: SupervisedOptions) {
    this.name = options.name
    this.options = options
    this.backOff = { firstMs: 100, mostMs: 5_000, wellAfterMs: 30_000, ...options.backOff }
    this.delayMs = this.backOff.firstMs
  }

  /** Does not wait for the child to be ready: `onReady` says that. */
  async start(): Promise<void> {
    this.spawn()
  }

  private spawn(): void {
    const { mainFile, words, environment, name, logger } = this.options
    this.stage = 'starting'
    this.lastStatus = undefined
    this.telling = false
    this.readyAt = undefined
    this.silentMs = 0
    this.isSilent = false
    // stdout is for the first process' start-up lines alone.
    const child = fork(mainFile, [...words], {
      env: environment(),
      execArgv: [],
      stdio: ['ignore', 2, 'inherit', 'ipc'],
    })
    this.child = child
    child.on('message', (message: FromChild) => this.hear(message))
    this.ended = new Promise((done) => {
      const end = (how: string): void => {
        if (this.child !== child) return
        this.child = undefined
        this.mourn(how)
        done()
      }
      child.once('exit', (code, signal) => end(signal === null ? `code ${code}` : `signal ${signal}`))
      child.once('error', (error) => {
        // Also raised when a message can't be sent; then the end is still to come.
        if (child.pid === undefined) end(error.message)
      })
    })
    logger.debug({ process: name, pid: child.pid }, 'a process is started')
  }

  private hear(message: FromChild): void {
    this.silentMs = 0
    if (this.isSilent) this.options.logger.info({ process: this.name }, 'a process that said nothing is heard again')
    this.isSilent = false
    if (message.kind === 'listening') this.options.onListening?.(message.name, message.url)
    else if (message.kind === 'status') this.lastStatus = message.status
    else if (message.kind === 'append') void this.append(message)
    else if (message.kind === 'ready') {
      if (this.stage === 'starting') this.stage = 'up'
      this.readyAt = performance.now()
      if (this.everReady)
        this.options.logger.info({ process: this.name }, 'a process that had ended does its job again')
      this.everReady = true
      this.options.onReady?.()
    } else if (this.everReady || this.options.isPatient?.()) {
      this.options.logger.warn({ process: this.name }, message.message)
    } else {
      this.refused = true
      this.options.onRefused?.(message.message)
    }
  }

  /** The answer goes to the process that asked, if it is still there. */
  private async append({ request, ...rows }: Extract<FromChild, { kind: 'append' }>): Promise<void> {
    const { child } = this
    const { onAppend } = this.options
    let problem = onAppend ? undefined : 'nothing is appended to the log here'
    await onAppend?.(rows).catch((error: Error) => {
      problem = error.message
    })
    if (!child?.connected) return
    child.send({ kind: 'appended', request, ...(problem !== undefined && { problem }) } satisfies ToChild, () => {})
  }

  private mourn(how: string): void {
    const { logger, name } = this.options
    if (this.stage === 'stopping' || this.stage === 'stopped') return
    this.lastEnd = how
    if (this.refused) {
      this.stage = 'stopped'
      return
    }
    const wasWell = this.readyAt !== undefined && performance.now() - this.readyAt >= this.backOff.wellAfterMs
    if (wasWell) this.delayMs = this.backOff.firstMs
    this.stage = 'waiting'
    logger.warn({ process: name, end: how, againInMs: this.delayMs }, 'a process ended and is started again')
    this.timer = setTimeout(() => this.spawn(), this.delayMs)
    this.delayMs = Math.min(this.delayMs * 2, this.backOff.mostMs)
  }

  letEnd(): void {
    clearTimeout(this.timer)
    this.stage = 'stopping'
  }

  async drain(deadline: AbortSignal): Promise<void> {
    this.letEnd()
    if (!this.child) return
    this.child.send({ kind: 'stop' } satisfies ToChild, () => {})
    await new Promise<void>((done) => {
      deadline.addEventListener('abort', () => done(), { once: true })
      if (deadline.aborted) done()
      void this.ended.then(done)
    })
  }

  async stop(): Promise<void> {
    clearTimeout(this.timer)
    const wasAsked = this.stage === 'stopping'
    this.stage = 'stopped'
    if (!this.child) return
    if (wasAsked) this.options.logger.warn({ process: this.name }, 'a process did not end in time and is ended')
    this.child.kill('SIGKILL')
    await this.ended
  }

  health(): Health {
    if (this.stage === 'up') return { state: 'ok' }
    if (this.stage === 'waiting')
      return { state: 'failed', detail: `its process ended (${this.lastEnd}) and is started again` }
    if (this.stage === 'starting') {
      const again = this.lastEnd === '' ? '' : ` again after it ended (${this.lastEnd})`
      return { state: 'starting', detail: `its process is starting${again}` }
    }
    return { state: 'failed', detail: 'its process is stopped' }
  }

  status(): ProcessStatus {
    const alive = this.stage === 'up' || this.stage === 'starting'
    if (alive && this.lastStatus) return this.lastStatus
    const health = this.health()
    const parts = Object.fromEntries(this.options.parts.map((part) => [part, health]))
    return { process: this.name, at: Date.now(), parts, instruments: [] }
  }

  /** One message under way at most: a child that does not read keeps nothing in memory here. */
  tell(message: ToChild): void {
    this.listenForSilence()
    if (!this.child?.connected || this.telling) return
    this.telling = true
    this.child.send(message, () => {
      this.telling = false
    })
  }

  /** A child that hangs does not end by itself: it is named, and when it stays silent it is ended, so that it is started again. */
  private listenForSilence(): void {
    const { name, logger, hungMsMax = hungMsDefault } = this.options
    const silentMsMax = this.options.silentMsMax ?? Math.min(silentMsDefault, hungMsMax / 2)
    const now = performance.now()
    const sinceToldMs = now - this.toldAt
    this.toldAt = now
    // When we ourselves were held up, what it said meanwhile is still to be read.
    if ((this.stage !== 'up' && this.stage !== 'starting') || sinceToldMs > silentMsMax / 2) return
    this.silentMs += sinceToldMs
    const patience = this.stage === 'starting' ? startPatience : 1
    const { child, silentMs } = this
    const fields = { process: name, pid: child?.pid, silentMs: Math.round(silentMs) }
    if (silentMs >= patience * silentMsMax && !this.isSilent) {
      this.isSilent = true
      logger.warn(fields, 'a process says nothing: it hangs, or is stopped')
    }
    if (silentMs < patience * hungMsMax || !child?.pid || isTraced(child.pid)) return
    logger.error(fields, 'a process has said nothing for so long that it is ended, to be started again')
    this.silentMs = 0
    child.kill('SIGKILL')
  }

  pid(): number | undefined {
    return this.child?.pid
  }
}

/** Somebody looks at it with a debugger: it stands still because it was told to. */
function isTraced(pid: number): boolean {
  try {
    return /^TracerPid:\s*[1-9]/m.test(readFileSync(`/proc/${pid}/status`, 'latin1'))
  } catch {
    return false
  }
}
