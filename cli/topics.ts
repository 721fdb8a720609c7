// `weir topics`: makes the topics that Weir needs in Kafka, with settings under which an acknowledged reading is kept, and says what is wrong with
// those that are there. What is there is never changed: that is its operator's.
import { defineCommand } from 'citty'
import { StartError } from '../runtime/errors.ts'
import { createLogger } from '../runtime/logger.ts'
import { readConfig } from '../runtime/read-config.ts'
import { describeError } from '../stream/log/kafka-errors.ts'
import { ensureTopics, type TopicReport } from '../stream/log/kafka-topics.ts'
import { kafkaEndpoint } from '../stream/log/open-log.ts'
import { type CommandWorld, StoppedError, untilStopped } from './command.ts'

export const topics = defineCommand({
  meta: { name: 'topics', description: 'Make the Kafka topics, and check those that are there' },
  args: {
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    check: { type: 'boolean', description: 'Make nothing, only look' },
    json: { type: 'boolean', description: 'One JSON object on stdout, for programs' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    const config = readConfig({ environment: world.environment, file: args.config, purpose: 'command' })
    if (config.log !== 'kafka')
      throw new StartError('The log is embedded and has no topics: set WEIR_LOG=kafka and WEIR_KAFKA_BROKERS')
    const endpoint = kafkaEndpoint(config, createLogger(config.logLevel, 'topics'))
    const { kafkaPrefix: prefix, partitions, retentionLog: retentionMs } = config
    const asked = ensureTopics({ endpoint, prefix, partitions, retentionMs }, { create: args.check !== true })
    const words = 'stopped before it finished: nothing is said about the topics'
    const reports = await untilStopped(world.stop, asked, words).catch((error: unknown) => {
      if (error instanceof StoppedError) throw error
      throw new StartError(`Kafka at ${endpoint.brokers.join(', ')} can't be asked: ${describeError(error)}`)
    })
    const ok = reports.every(({ problems }) => problems.length === 0)
    world.print(args.json ? JSON.stringify({ ok, topics: reports }) : reports.map(describe).join('\n'))
    return ok ? 0 : 1
  },
})

function describe({ name, partitions, copies, created, problems, warnings }: TopicReport): string {
  const what =
    partitions === 0 ? 'missing' : `${partitions} partitions, ${copies === 1 ? 'one copy' : `${copies} copies`}`
  const verdict = problems.length > 0 ? 'WRONG' : warnings.length > 0 ? 'works' : 'good'
  const lines = [`${name}: ${what}${created ? ', made now' : ''}: ${verdict}`]
  for (const problem of problems) lines.push(`  wrong: ${problem}`)
  for (const warning of warnings) lines.push(`  note: ${warning}`)
  return lines.join('\n')
}
