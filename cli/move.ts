// `weir move --from embedded --to kafka`: what one machine has kept goes on elsewhere. The log with its groups' positions and what detection has learned
// goes to Kafka; the table to a ClickHouse server, where WEIR_CLICKHOUSE names one. Weir is stopped meanwhile. What was interrupted goes on where it
// stood; nothing here is removed; it ends only when both sides were counted and compared.
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { defineCommand } from 'citty'
import type { EventLog, LogTopic } from '../domain/event-log.ts'
import { readRegistry } from '../runtime/access/registry-file.ts'
import { systemClock } from '../runtime/clock.ts'
import { type Config, devicesFile } from '../runtime/config.ts'
import { acquireLock, type DataLock, lockOwner } from '../runtime/data-lock.ts'
import { StartError } from '../runtime/errors.ts'
import { createLogger, type Logger } from '../runtime/logger.ts'
import { readConfig } from '../runtime/read-config.ts'
import { findClickHouse, isEmbedded } from '../storage/find-clickhouse.ts'
import { type ClickHouse, openClickHouse } from '../storage/open-clickhouse.ts'
import { moveSnapshot, readSnapshotPlace } from '../stream/detectors/snapshot.ts'
import { openEmbeddedLog } from '../stream/log/embedded-log.ts'
import { logTopics } from '../stream/log/frame-format.ts'
import type { KafkaEndpoint } from '../stream/log/kafka-client.ts'
import { describeError } from '../stream/log/kafka-errors.ts'
import { clusterIdOf, ensureTopics, type TopicReport } from '../stream/log/kafka-topics.ts'
import { type MoveRecord, positionOf, readMoveRecord, writeMoveRecord } from '../stream/log/move-record.ts'
import { kafkaEndpoint, logDirectory, openLog, requiredGroups } from '../stream/log/open-log.ts'
import { type CommandWorld, StoppedError, UsageError, untilStopped } from './command.ts'
import { copyLog, type LogMoveOptions, stoppedSentence, tallyLog, verifyMovedLog } from './move-log.ts'
import { commitMoved, groupsOf, translated, wantedOf } from './move-positions.ts'
import { describeMove, type GroupMove, type MoveReport, type TopicMove } from './move-report.ts'
import { moveTables, type TableMove } from './move-table.ts'
import { openStore } from './open-store.ts'
import { type Progress, progressOn } from './progress.ts'

export const move = defineCommand({
  meta: { name: 'move', description: 'Carry log, positions and table from this machine to Kafka and ClickHouse' },
  args: {
    from: { type: 'string', description: 'Where it is now: embedded', valueHint: 'log' },
    to: { type: 'string', description: 'Where it goes: kafka', valueHint: 'log' },
    data: {
      type: 'string',
      description: 'Directory that holds everything Weir keeps (./data)',
      valueHint: 'directory',
    },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    'dry-run': { type: 'boolean', description: 'Check everything, count what would be moved, and move nothing' },
    json: { type: 'boolean', description: 'One JSON object on stdout, for programs' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    if (args.from !== 'embedded' || args.to !== 'kafka')
      throw new UsageError('weir move goes one way: weir move --from embedded --to kafka')
    const flags = { data: args.data, log: 'kafka' }
    const config = readConfig({ environment: world.environment, file: args.config, flags, purpose: 'command' })
    const report = await moveAll(config, world, args['dry-run'] === true)
    world.print(args.json ? JSON.stringify(report) : describeMove(report))
    return 0
  },
})

type LogMoveReport = Omit<MoveReport, 'tables' | 'devices'>

/** Nothing is taken from what is being moved, however old. */
const ownStore = { clickhouse: 'embedded', clickhouseCluster: undefined, clickhouseCa: undefined } as const
const keepForEverMs = 100 * 365 * 86_400_000
const storedSegmentsMax = 2 ** 50
const lockNames = ['lock', 'writer.lock', 'detector.lock']
const storeLockName = join('clickhouse', 'lock')
/** A server that was killed has let go by then. */
const lockWaitMs = 1_000

async function moveAll(config: Config, world: CommandWorld, isDryRun: boolean): Promise<MoveReport> {
  const directory = logDirectory(config)
  if (!existsSync(directory)) throw new StartError(`There is no log in ${config.data}: nothing to move`)
  const logger = createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel, 'move')
  const progress = progressOn(world, stoppedSentence)
  const endpoint = kafkaEndpoint(config, logger)
  const devices = { file: devicesFile(config), registered: readRegistry(devicesFile(config)).devices.size }
  // Who only counts may do so beside a Weir that runs.
  const isBeside = isDryRun && runsHere(config)
  const locks = isBeside ? [] : await lockAll(config)
  let source: EventLog | undefined
  let target: EventLog | undefined
  try {
    const to = `Kafka ${await askKafka(endpoint, world.stop, () => clusterIdOf(endpoint))} ${config.kafkaPrefix}*`
    const record = await readMoveRecord(directory)
    if (record && record.to !== to)
      throw new StartError(
        `A move of this log to ${record.to} was ${record.state}, and this one is to ${to}: go on with that one, or remove ${join(directory, 'move.json')} to begin anew`,
      )
    if (record?.state === 'done') return { ...(record.report as MoveReport), devices, state: 'moved-before' }
    source = await openSource(config, logger, isBeside ? 'read' : 'append')
    const reports = await askKafka(endpoint, world.stop, () => topicsOf(config, endpoint))
    refuseProblems(reports, record !== undefined)
    const isThere = reports.every(({ partitions }) => partitions > 0)
    // Made now, unless nothing is to be changed.
    if (!isDryRun || isThere) {
      const mode = isDryRun ? 'read' : 'append'
      const opening = openLog({ config, mode, logger, clock: systemClock, signal: world.stop })
      target = await untilStopped(world.stop, opening, stoppedSentence)
    }
    if (!record && target) await refuseForeign(target)
    const store = { config, world, logger, progress, isDryRun }
    if (isDryRun || !target)
      return { ...(await wouldMove({ config, source, to, progress })), tables: await moveStore(store), devices }
    const begun = record ?? (await begin(directory, source, to))
    const tables = await moveStore(store)
    const moved = await moveLog({ config, source, target, to, record: begun, progress, signal: world.stop })
    const report: MoveReport = { ...moved, tables, devices }
    await writeMoveRecord(directory, { ...begun, state: 'done', at: new Date().toISOString(), report })
    return report
  } finally {
    progress('', 0, 0)
    await target?.close()
    await source?.close()
    for (const lock of locks) lock.release()
  }
}

