// Runs the real product as a user would: `node dist/main.js start`, in a directory of its own, on free ports. Knows nothing of a test runner, so
// that benchmarks use it too; tests take it through weir-process.ts, which cleans up by itself.
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { waitFor } from './wait-for.ts'
import { logEnvironment } from './which-log.ts'

/** The roots of the checkout and of what was built from it; the same whether this file runs from the sources or from dist/. */
const here = import.meta.dirname
const built = here.split(/[\\/]/).includes('dist')
export const projectDirectory = resolve(here, built ? '../../..' : '../..')
/** WEIR_TEST_MAIN: another build of the product to test. */
const mainFile = process.env.WEIR_TEST_MAIN ?? join(projectDirectory, 'dist/main.js')

const readyMsMax = 120_000
const stopMsMax = 30_000
const stderrLengthMax = 512 * 1024

export interface StartOptions {
  /** Default: a fresh temporary directory, removed by `dispose`. */
  readonly data?: string
  readonly env?: Readonly<Record<string, string>>
  /** All by default. */
  readonly roles?: readonly string[]
  readonly demo?: boolean
  /** Resolves as soon as these are among the start-up lines (`http listening on …`), instead of at `ready`. */
  readonly untilListening?: readonly string[]
  /** More words for the command line of `weir start`. */
  readonly arguments?: readonly string[]
}

export type WeirPart = 'ingest' | 'serve' | 'clickhouse'

export interface Exit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

export interface WeirProcess {
  readonly data: string
  /** Where things listen, by the first word of their start-up line. */
  readonly urls: Readonly<Record<string, string>>
  readonly mqtt: { readonly host: string; readonly port: number }
  /** Without a slash at the end. */
  readonly http: string
  /** The first process. */
  readonly pid: number
  readonly exited: Promise<Exit>
  /** Those alive now; `ingest` is the first process. */
  pids(): Partial<Record<WeirPart, number>>
  /** kill -9 (or another signal), and waits until it is gone. `all`: the first process first, so that it starts nothing again. */
  kill(what: WeirPart | 'all', signal?: NodeJS.Signals): Promise<void>
  /** SIGSTOP and SIGCONT. */
  freeze(what: WeirPart): () => void
  /** SIGTERM; throws unless it ends in order, with code 0. What API.md promises is 10 s: the test of that says so. */
  stop(withinMs?: number): Promise<void>
  stdout(): string
  /** The end of what was logged. */
  stderr(): string
  /** Ends everything at once and removes a temporary data directory. */
  dispose(): Promise<void>
}

/** A command of the product, from start to end: `runWeir(['verify', '--data', directory])`. */
export async function runWeir(
  words: readonly string[],
  {
    env = {},
    withinMs = 120_000,
    onStart,
    killWhen,
  }: {
    env?: Readonly<Record<string, string>>
    withinMs?: number
    onStart?: (pid: number) => void
    /** kill -9, once this resolves. */
    killWhen?: Promise<unknown>
  } = {},
): Promise<Exit & { stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [mainFile, ...words], {
    cwd: tmpdir(),
    env: environment({ ...logEnvironment(dataOf(words)), ...env }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  alive.add(child)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text
  })
  const timer = setTimeout(() => child.kill('SIGKILL'), withinMs)
  child.once('spawn', () => onStart?.(child.pid!))
  void killWhen?.then(() => child.kill('SIGKILL'))
  const exit = await new Promise<Exit>((done, fail) => {
    child.once('error', fail)
    child.once('close', (code, signal) => done({ code, signal }))
  })
  clearTimeout(timer)
  alive.delete(child)
  return { ...exit, stdout, stderr }
}

/** What `--data` says. */
function dataOf(words: readonly string[]): string | undefined {
  const at = words.indexOf('--data')
  return at < 0 ? undefined : words[at + 1]
}

