// Weir's topics in Kafka: made with settings under which an acknowledged chunk is kept, and checked, with a sentence for each thing that is wrong.

import type { LogTopic } from '../../domain/event-log.ts'
import { logTopics } from './frame-format.ts'
import { createAdmin, type KafkaEndpoint } from './kafka-client.ts'
import { describeError, reasonOf } from './kafka-errors.ts'
import { chunkBytesMax } from './kafka-producer.ts'
import { hasZstd } from './kafka-records.ts'
import { BackOff } from './kafka-wait.ts'

export interface KafkaTopicsOptions {
  readonly endpoint: KafkaEndpoint
  readonly prefix: string
  readonly partitions: number
  readonly retentionMs: number
  /** Instead of ours, for tests. */
  readonly settings?: Readonly<Record<string, string>>
}

export interface TopicReport {
  readonly name: string
  readonly partitions: number
  readonly copies: number
  readonly created: boolean
  /** Weir can't run on it. */
  readonly problems: readonly string[]
  /** It runs, and an operator should know. */
  readonly warnings: readonly string[]
}

export function topicName(prefix: string, topic: LogTopic): string {
  return `${prefix}${topic}`
}

/** A batch has a header, and headers of its messages. */
const messageBytesMax = 2 * chunkBytesMax
const copiesWanted = 3
const configTypeTopic = 2
/** What a broker may make of our batches. */
const readableCompressions = new Set(['producer', 'uncompressed', 'gzip', ...(hasZstd ? ['zstd'] : [])])

/** Makes what is missing (unless `dryRun`) and looks at all of them. Throws what the cluster answers when it can't be asked. */
export async function ensureTopics(
  options: KafkaTopicsOptions,
  { create }: { create: boolean },
): Promise<TopicReport[]> {
  const admin = createAdmin(options.endpoint)
  await admin.connect()
  try {
    const names = logTopics.map((topic) => topicName(options.prefix, topic))
    const there = new Set(await admin.listTopics())
    const missing = names.filter((name) => !there.has(name))
    if (create && missing.length > 0) await createTopics(admin, missing, options)
    const seen = create ? names : names.filter((name) => there.has(name))
    const reports = seen.length > 0 ? await onceKnown(() => lookAt(admin, seen, missing, options)) : []
    const absent = create ? [] : missing
    return [...reports, ...absent.map((name) => absentReport(name))]
  } finally {
    await admin.disconnect().catch(() => {})
  }
}

/** The cluster's own name, whatever brokers it is asked through. */
export async function clusterIdOf(endpoint: KafkaEndpoint): Promise<string> {
  const admin = createAdmin(endpoint)
  await admin.connect()
  try {
    return (await admin.describeCluster()).clusterId
  } finally {
    await admin.disconnect().catch(() => {})
  }
}

type Admin = ReturnType<typeof createAdmin>

/** Of a topic that was made a moment ago: not every broker has heard of it. */
const notKnownYet = new Set(['UNKNOWN_TOPIC_OR_PARTITION', 'LEADER_NOT_AVAILABLE'])
const knownWithinMs = 30_000

async function onceKnown<Answer>(ask: () => Promise<Answer>): Promise<Answer> {
  const giveUpAt = performance.now() + knownWithinMs
  const backOff = new BackOff(new AbortController().signal)
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (!notKnownYet.has(reasonOf(error)) || performance.now() > giveUpAt) throw error
      await backOff.wait()
    }
  }
}

async function createTopics(
  admin: Admin,
  names: readonly string[],
  { partitions, retentionMs, settings }: KafkaTopicsOptions,
): Promise<void> {
  const { brokers } = await admin.describeCluster()
  const copies = Math.min(copiesWanted, brokers.length)
  const entries = {
    'cleanup.policy': 'delete',
    'compression.type': 'producer',
    'max.message.bytes': String(messageBytesMax),
    'min.insync.replicas': String(Math.max(1, copies - 1)),
    'message.timestamp.type': 'LogAppendTime',
    'retention.ms': String(retentionMs),
    'unclean.leader.election.enable': 'false',
    ...settings,
  }
  try {
    await admin.createTopics({
      // Ours waits (onceKnown): theirs gives up on a broker that has not heard of the topic yet.
      waitForLeaders: false,
      topics: names.map((topic) => ({
        topic,
        numPartitions: partitions,
        replicationFactor: copies,
        configEntries: Object.entries(entries).map(([name, value]) => ({ name, value })),
      })),
    })
  } catch (error) {
    // Another process of ours was faster.
    if (!/TOPIC_ALREADY_EXISTS|already exists/.test(`${describeError(error)} ${JSON.stringify(error)}`)) throw error
  }
}

