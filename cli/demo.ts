// `weir demo`: the demo fleet against a Weir that runs elsewhere, such as the services of docker-compose.yml. `weir start --demo` has it built in.
import { defineCommand } from 'citty'
import { systemClock } from '../runtime/clock.ts'
import { createLogger } from '../runtime/logger.ts'
import { readConfig } from '../runtime/read-config.ts'
import { type CommandWorld, UsageError } from './command.ts'
import { runDemoFleet } from './demo-fleet.ts'

export const demo = defineCommand({
  meta: { name: 'demo', description: 'Three demo devices, real series with their history first, until it is stopped' },
  args: {
    mqtt: { type: 'string', description: 'Where to publish (mqtt://127.0.0.1:1883)', valueHint: 'url' },
    http: { type: 'string', description: 'The API to ask what is there (http://127.0.0.1:8080)', valueHint: 'url' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    const mqttUrl = args.mqtt ?? 'mqtt://127.0.0.1:1883'
    const httpUrl = args.http ?? 'http://127.0.0.1:8080'
    for (const [name, url] of Object.entries({ mqtt: mqttUrl, http: httpUrl }))
      if (!URL.canParse(url)) throw new UsageError(`--${name} is "${url}", which is no URL`)
    const { adminToken } = readConfig({ environment: world.environment, purpose: 'command' })
    const credentials = adminToken === undefined ? {} : { adminToken }
    const logger = createLogger('info', 'demo')
    await runDemoFleet({ mqttUrl, httpUrl, logger, clock: systemClock, signal: world.stop, ...credentials })
    return 0
  },
})