export async function spawnWeir(options: StartOptions = {}): Promise<WeirProcess> {
  const temporary = options.data === undefined
  const data = options.data ?? (await mkdtemp(join(tmpdir(), 'weir-test-')))
  const words = ['start', '--data', data]
  if (options.roles) words.push('--roles', options.roles.join(','))
  if (options.demo) words.push('--demo')
  words.push(...(options.arguments ?? []))
  const child = spawn(process.execPath, [mainFile, ...words], {
    cwd: tmpdir(),
    env: environment({
      WEIR_MQTT_PORT: '0',
      WEIR_GATEWAY_PORT: '0',
      WEIR_HTTP_PORT: '0',
      WEIR_LIVE_PORT: '0',
      WEIR_CLICKHOUSE_PORT: '0',
      ...logEnvironment(data),
      ...options.env,
    }),
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  alive.add(child)
  let stdout = ''
  let stderr = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text
  })
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr = (stderr + text).slice(-stderrLengthMax)
  })
  let exit: Exit | undefined
  const exited = new Promise<Exit>((done) => {
    child.once('exit', (code, signal) => {
      exit = { code, signal }
      alive.delete(child)
      done(exit)
    })
  })
  await new Promise<void>((done, fail) => {
    child.once('error', fail)
    child.once('spawn', () => done())
  })
  const pid = child.pid!
  /** Everything this process ever started: what it leaves behind must end too. */
  const family = new Set<number>([pid])
  const pids = (): Partial<Record<WeirPart, number>> => {
    const found: Partial<Record<WeirPart, number>> = exit ? {} : { ingest: pid }
    for (const each of childrenOf(pid)) {
      family.add(each.pid)
      if (each.words.includes('clickhouse')) found.clickhouse = each.pid
      else if (each.words.includes('serve')) found.serve = each.pid
    }
    return found
  }
  const dispose = async (): Promise<void> => {
    pids()
    for (const each of family) signalTo(each, 'SIGKILL')
    await waitFor(() => [...family].every((each) => !isAlive(each)), { what: 'the processes to end' })
    if (temporary) rmSync(data, { recursive: true, force: true })
  }
  try {
    const { untilListening } = options
    const isUp = (): boolean =>
      untilListening
        ? untilListening.every((name) => stdout.includes(`${name} listening on `))
        : /^ready$/m.test(stdout)
    await waitFor(() => exit !== undefined || isUp(), {
      withinMs: readyMsMax,
      what: () => `"ready"; stdout so far: ${JSON.stringify(stdout)}`,
    })
    if (exit) throw new Error(`weir start ended with code ${(exit as Exit).code} before it was ready`)
  } catch (error) {
    await dispose()
    throw new Error(`${(error as Error).message}; it logged: ${stderr.slice(-2_000)}`)
  }
  pids()
  const urls: Record<string, string> = {}
  for (const [, name, url] of stdout.matchAll(/^(\S+) listening on (\S+)$/gm)) urls[name!] = url!
  const mqtt = urls.mqtt ? new URL(urls.mqtt) : undefined
  return {
    data,
    urls,
    mqtt: { host: mqtt?.hostname ?? '127.0.0.1', port: Number(mqtt?.port ?? 0) },
    http: (urls.http ?? '').replace(/\/$/, ''),
    pid,
    exited,
    pids,
    async kill(what, signal = 'SIGKILL') {
      const now = pids()
      const victims = what === 'all' ? [now.ingest, now.serve, now.clickhouse] : [now[what]]
      if (what !== 'all' && victims[0] === undefined) throw new Error(`there is no ${what} process now`)
      for (const victim of victims) if (victim !== undefined) signalTo(victim, signal)
      await waitFor(() => victims.every((victim) => victim === undefined || !isAlive(victim)), {
        withinMs: stopMsMax,
        what: `${what} to end`,
      })
    },
    freeze(what) {
      const victim = pids()[what]
      if (victim === undefined) throw new Error(`there is no ${what} process now`)
      signalTo(victim, 'SIGSTOP')
      return () => signalTo(victim, 'SIGCONT')
    },
    async stop(withinMs = stopMsMax) {
      pids()
      if (!exit) child.kill('SIGTERM')
      const ended = await waitFor(() => exit, {
        withinMs,
        what: 'weir start to end after SIGTERM',
      }).catch((error: Error) => {
        throw new Error(`${error.message}; it logged: ${stderr.slice(-2_000)}`)
      })
      if (ended.code !== 0)
        throw new Error(`weir start ended with ${ended.code ?? ended.signal}; it logged: ${stderr.slice(-2_000)}`)
      await waitFor(() => [...family].every((each) => !isAlive(each)), { what: 'the other processes to end' })
    },
    stdout: () => stdout,
    stderr: () => stderr,
    dispose,
  }
}

/** Ours without any WEIR_ setting of the shell that runs the tests. */
function environment(more: Readonly<Record<string, string>>): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith('WEIR_') && name !== 'NODE_OPTIONS')
  return { ...Object.fromEntries(kept), ...more }
}

// What still runs when the runner itself ends must not outlive it.
const alive = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of alive) child.kill('SIGKILL')
})

function signalTo(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** False for a zombie too: it holds nothing any more. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
  } catch {
    return false
  }
  const stat = readStat(pid)
  return stat === undefined ? !existsSync('/proc/self') : stat.state !== 'Z'
}

interface Child {
  readonly pid: number
  readonly words: readonly string[]
}

/** From /proc: the tests that kill parts of the product run on Linux. */
function childrenOf(parent: number): Child[] {
  const found: Child[] = []
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    const pid = Number(name)
    const stat = readStat(pid)
    if (stat?.parent !== parent || stat.state === 'Z') continue
    try {
      found.push({ pid, words: readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').filter(Boolean) })
    } catch {
      // It ended between the two looks.
    }
  }
  return found
}

function readStat(pid: number): { state: string; parent: number } | undefined {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const [state, parent] = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return { state: state!, parent: Number(parent) }
  } catch {
    return undefined
  }
}