async function lookAt(
  admin: Admin,
  names: readonly string[],
  created: readonly string[],
  { partitions, retentionMs }: KafkaTopicsOptions,
): Promise<TopicReport[]> {
  const { topics } = await admin.fetchTopicMetadata({ topics: [...names] })
  const { resources } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: names.map((name) => ({ type: configTypeTopic, name })),
  })
  const { brokers } = await admin.describeCluster()
  return topics.map(({ name, partitions: found }) => {
    const entries = resources.find(({ resourceName }) => resourceName === name)?.configEntries ?? []
    const setting = (key: string): string => entries.find(({ configName }) => configName === key)?.configValue ?? ''
    const copies = Math.min(...found.map(({ replicas }) => replicas.length))
    const problems: string[] = []
    const warnings: string[] = []
    if (found.length !== partitions)
      problems.push(
        `has ${found.length} partitions and WEIR_PARTITIONS is ${partitions}: a device's readings would change partition; set WEIR_PARTITIONS=${found.length}`,
      )
    if (setting('cleanup.policy').includes('compact'))
      problems.push('is compacted, which removes readings: set cleanup.policy=delete')
    if (setting('unclean.leader.election.enable') === 'true')
      problems.push('lets a broker lead that lacks acknowledged readings: set unclean.leader.election.enable=false')
    const compression = setting('compression.type')
    if (!readableCompressions.has(compression))
      problems.push(`is stored as ${compression}, which Weir can't read here: set compression.type=producer`)
    const inSync = Number(setting('min.insync.replicas'))
    if (inSync > copies)
      problems.push(`asks for ${inSync} copies in sync and has ${copies}: nothing can be acknowledged`)
    if (copies > 1 && inSync < 2)
      warnings.push('acknowledges when one broker alone has a reading: set min.insync.replicas=2')
    if (copies > 1 && inSync === copies)
      warnings.push(`takes nothing while one broker is away: set min.insync.replicas=${copies - 1}`)
    if (copies < Math.min(copiesWanted, brokers.length))
      warnings.push(
        `has ${copies === 1 ? 'one copy' : `${copies} copies`} of each reading on a cluster of ${brokers.length} brokers`,
      )
    if (copies === 1 && brokers.length === 1)
      warnings.push("has one copy of each reading: they are gone when that broker's disk is")
    warnings.push(...retentionWarnings(setting, retentionMs))
    const bytesMax = Number(setting('max.message.bytes'))
    if (bytesMax < messageBytesMax)
      warnings.push(
        `takes ${bytesMax} bytes at once: larger chunks are refused; set max.message.bytes=${messageBytesMax}`,
      )
    return { name, partitions: found.length, copies, created: created.includes(name), problems, warnings }
  })
}

/** What Kafka removes, whoever has read it, and when. */
function retentionWarnings(setting: (key: string) => string, wantedMs: number): string[] {
  const warnings: string[] = []
  const keptMs = Number(setting('retention.ms'))
  // -1: for ever.
  if (keptMs >= 0 && keptMs < wantedMs)
    warnings.push(
      `keeps readings for ${keptMs} ms, which is less than WEIR_RETENTION_LOG, whether they are stored or not: set retention.ms=${wantedMs}`,
    )
  else if (keptMs !== wantedMs)
    warnings.push(
      `keeps readings ${keptMs < 0 ? 'for ever' : `for ${keptMs} ms`}, which is more than WEIR_RETENTION_LOG: set retention.ms=${wantedMs}, or leave it if its disks have room`,
    )
  const bytesMax = Number(setting('retention.bytes'))
  if (bytesMax >= 0)
    warnings.push(
      `removes readings beyond ${bytesMax} bytes a partition, whether they are stored or not: set retention.bytes=-1`,
    )
  if (setting('message.timestamp.type') !== 'LogAppendTime')
    warnings.push(
      "takes the clocks of Weir's machines for the age of readings, and may refuse what a wrong one sends: set message.timestamp.type=LogAppendTime",
    )
  return warnings
}

function absentReport(name: string): TopicReport {
  return { name, partitions: 0, copies: 0, created: false, problems: ['is not there'], warnings: [] }
}
