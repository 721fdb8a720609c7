// The embedded store alone, as a process of its own (the engine binds one directory a process), for tests of what stands on it.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { projectDirectory } from './spawn-weir.ts'

export interface ClickHouseProcess {
  /** As `weir start --data` would be given it: the store is in `clickhouse` below. */
  readonly data: string
  /** Changes with each start. */
  url(): string
  pid(): number
  kill(signal?: NodeJS.Signals): Promise<void>
  /** After a kill, on the same directory; rejects with what was said on stderr when it does not become ready. */
  start(): Promise<void>
  dispose(): Promise<void>
}

const childFile = join(projectDirectory, 'dist/storage/embedded-server/server.child.js')

export async function startClickHouse(
  given: { readonly data?: string; readonly port?: number; readonly engineArguments?: readonly string[] } = {},
): Promise<ClickHouseProcess> {
  const data = given.data ?? (await mkdtemp(join(tmpdir(), 'weir-clickhouse-')))
  let child: ChildProcess | undefined
  let address = ''

  async function start(): Promise<void> {
    const words = [join(data, 'clickhouse'), String(given.port ?? 0), 'warn', ...(given.engineArguments ?? [])]
    const started = spawn(process.execPath, [childFile, ...words], {
      env: { ...process.env, UV_THREADPOOL_SIZE: '16' },
      // The channel ends the child when this process dies.
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    })
    child = started
    let stderr = ''
    started.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-20_000)
    })
    const ready = new Promise<string>((resolve, reject) => {
      createInterface(started.stdout!).on('line', (line) => {
        if (line.startsWith('ready ')) resolve(line.slice('ready '.length))
      })
      started.once('exit', (code, signal) => reject(new Error(`the store ended (${code ?? signal}): ${stderr}`)))
    })
    address = await ready
  }

  async function kill(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    const exited = once(child, 'exit')
    child.kill(signal)
    await exited
  }

  await start()
  return {
    data,
    url: () => address,
    pid: () => child!.pid!,
    kill,
    start,
    async dispose() {
      await kill()
      if (given.data === undefined) await rm(data, { recursive: true, force: true })
    },
  }
}
