// What every command is given as citty's `data`, and how its words are checked. A command's `run` resolves with the exit code: 0, or 1 when what
// was asked for failed. main.ts alone reads the command line, the environment and signals, and exits.
import type { ArgsDef } from 'citty'
import { nearestName } from '../runtime/nearest-name.ts'

export interface CommandWorld {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The file that this process was started with: children run the same. */
  readonly mainFile: string
  /** Aborted by the first SIGTERM or SIGINT: end in order. */
  readonly stop: AbortSignal
  /** A line on stdout. */
  print(line: string): void
  /** stdout is a terminal: progress may be drawn on stderr. */
  readonly terminal: boolean
}

/** The command line was used wrongly: one sentence, exit code 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

/** A command ended before its end because it was told to: one plain line on stderr, exit code 0 (API.md section 8: SIGTERM ends every command so). */
export class StoppedError extends Error {
  override readonly name = 'StoppedError'
}

/** The work's answer, or a StoppedError with these words as soon as a stop is asked for. */
export function untilStopped<Answer>(stop: AbortSignal, work: Promise<Answer>, words: string): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const onStop = (): void => reject(new StoppedError(words))
    if (stop.aborted) onStop()
    stop.addEventListener('abort', onStop, { once: true })
    work.then(resolve, reject).finally(() => stop.removeEventListener('abort', onStop))
  })
}

/** Where a Weir of this machine is asked: one that is bound to every address, on loopback. */
export function ownAddress(host: string, port: number): string {
  const own = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  return `http://${own.includes(':') ? `[${own}]` : own}:${port}`
}

/** Unknown flags, flags without their value and words too many are errors; citty lets them pass. */
export function checkWords(command: string, words: readonly string[], args: ArgsDef): void {
  const flags = new Map<string, string>()
  let wordsMax = 0
  for (const [name, definition] of Object.entries(args)) {
    const { type = 'string' } = definition
    if (type === 'positional') wordsMax++
    else flags.set(`--${name}`, type)
  }
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (!word.startsWith('-') || word === '-') {
      if (wordsMax-- <= 0) throw new UsageError(`weir ${command} does not know what to do with "${word}"`)
      continue
    }
    const [flag, value] = splitFlag(word)
    const type = flags.get(flag)
    if (type === undefined)
      throw new UsageError(`weir ${command} has no option ${flag}${nearestName(flag, [...flags.keys()])}`)
    if (type === 'boolean' && value !== undefined) throw new UsageError(`${flag} takes no value`)
    if (type === 'boolean' || value !== undefined) continue
    const next = words[++at]
    if (next === undefined || (next.startsWith('--') && next.length > 2)) throw new UsageError(`${flag} needs a value`)
  }
}

function splitFlag(word: string): [string, string | undefined] {
  const equals = word.indexOf('=')
  return equals < 0 ? [word, undefined] : [word.slice(0, equals), word.slice(equals + 1)]
}
