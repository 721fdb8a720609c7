// The role detector: a thread of the serving process that looks at every reading (detector.child.ts), started again when it dies. It has a
// consumer group of its own and delays nobody: neither acknowledgements, nor the writer, nor queries.
import { Worker } from 'node:worker_threads'
import type { Config } from '../runtime/config.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import { backOffMs } from './consumer-loop.ts'
import type { AppendAnomalies, DetectorTotals } from './detector-run.ts'

export interface DetectorThreadData {
  readonly config: Config
  readonly directory: string
}

export type FromDetectorThread =
  | { readonly kind: 'started' }
  | { readonly kind: 'stopped' }
  | { readonly kind: 'totals'; readonly totals: DetectorTotals }
  | {
      readonly kind: 'append'
      readonly request: number
      readonly partition: number
      readonly rows: Uint8Array
      readonly count: number
    }

export type ToDetectorThread =
  | { readonly kind: 'appended'; readonly request: number; readonly problem?: string }
  | { readonly kind: 'stop' }

export interface DetectorServiceOptions {
  readonly config: Config
  /** Of snapshot and cold states. */
  readonly directory: string
  readonly append: AppendAnomalies
  readonly logger: Logger
  readonly instruments: Instruments
  /** Tests name the built one. */
  readonly threadFile?: URL
}

export interface DetectorService extends Service {
  totals(): DetectorTotals | undefined
}

const wellAfterMs = 30_000

export function createDetectorService(options: DetectorServiceOptions): DetectorService {
  const { config, directory, append, logger, instruments } = options
  let worker: Worker | undefined
  let totals: DetectorTotals | undefined
  /** Not `starting`: nothing that is promised waits for detection. */
  let health: Health = { state: 'ok' }
  let isStopping = false
  let attempt = 0
  let timer: NodeJS.Timeout | undefined
  let ended: Promise<void> = Promise.resolve()

  const shown = [
    'readings',
    'anomalies',
    'notFinite',
    'series',
    'coldSeries',
    'droppedSeries',
    'bytesHeld',
    'missedChunks',
  ] as const
  for (const name of shown) {
    const inSnake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
    instruments.gauge(`weir_detector_${inSnake}`, helps[name], () => totals?.[name] ?? 0)
  }
  instruments.gauge(
    'weir_detector_reached_seconds',
    'When the last chunk that detection came to was received, as epoch seconds; 0: none yet',
    () => (totals?.reachedAt ?? 0) / 1_000_000,
  )

  function begin(): void {
    const startedAt = performance.now()
    const data: DetectorThreadData = { config, directory }
    const file = options.threadFile ?? new URL('./detector.child.js', import.meta.url)
    const thread = new Worker(file, { workerData: data, env: {}, stdin: false })
    worker = thread
    let cause: Error | undefined
    thread.on('message', (message: FromDetectorThread) => void hear(thread, message))
    thread.on('error', (error) => {
      cause = error as Error
    })
    ended = new Promise((done) => {
      thread.on('exit', (code) => {
        worker = undefined
        done()
        if (isStopping) return
        if (performance.now() - startedAt >= wellAfterMs) attempt = 0
        const detail = `detection ended and is started again: ${cause?.message ?? `code ${code}`}`
        health = { state: 'degraded', detail }
        logger.error({ error: cause?.stack ?? `code ${code}` }, 'detection ended and is started again')
        timer = setTimeout(begin, backOffMs({ firstMs: 200, longestMs: 30_000, random: Math.random }, attempt++))
      })
    })
  }

  async function hear(thread: Worker, message: FromDetectorThread): Promise<void> {
    if (message.kind === 'started') health = { state: 'ok' }
    else if (message.kind === 'totals') {
      totals = message.totals
      const { trouble } = totals
      if (trouble !== undefined) health = { state: 'degraded', detail: trouble }
      else if (worker === thread) health = { state: 'ok' }
    } else if (message.kind === 'append') {
      const { request, partition, rows, count } = message
      const problem = await append(partition, rows, count).then(
        () => undefined,
        (error: Error) => error.message,
      )
      const answer: ToDetectorThread = { kind: 'appended', request, ...(problem !== undefined && { problem }) }
      thread.postMessage(answer)
    }
  }

  async function stop(): Promise<void> {
    isStopping = true
    clearTimeout(timer)
    worker?.postMessage({ kind: 'stop' } satisfies ToDetectorThread)
    await ended
  }

  return {
    name: 'detector',

    async start() {
      begin()
    },

    async drain(deadline) {
      const stopped = stop()
      await Promise.race([
        stopped,
        new Promise<void>((done) => {
          deadline.addEventListener('abort', () => done(), { once: true })
          if (deadline.aborted) done()
        }),
      ])
    },

    async stop() {
      isStopping = true
      clearTimeout(timer)
      // Whatever it was at is found again, from its last snapshot.
      await worker?.terminate()
      await ended
    },

    health: () => health,
    totals: () => totals,
  }
}

const helps = {
  readings: 'Readings that detection has looked at',
  anomalies: 'Anomalies that detection has told',
  notFinite: 'Values that are not a number or not finite: no detector is given them',
  series: 'Series whose normal is in memory',
  coldSeries: 'Series whose normal is on disk',
  droppedSeries: 'Series that there was no room for: they are learned anew',
  bytesHeld: 'Memory of the state of series',
  missedChunks: 'Chunks that the log let go of before detection came to them',
} as const