function runsHere({ data }: Config): boolean {
  return [...lockNames, storeLockName].some((name) => lockOwner(join(data, name)) !== undefined)
}

/** Everybody who would change anything here meanwhile is kept out. */
async function lockAll({ data }: Config): Promise<readonly DataLock[]> {
  const whenTaken = (pid: number): string =>
    `Weir runs on ${data} (process ${pid}): stop it first, and leave it stopped until the move is done`
  const storeOwner = lockOwner(join(data, storeLockName))
  if (storeOwner !== undefined) throw new StartError(whenTaken(storeOwner))
  const locks: DataLock[] = []
  try {
    for (const name of lockNames) locks.push(await acquireLock(join(data, name), { whenTaken, waitMs: lockWaitMs }))
    return locks
  } catch (error) {
    for (const lock of locks) lock.release()
    throw error
  }
}

/** To be moved, as its owner, so that the end of a log whose server was killed is found. */
function openSource(config: Config, logger: Logger, mode: 'read' | 'append'): Promise<EventLog> {
  return openEmbeddedLog({
    directory: logDirectory(config),
    mode,
    partitions: config.partitions,
    quotaBytes: storedSegmentsMax,
    retentionMs: keepForEverMs,
    groups: requiredGroups,
    logger,
    clock: systemClock,
  })
}

function topicsOf(config: Config, endpoint: KafkaEndpoint): Promise<TopicReport[]> {
  const { kafkaPrefix: prefix, partitions, retentionLog: retentionMs } = config
  return ensureTopics({ endpoint, prefix, partitions, retentionMs }, { create: false })
}

/** One try: who moves is there to see it. */
async function askKafka<Answer>(
  { brokers }: KafkaEndpoint,
  stop: AbortSignal,
  ask: () => Promise<Answer>,
): Promise<Answer> {
  try {
    return await untilStopped(stop, ask(), stoppedSentence)
  } catch (error) {
    if (error instanceof StoppedError) throw error
    throw new StartError(`Kafka at ${brokers.join(', ')} can't be asked: ${describeError(error)}`)
  }
}

/** Topics that are not there yet are made. */
function refuseProblems(reports: readonly TopicReport[], isResumed: boolean): void {
  const problems = reports.flatMap(({ name, partitions, problems: found }) =>
    partitions === 0 ? [] : found.map((problem) => `The Kafka topic ${name} ${problem}`),
  )
  if (problems.length > 0) throw new StartError(problems.join('\n'))
  const missing = reports.filter(({ partitions }) => partitions === 0)
  if (isResumed && missing.length > 0 && missing.length < reports.length)
    throw new StartError(
      `The Kafka topic ${missing[0]!.name} is gone since the move began: make it again with weir topics`,
    )
}

