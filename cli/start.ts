// `weir start`: the product, until it is told to stop. Every option of the configuration is a flag too.
import { type ArgsDef, defineCommand } from 'citty'
import { startWeir } from '../app.ts'
import { flagName, options } from '../runtime/config.ts'
import { readConfig } from '../runtime/read-config.ts'
import { type CommandWorld, UsageError } from './command.ts'

const configArgs: ArgsDef = Object.fromEntries(
  Object.entries(options).map(([name, { meaning, fallback }]) => [
    flagName(name),
    {
      type: 'string',
      description: `${meaning}${fallback === undefined ? '' : ` (${fallback})`}`,
      valueHint: hintOf(name),
    },
  ]),
)

export const start = defineCommand({
  meta: { name: 'start', description: 'Take readings in, keep them, show them' },
  args: {
    ...configArgs,
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    demo: { type: 'boolean', description: 'Also run a fleet of demo devices' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    const config = readConfig({
      environment: world.environment,
      file: args.config as string | undefined,
      flags: configFlags(args),
    })
    if (args.demo && !config.roles.includes('ingest')) throw new UsageError('--demo needs the role ingest')
    return startWeir({ config, demo: args.demo === true, world })
  },
})

/** Those that were given, by the names of the configuration. */
function configFlags(args: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const flags: Record<string, unknown> = {}
  for (const name of Object.keys(options)) {
    const given = args[flagName(name)]
    if (given !== undefined) flags[name] = given
  }
  return flags
}

function hintOf(name: string): string {
  return /Port$/.test(name) ? 'port' : name === 'data' ? 'directory' : 'value'
}
