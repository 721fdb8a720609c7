// Life as a child of the first process: start the services, say so, send a status about once a second, stop when told. When the first process is
// gone, however it went, this one ends at once: everything that matters is on disk, and the next start wants the ports and the directory.
import { Worker } from 'node:worker_threads'
import { RetryableError, StartError } from './errors.ts'
import type { Instruments } from './instruments.ts'
import type { Logger } from './logger.ts'
import { type FromChild, type RowsToAppend, statusEveryMs, type ToChild } from './process-channel.ts'
import { type Health, type Service, startServices, stopServices } from './service.ts'
import type { ProcessStatus } from './status.ts'

export interface ChildOptions {
  readonly process: string
  readonly services: readonly Service[]
  readonly instruments: Instruments
  readonly logger: Logger
  /** All of a stop. */
  readonly drainMs: number
  /** Start-up lines, once the services are started: `http` → its URL. */
  readonly addresses?: () => Readonly<Record<string, string>>
  /** Beside parts and instruments. */
  readonly totals?: () => Partial<ProcessStatus>
  readonly onWorld?: (world: Extract<ToChild, { kind: 'world' }>) => void
  /** A stop asked for from outside (a signal), like the one that the first process asks for. */
  readonly signal: AbortSignal
}

const readyPollMs = 20
const watchEveryMs = 200

/** Resolves when it has stopped, with the exit code. */
export async function runChild(options: ChildOptions): Promise<number> {
  const { services, logger, signal } = options
  endWithParent()
  const asked = new AbortController()
  signal.addEventListener('abort', () => asked.abort(), { once: true })
  if (signal.aborted) asked.abort()
  process.on('message', (message: ToChild) => {
    if (message.kind === 'stop') asked.abort()
    else if (message.kind === 'world') options.onWorld?.(message)
  })
  const publish = publisher(options)
  const ticker = setInterval(publish, statusEveryMs)
  const askedToStop = new Promise<void>((done) => {
    asked.signal.addEventListener('abort', () => done(), { once: true })
    if (asked.signal.aborted) done()
  })
  try {
    // A start may wait for what does not come.
    await Promise.race([startServices(services), askedToStop])
  } catch (error) {
    if (!(error instanceof StartError)) throw error
    logger.debug({ process: options.process }, error.message)
    await new Promise<void>((done) => say({ kind: 'failed', message: error.message }, () => done()))
    return 1
  }
  if (!asked.signal.aborted) {
    for (const [name, url] of Object.entries(options.addresses?.() ?? {})) say({ kind: 'listening', name, url })
    void becomeReady(services, asked.signal, publish)
  }
  await askedToStop
  const problems = await stopServices(services, AbortSignal.timeout(options.drainMs))
  clearInterval(ticker)
  for (const problem of problems) logger.warn({ error: problem.message }, 'a part did not stop in order')
  return 0
}

const appendMsMax = 10_000
let requests = 0

/** Has the first process append these rows to the log. Resolves once they are durable; rejects with a RetryableError when that is not known. */
export function appendByParent(rows: RowsToAppend): Promise<void> {
  const request = ++requests
  return new Promise((resolve, reject) => {
    const settle = (problem?: string): void => {
      clearTimeout(timer)
      process.off('message', hear)
      if (problem === undefined) resolve()
      else reject(new RetryableError(problem))
    }
    const hear = (message: ToChild): void => {
      if (message.kind === 'appended' && message.request === request) settle(message.problem)
    }
    // Appended twice is stored once.
    const timer = setTimeout(() => settle('the first process did not append in time'), appendMsMax)
    process.on('message', hear)
    say({ kind: 'append', request, ...rows })
  })
}

/** The state of each service by its name. */
export function partsOf(services: readonly Service[]): Record<string, Health> {
  return Object.fromEntries(services.map((service) => [service.name, service.health()]))
}

/** A service may have started and still wait for what it depends on; ready is when each has done so once. */
async function becomeReady(services: readonly Service[], stop: AbortSignal, publish: () => void): Promise<void> {
  while (services.some((service) => service.health().state !== 'ok')) {
    await new Promise((go) => setTimeout(go, readyPollMs))
    if (stop.aborted) return
  }
  publish()
  say({ kind: 'ready' })
}

function publisher({ process: name, services, instruments, totals }: ChildOptions): () => void {
  let busy = false
  return () => {
    // One at a time: a first process that does not read keeps nothing in memory here.
    if (busy) return
    busy = true
    void instruments.snapshot().then((snapshot) => {
      const status = { process: name, at: Date.now(), parts: partsOf(services), instruments: snapshot, ...totals?.() }
      say({ kind: 'status', status }, () => {
        busy = false
      })
    })
  }
}

function say(message: FromChild, sent: () => void = () => {}): void {
  if (process.connected) process.send?.(message, undefined, undefined, sent)
  else sent()
}

/** SIGKILL, because an exit would wait for the engine's threads. */
function endWithParent(): void {
  process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'))
  // The event loop may be busy, or in native code, when the channel closes: a thread of its own looks too.
  const watch = `const { workerData } = require('node:worker_threads')
    setInterval(() => process.ppid === workerData || process.kill(process.pid, 'SIGKILL'), ${watchEveryMs})`
  new Worker(watch, { eval: true, workerData: process.ppid, stdin: false, env: {} }).unref()
  if (!process.connected) process.kill(process.pid, 'SIGKILL')
}
