// Starts the load generator in a process of its own and tells it what to do.
import { type ChildProcess, fork } from 'node:child_process'
import { join } from 'node:path'

/** pipelined: a device a connection. single: the same with one in flight. many: 20 devices × 4 metrics a connection, another topic each message. */
export type Shape = 'pipelined' | 'single' | 'many'
export const shapes: readonly Shape[] = ['pipelined', 'single', 'many']

export interface LoadSetup {
  readonly host: string
  readonly port: number
  readonly shape: Shape
  readonly connections: number
  /** Most unacknowledged publishes a connection. */
  readonly window: number
  /** Devices are called `{prefix}-0000`, … */
  readonly prefix: string
  /** With `{device}` in it. */
  readonly topic: string
  /** `ts` of the first message of each connection, in ms, a multiple of 1,000; each next message is 1 ms later. */
  readonly firstAt: number
}

export interface LoadPhase {
  readonly seconds: number
  /** Over all connections; without it as fast as messages are acknowledged. */
  readonly ratePerS?: number
}

export interface LoadReport {
  readonly seconds: number
  /** Acknowledged while it was sending. */
  readonly acknowledgedInTime: number
  readonly ackedPerS: number
  readonly sent: number
  /** All that was sent, since a phase ends only then. */
  readonly acknowledged: number
  /** From the first message to the last acknowledgement. */
  readonly settledSeconds: number
  readonly generatorCores: number
  readonly beganEpochMs: number
  /** Since the connections were made: connection c sent its messages 0 … sentByConnection[c] − 1. */
  readonly sentByConnection: readonly number[]
  /** Only at a rate; counted from when a message was due. */
  readonly latencyMs?: { readonly p50: number; readonly p99: number; readonly p999: number; readonly max: number }
}

export type LoadCommand =
  | { readonly type: 'setup'; readonly setup: LoadSetup }
  | { readonly type: 'run'; readonly phase: LoadPhase }
  | { readonly type: 'stop' }
type LoadAnswer = { type: 'ready' } | { type: 'report'; report: LoadReport } | { type: 'failed'; reason: string }

export interface LoadProcess {
  readonly setup: LoadSetup
  run(phase: LoadPhase): Promise<LoadReport>
  stop(): Promise<void>
}

export const shapeSettings: Readonly<Record<Shape, { connections: number; window: number; words: string }>> = {
  pipelined: { connections: 50, window: 100, words: '50 connections × 100 in flight, one device each' },
  single: { connections: 200, window: 1, words: '200 connections × 1 in flight, one device each' },
  many: {
    connections: 50,
    window: 100,
    words: '50 connections × 100 in flight, 20 devices × 4 metrics each, another topic each message',
  },
}

export async function startLoad(setup: LoadSetup): Promise<LoadProcess> {
  const child = fork(join(import.meta.dirname, 'mqtt-load.js'), [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  process.once('exit', () => child.kill('SIGKILL'))
  const answer = (): Promise<LoadAnswer> =>
    new Promise((resolve, reject) => {
      const ended = (code: number | null): void => reject(new Error(`the load generator ended with code ${code}`))
      child.once('exit', ended)
      child.once('message', (message) => {
        child.off('exit', ended)
        resolve(message as LoadAnswer)
      })
    })
  const tell = async (command: LoadCommand): Promise<LoadAnswer> => {
    const coming = answer()
    child.send(command)
    const came = await coming
    if (came.type === 'failed') throw new Error(`the load generator gave up: ${came.reason}`)
    return came
  }
  await tell({ type: 'setup', setup })
  return {
    setup,
    async run(phase) {
      const came = await tell({ type: 'run', phase })
      if (came.type !== 'report') throw new Error(`unexpected answer ${came.type} of the load generator`)
      return came.report
    },
    stop: () => stopChild(child),
  }
}

function stopChild(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) return resolve()
    child.once('exit', () => resolve())
    if (child.connected) child.send({ type: 'stop' })
    setTimeout(() => child.kill('SIGKILL'), 2_000).unref()
  })
}
