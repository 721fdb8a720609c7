// `weir offsets`: where the readers of Kafka stand, and how one that retention has passed is set to what is left. What is skipped is said before and
// after; nothing is changed while somebody reads for the group. The embedded log has no need of it: its retention waits for its readers.
import { defineCommand } from 'citty'
import type { ConsumerGroup, LogTopic, Offset } from '../domain/event-log.ts'
import type { Config } from '../runtime/config.ts'
import { StartError } from '../runtime/errors.ts'
import { createLogger } from '../runtime/logger.ts'
import { readConfig } from '../runtime/read-config.ts'
import { describeError } from '../stream/log/kafka-errors.ts'
import {
  activeError,
  type GroupOffsets,
  isOutOfRange,
  KafkaOffsets,
  type OffsetReset,
  type PartitionOffsets,
  planReset,
} from '../stream/log/kafka-offsets.ts'
import { kafkaEndpoint } from '../stream/log/open-log.ts'
import { type CommandWorld, StoppedError, UsageError, untilStopped } from './command.ts'

const groups: Readonly<Record<ConsumerGroup, readonly LogTopic[]>> = {
  writer: ['readings', 'anomalies', 'dead-letters'],
  detector: ['readings'],
}
const topics = groups.writer!
const actions = ['list', 'reset'] as const

export const offsets = defineCommand({
  meta: { name: 'offsets', description: 'Where the readers of Kafka stand; reset one that retention has passed' },
  args: {
    action: { type: 'positional', description: actions.join(', '), required: true },
    group: { type: 'positional', description: `To reset: ${Object.keys(groups).join(', ')}`, required: false },
    topic: { type: 'string', description: `Only this one: ${topics.join(', ')}` },
    partition: {
      type: 'string',
      description: 'Only this one, whether its position is gone or not',
      valueHint: 'number',
    },
    to: { type: 'string', description: 'oldest (the default), newest, or an offset', valueHint: 'place' },
    'dry-run': { type: 'boolean', description: 'Say what reset would do, and do nothing' },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    json: { type: 'boolean', description: 'One JSON object on stdout, for programs' },
  },
  async run({ args, data }) {
    const world = data as CommandWorld
    const { action, group, topic, partition, to, json = false } = args
    const isDry = args['dry-run'] === true
    const config = readConfig({ environment: world.environment, file: args.config, purpose: 'command' })
    if (topic !== undefined && !topics.includes(topic as LogTopic))
      throw new UsageError(`weir offsets: --topic is one of ${topics.join(', ')}`)
    const wanted = topic as LogTopic | undefined
    if (action === 'list') {
      if ([group, partition, to].some((each) => each !== undefined) || isDry)
        throw new UsageError('weir offsets: list takes --topic and --json')
      return asking(world, config, (there) => list(world, there, wanted, json))
    }
    if (action !== 'reset') throw new UsageError(`weir offsets ${action}: the actions are ${actions.join(', ')}`)
    if (group === undefined || !Object.hasOwn(groups, group))
      throw new UsageError(`weir offsets: reset takes a group: ${Object.keys(groups).join(', ')}`)
    const chosen = partition === undefined ? undefined : wholeNumber('--partition', partition)
    if (chosen !== undefined && wanted === undefined)
      throw new UsageError('weir offsets: --partition is one of a topic: say which with --topic')
    const target = placeOf(to ?? 'oldest')
    if (typeof target === 'number' && chosen === undefined)
      throw new UsageError('weir offsets: an offset is of one partition: say which with --topic and --partition')
    const selected: Selection = { group, topic: wanted, partition: chosen, target }
    return asking(world, config, (there) => reset(world, config, there, selected, { isDry, json }))
  },
})

interface Selection {
  readonly group: ConsumerGroup
  readonly topic: LogTopic | undefined
  readonly partition: number | undefined
  readonly target: 'oldest' | 'newest' | Offset
}

function placeOf(text: string): 'oldest' | 'newest' | Offset {
  return text === 'oldest' || text === 'newest' ? text : wholeNumber('--to', text)
}

function wholeNumber(flag: string, text: string): number {
  if (!/^\d{1,15}$/.test(text)) throw new UsageError(`weir offsets: ${flag} ${text} is no whole number`)
  return Number(text)
}

