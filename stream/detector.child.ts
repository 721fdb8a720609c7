// The thread that detection runs in, one of the serving process: it opens the log by itself and reads the chunks' own bytes, so that neither
// queries nor viewers wait for it. What it finds goes back to the main thread, which knows how to make it durable.
import { setPriority } from 'node:os'
import { parentPort, workerData } from 'node:worker_threads'
import { systemClock } from '../runtime/clock.ts'
import { RetryableError } from '../runtime/errors.ts'
import { createLogger } from '../runtime/logger.ts'
import { DetectorRun } from './detector-run.ts'
import type { DetectorThreadData, FromDetectorThread, ToDetectorThread } from './detector-service.ts'
import { openLog } from './log/open-log.ts'

const totalsEveryMs = 500
/** A tenth of the share of the others, where cores are short: devices and queries go first, and detection, which reads from the log, catches up. */
const niceness = 10

const { config, directory } = workerData as DetectorThreadData
const port = parentPort!
const logger = createLogger(config.logLevel, 'detector')
const waiting = new Map<number, (problem: string | undefined) => void>()
let requests = 0

const say = (message: FromDetectorThread): void => port.postMessage(message)

function append(partition: number, rows: Uint8Array, count: number): Promise<void> {
  const request = ++requests
  return new Promise((resolve, reject) => {
    waiting.set(request, (problem) => {
      waiting.delete(request)
      if (problem === undefined) resolve()
      else reject(new RetryableError(problem))
    })
    say({ kind: 'append', request, partition, rows, count })
  })
}

const log = await openLog({ config, mode: 'read', logger, clock: systemClock })
const run = new DetectorRun({
  log,
  append,
  directory,
  tier: config.detectorTier,
  scoreMin: config.detectorScoreMin,
  seriesMax: config.detectorSeries,
  logger,
})

port.on('message', (message: ToDetectorThread) => {
  if (message.kind === 'appended') waiting.get(message.request)?.(message.problem)
  else void stop()
})

async function stop(): Promise<void> {
  clearInterval(ticker)
  const stopped = run.stop()
  for (const settle of [...waiting.values()]) settle('detection is stopping')
  await stopped
  await log.close()
  say({ kind: 'totals', totals: run.totals() })
  say({ kind: 'stopped' })
  port.close()
}

const ticker = setInterval(() => say({ kind: 'totals', totals: run.totals() }), totalsEveryMs)
await run.start((error) => {
  // Outside of any promise: the thread ends with it, and the service says why.
  setImmediate(() => {
    throw error
  })
})
// On Linux this is the calling thread's alone; elsewhere it would be the whole process'.
if (process.platform === 'linux') setPriority(0, niceness)
say({ kind: 'started' })
