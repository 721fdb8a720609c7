#!/usr/bin/env node
// The command line's entry, and the only file that reads argv and the environment, handles signals and exits. Exit codes: 0, 1 (what was asked
// for failed), 2 (used wrongly). Run by our own first process with an internal word, it is one of the children instead.
import { readFileSync } from 'node:fs'
import { stripVTControlCharacters } from 'node:util'
import { type ArgsDef, type CommandDef, renderUsage, runCommand, type SubCommandsDef } from 'citty'
import { childProcesses } from './app-children.ts'
import { type CommandWorld, checkWords, StoppedError, UsageError } from './cli/command.ts'
import type { Config } from './runtime/config.ts'
import { ConfigError, LogDamagedError, StartError } from './runtime/errors.ts'
import { createLogger } from './runtime/logger.ts'
import { nearestName } from './runtime/nearest-name.ts'

/** Loaded when asked for: a child process holds nothing of them. */
const commands: SubCommandsDef = {
  start: async () => (await import('./cli/start.ts')).start,
  simulate: async () => (await import('./cli/simulate.ts')).simulate,
  device: async () => (await import('./cli/device.ts')).device,
  'dead-letters': async () => (await import('./cli/dead-letters.ts')).deadLetters,
  verify: async () => (await import('./cli/verify.ts')).verify,
  topics: async () => (await import('./cli/topics.ts')).topics,
  offsets: async () => (await import('./cli/offsets.ts')).offsets,
  move: async () => (await import('./cli/move.ts')).move,
  demo: async () => (await import('./cli/demo.ts')).demo,
  health: async () => (await import('./cli/health.ts')).health,
}

const root: CommandDef = {
  meta: { name: 'weir', description: 'Telemetry from devices: kept, stored once, shown' },
  subCommands: commands,
}

const sameSignalMs = 300

const words = process.argv.slice(2)
const isChild = process.env.WEIR_INTERNAL_CONFIG !== undefined && process.send !== undefined

async function run(): Promise<number> {
  const [name = '--help', ...rest] = words
  if (isChild) return runAsChild(name)
  if (name === '--help' || name === '-h') return print(plain(await renderUsage(root)))
  if (name === '--version' || name === '-v') return print(version())
  const found = Object.hasOwn(commands, name) ? commands[name] : undefined
  if (!found) throw new UsageError(unknownCommand(name))
  const command = await (typeof found === 'function' ? found() : found)
  if (rest.includes('--help') || rest.includes('-h')) return print(plain(await renderUsage(command, root)))
  checkWords(name, rest, (command.args ?? {}) as ArgsDef)
  const world: CommandWorld = {
    environment: process.env,
    mainFile: import.meta.filename,
    stop: stopSignal(),
    print,
    terminal: process.stderr.isTTY === true && process.stdout.isTTY === true,
  }
  const { result } = await runCommand(command, { rawArgs: rest, data: world })
  return typeof result === 'number' ? result : 0
}

function runAsChild(name: string): Promise<number> {
  const { WEIR_INTERNAL_CONFIG: config = '{}', WEIR_INTERNAL_MQTT: mqttUrl, WEIR_INTERNAL_HTTP: httpUrl } = process.env
  return childProcesses[name]!({ config: JSON.parse(config) as Config, mqttUrl, httpUrl, stop: stopSignal() })
}

function print(line: string): number {
  process.stdout.write(`${line}\n`)
  return 0
}

function version(): string {
  const file = new URL('../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

/** Colours are for terminals. */
function plain(text: string): string {
  return process.stdout.isTTY ? text : stripVTControlCharacters(text)
}

function unknownCommand(name: string): string {
  const known = Object.keys(commands)
  return `weir has no command ${name}${nearestName(name, known)}; the commands are ${known.join(', ')}`
}

/** The first signal asks for an end in order, a second one ends at once. */
function stopSignal(): AbortSignal {
  const stop = new AbortController()
  let askedAt = 0
  const onSignal = (): void => {
    const now = performance.now()
    // Sent to a process and to its group, one signal comes twice.
    if (stop.signal.aborted && now - askedAt > sameSignalMs) process.exit(1)
    if (!stop.signal.aborted) askedAt = now
    stop.abort()
  }
  process.on('SIGTERM', onSignal)
  // Ctrl-C reaches every process of the terminal; the first one tells its children itself, in the right order.
  process.on('SIGINT', isChild ? () => {} : onSignal)
  return stop.signal
}

/** Errors that are a sentence for a person, and a stop that was asked for; anything else is a bug and is logged with its stack. */
function exitCodeOf(error: unknown): number {
  if (error instanceof StoppedError) {
    process.stderr.write(`${error.message}\n`)
    return 0
  }
  if (error instanceof UsageError || (error as Error)?.name === 'CLIError') {
    process.stderr.write(`${(error as Error).message}\n`)
    return 2
  }
  if (error instanceof ConfigError || error instanceof StartError || error instanceof LogDamagedError) {
    process.stderr.write(`${error.message}\n`)
    return 1
  }
  // A directory that can't be written, a disk that is full: the system's own words say it all.
  const { syscall, message } = error as NodeJS.ErrnoException
  if (syscall !== undefined) {
    process.stderr.write(`${message}\n`)
    return 1
  }
  return crashed(error)
}

function crashed(error: unknown): number {
  createLogger('error', isChild ? words[0]! : 'main').error(
    { err: error },
    'an error that nothing expected: the process ends',
  )
  return 1
}

process.on('uncaughtException', (error) => process.exit(crashed(error)))
process.on('unhandledRejection', (error) => process.exit(crashed(error)))

run().then(
  (code) => process.exit(code),
  (error: unknown) => process.exit(exitCodeOf(error)),
)