/** Kafka's refusals and silences are one sentence. */
async function asking(
  world: CommandWorld,
  config: Config,
  ask: (there: KafkaOffsets) => Promise<number>,
): Promise<number> {
  if (config.log !== 'kafka')
    throw new StartError(
      'The log is embedded, and its retention waits for its readers: offsets are for Kafka (set WEIR_LOG=kafka and WEIR_KAFKA_BROKERS)',
    )
  const { kafkaPrefix: prefix, partitions } = config
  const endpoint = kafkaEndpoint(config, createLogger(config.logLevel, 'offsets'))
  const there = new KafkaOffsets({ endpoint, prefix, partitions }, topics)
  try {
    return await untilStopped(world.stop, ask(there), 'stopped before it finished: nothing more is said about offsets')
  } catch (error) {
    if (error instanceof StoppedError || error instanceof StartError || error instanceof UsageError) throw error
    throw new StartError(`Kafka at ${endpoint.brokers.join(', ')} can't be asked: ${describeError(error)}`)
  } finally {
    await there.close()
  }
}

async function list(
  world: CommandWorld,
  there: KafkaOffsets,
  topic: LogTopic | undefined,
  json: boolean,
): Promise<number> {
  const found: GroupOffsets[] = []
  for (const [group, all] of Object.entries(groups))
    for (const each of all) if (topic === undefined || each === topic) found.push(await there.read(group, each))
  const ok = !found.some(({ partitions }) => partitions.some(isOutOfRange))
  if (json) world.print(JSON.stringify({ ok, groups: found }))
  else world.print(found.map(describeGroup).join('\n'))
  return ok ? 0 : 1
}

async function reset(
  world: CommandWorld,
  config: Config,
  there: KafkaOffsets,
  { group, topic, partition, target }: Selection,
  { isDry, json }: { isDry: boolean; json: boolean },
): Promise<number> {
  if (partition !== undefined && partition >= config.partitions)
    throw new UsageError(`weir offsets: there is no partition ${partition}: the log has ${config.partitions}`)
  const done: { topic: LogTopic; resets: readonly OffsetReset[] }[] = []
  // All are looked at before any is changed.
  const plans: { found: GroupOffsets; resets: readonly OffsetReset[] }[] = []
  for (const each of groups[group]!) {
    if (topic !== undefined && each !== topic) continue
    const found = await there.read(group, each)
    const due = found.partitions.filter((one) =>
      partition === undefined ? isOutOfRange(one) : one.partition === partition,
    )
    if (due.length === 0) continue
    if (found.members > 0 && !isDry) throw activeError(`${config.kafkaPrefix}${group}.${each}`, found.members)
    plans.push({ found, resets: due.map((one) => planReset(one, target)) })
  }
  for (const { found, resets } of plans) {
    if (!isDry) await there.write(found, resets)
    done.push({ topic: found.topic, resets })
    if (!json) for (const each of resets) world.print(describeReset(group, found.topic, each, isDry))
  }
  if (json) world.print(JSON.stringify({ group, dryRun: isDry, topics: done }))
  else if (done.length === 0) world.print(`${group}: every position is in its topic: nothing to reset`)
  return 0
}

function describeGroup({ group, topic, members, partitions }: GroupOffsets): string {
  const who = members === 0 ? 'nobody reads' : members === 1 ? 'one process reads' : `${members} processes read`
  return [`${group}, ${topic}: ${who}`, ...partitions.map(describePartition)].join('\n')
}

function describePartition(offsets: PartitionOffsets): string {
  const { partition, oldest, end, committed, lost, isPastEnd, isOtherLog } = offsets
  const stands = committed === undefined ? 'begins at the oldest' : `at ${committed}`
  const waiting = end - Math.max(oldest, committed ?? oldest)
  const verdict =
    lost > 0
      ? `WRONG: ${lost} chunks were removed before they were read`
      : isPastEnd
        ? 'WRONG: past the end: Kafka has lost chunks, or the topic was made anew'
        : isOtherLog
          ? 'WRONG: not what was read before it: Kafka has lost chunks, or the topic was made anew'
          : `${waiting} to read`
  return `  partition ${partition}: holds ${oldest} to ${end}, ${stands}: ${verdict}`
}

function describeReset(
  group: ConsumerGroup,
  topic: LogTopic,
  { partition, from, to, skippedGone, skippedThere, again }: OffsetReset,
  isDry: boolean,
): string {
  const parts = [
    ...(skippedGone > 0 ? [`skips ${skippedGone} chunks that Kafka has removed`] : []),
    ...(skippedThere > 0 ? [`skips ${skippedThere} chunks that are still there`] : []),
    ...(again > 0 ? [`${again} chunks are read again`] : []),
  ]
  const what = parts.length > 0 ? parts.join('; ') : 'skips nothing'
  const where = `${group}, ${topic}, partition ${partition}`
  return `${where}: ${isDry ? 'would go' : 'set'} from ${from ?? 'nowhere'} to ${to}: ${what}`
}