/** What is there already would come before what is moved. */
async function refuseForeign(target: EventLog): Promise<void> {
  for (const topic of logTopics) {
    const messages = [...(await target.end(topic)).values()].reduce((sum, offset) => sum + offset, 0)
    if (messages > 0)
      throw new StartError(
        `The topic of ${topic} in Kafka holds ${messages} messages already: a log is moved to topics that are new. Choose others with WEIR_KAFKA_PREFIX, or remove these.`,
      )
  }
}

async function begin(directory: string, source: EventLog, to: string): Promise<MoveRecord> {
  const beganAt: Partial<Record<LogTopic, Record<string, number>>> = {}
  for (const topic of logTopics) beganAt[topic] = Object.fromEntries(await source.beginning(topic))
  const record: MoveRecord = { version: 1, state: 'begun', to, beganAt, at: new Date().toISOString() }
  await writeMoveRecord(directory, record)
  return record
}

interface MovingStore {
  readonly config: Config
  readonly world: CommandWorld
  readonly logger: Logger
  readonly progress: Progress
  readonly isDryRun: boolean
}

/** Before the log: what the positions stand for is in the table when they are moved. */
async function moveStore({ config, world, logger, progress, isDryRun }: MovingStore): Promise<TableMove[]> {
  if (isEmbedded(config) || !existsSync(join(config.data, 'clickhouse'))) return []
  const here: Config = { ...config, ...ownStore }
  const [source, target] = [here, config].map((each) => openClickHouse(findClickHouse(each), { logger })) as [
    ClickHouse,
    ClickHouse,
  ]
  try {
    const storeWorld = { world, logger, whenStopped: stoppedSentence }
    const closeTarget = await openStore(config, target, storeWorld)
    const closeSource = await openStore(here, source, storeWorld)
    try {
      return await moveTables({ source, target: isDryRun ? undefined : target, progress })
    } finally {
      await closeSource()
      await closeTarget()
    }
  } finally {
    await source.close()
    await target.close()
  }
}

interface Moving {
  readonly config: Config
  readonly source: EventLog
  readonly to: string
  readonly progress: Progress
}

async function wouldMove({ config, source, to, progress }: Moving): Promise<LogMoveReport> {
  const topics: TopicMove[] = []
  for (const topic of logTopics) {
    const from = await tallyLog(source, topic, (done, of) => progress(`counting ${topic}`, done, of))
    topics.push({ topic, from, copied: 0, repeats: 0 })
  }
  const groups = (await groupsOf(config)).map(({ group, topic, position }) => ({
    group,
    topic,
    from: Object.fromEntries(position),
  }))
  const detector = readSnapshotPlace(snapshotFile(config)) ? 'moved' : 'none'
  return { state: 'would-move', data: config.data, to, topics, groups, detector }
}

async function moveLog(
  moving: Moving & { readonly target: EventLog; readonly record: MoveRecord; readonly signal: AbortSignal },
): Promise<LogMoveReport> {
  const { config, source, target, to, record, progress, signal } = moving
  const found = await groupsOf(config)
  const snapshot = readSnapshotPlace(snapshotFile(config))
  const topics: TopicMove[] = []
  const groups: GroupMove[] = []
  let detector: MoveReport['detector'] = 'none'
  for (const topic of logTopics) {
    const optionsOf = (what: string): LogMoveOptions => ({
      ...{ source, target, topic, beganAt: positionOf(record, topic), signal },
      progress: (done, of) => progress(`${what} ${topic}`, done, of),
    })
    const copied = await copyLog(optionsOf('copying'))
    const own = found.filter((each) => each.topic === topic)
    const isToMove = topic === 'readings' && snapshot !== undefined && snapshot.log !== to
    const positions = [...own.map(({ position }) => position), ...(isToMove ? [snapshot.position] : [])]
    const verified = await verifyMovedLog(optionsOf('comparing'), wantedOf(positions))
    topics.push({ topic, from: verified.source, to: verified.target, copied, repeats: verified.repeats })
    // Positions after what they stand for, as always.
    await Promise.all(
      own.map(async ({ group, position }) => {
        const there = translated(position, verified.places)
        await commitMoved(target, group, topic, there, signal)
        groups.push({ group, topic, from: Object.fromEntries(position), to: Object.fromEntries(there) })
      }),
    )
    if (isToMove) moveSnapshot(snapshotFile(config), translated(snapshot.position, verified.places), to)
    if (topic === 'readings' && snapshot) detector = 'moved'
  }
  return { state: 'moved', data: config.data, to, topics, groups, detector }
}

function snapshotFile({ data }: Config): string {
  return join(data, 'detector', 'snapshot')
}
