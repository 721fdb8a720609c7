// Reads the configuration from flags, environment and file, in this order, and checks all of it before anything opens.
import { readFileSync } from 'node:fs'
import { type Config, environmentName, flagName, options } from './config.ts'
import { checkAccess, checkTogether } from './config-rules.ts'
import { ConfigError } from './errors.ts'
import { nearestName } from './nearest-name.ts'

export interface ConfigSources {
  readonly environment: Readonly<Record<string, string | undefined>>
  /** Path of a JSON file. */
  readonly file?: string | undefined
  /** From the command line; wins over the environment, which wins over the file. */
  readonly flags?: Readonly<Record<string, unknown>>
  /** `start`: rules that only matter to what listens hold too. */
  readonly purpose?: 'start' | 'command'
}

/** Reads and checks everything before anything opens. Throws one ConfigError that lists all problems, unknown names too. */
export function readConfig({ environment, file, flags = {}, purpose = 'start' }: ConfigSources): Config {
  const problems: string[] = []
  const fromFile = file === undefined ? {} : readFile(file, problems)
  const known = Object.keys(options)
  const byEnvironmentName = new Map(known.map((name) => [environmentName(name), name]))
  for (const name of Object.keys(fromFile))
    if (!known.includes(name)) problems.push(`${file}: ${unknownName(name, known)}`)
  for (const name of Object.keys(environment)) {
    // WEIR_TEST_… and WEIR_INTERNAL_… are not options: the first drive the test suite, the second tie our own processes together.
    if (!name.startsWith('WEIR_') || /^WEIR_(TEST|INTERNAL)_/.test(name) || byEnvironmentName.has(name)) continue
    problems.push(unknownName(name, [...byEnvironmentName.keys()]))
  }
  const config: Record<string, unknown> = {}
  for (const name of known) {
    const { schema, fallback } = options[name as keyof typeof options]
    const inEnvironment = environment[environmentName(name)]
    const [given, origin] =
      flags[name] !== undefined
        ? [flags[name], `--${flagName(name)}`]
        : inEnvironment !== undefined && inEnvironment !== ''
          ? [inEnvironment, environmentName(name)]
          : fromFile[name] !== undefined
            ? [fromFile[name], `${file}: ${name}`]
            : [fallback, name]
    const parsed = schema.safeParse(given)
    if (parsed.success) config[name] = parsed.data
    else
      for (const issue of parsed.error.issues)
        problems.push(`${origin}${secrets.has(name) ? '' : ` is ${shown(name, given)}:`} ${issue.message}`)
  }
  problems.push(...checkTogether(config as Partial<Config>))
  if (purpose === 'start') problems.push(...checkAccess(config as Partial<Config>))
  if (problems.length > 0) throw new ConfigError(problems)
  return config as Config
}

/** As given, without what is nobody's business. */
function shown(name: string, given: unknown): string {
  return secrets.has(name) ? '…' : JSON.stringify(given).replace(/\/\/.*@/, '//…@')
}

/** Never repeated in a message. */
const secrets: ReadonlySet<string> = new Set(['adminToken', 'clickhousePassword', 'kafkaPassword'])

function readFile(file: string, problems: string[]): Record<string, unknown> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    problems.push(`--config ${file} can't be read: ${(error as Error).message}`)
    return {}
  }
  try {
    const parsed: unknown = JSON.parse(text)
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed))
      return parsed as Record<string, unknown>
    problems.push(`${file} must hold one JSON object`)
  } catch (error) {
    problems.push(`${file} is not JSON: ${(error as Error).message}`)
  }
  return {}
}

function unknownName(name: string, known: readonly string[]): string {
  return `${name} is not an option${nearestName(name, known)}`
}
