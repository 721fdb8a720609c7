// For tests of the options: what is found wrong with a configuration.
import { ConfigError } from './errors.ts'
import { readConfig } from './read-config.ts'

export function problemsOf(sources: Parameters<typeof readConfig>[0]): readonly string[] {
  try {
    readConfig(sources)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
}
