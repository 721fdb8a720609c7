// `weir verify`: is everything that was acknowledged where it should be? The log's own frames first (damage is named by file and byte), then the
// log against the table, row by row. Works while Weir runs, and when it is stopped: then the store is opened for the time.
import { existsSync } from 'node:fs'
import { defineCommand } from 'citty'
import { systemClock } from '../runtime/clock.ts'
import type { Config } from '../runtime/config.ts'
import { StartError } from '../runtime/errors.ts'
import { createLogger } from '../runtime/logger.ts'
import { readConfig } from '../runtime/read-config.ts'
import { findClickHouse } from '../storage/find-clickhouse.ts'
import { openClickHouse } from '../storage/open-clickhouse.ts'
import { logDirectory, openLog } from '../stream/log/open-log.ts'
import { type LogReport, verifyLog } from '../stream/log/verify-log.ts'
import { type CommandWorld, StoppedError } from './command.ts'
import { type Comparison, compareWithTable, differenceKinds } from './compare-with-table.ts'
import { openStore } from './open-store.ts'
import { progressOn } from './progress.ts'

export const verify = defineCommand({
  meta: { name: 'verify', description: 'Hold the log against the table, reading by reading' },
  args: {
    data: {
      type: 'string',
      description: 'Directory that holds everything Weir keeps (./data)',
      valueHint: 'directory',
    },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    json: { type: 'boolean', description: 'One JSON object on stdout, for programs' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    const config = readConfig({
      environment: world.environment,
      file: args.config,
      flags: { data: args.data },
      purpose: 'command',
    })
    if (config.log === 'embedded' && !existsSync(logDirectory(config)))
      throw new StartError(`There is no log in ${config.data}: nothing to verify`)
    const report = await verifyAll(config, world).catch((error: unknown) => {
      // For programs the answer says what the exit code does not.
      if (error instanceof StoppedError && args.json) world.print(JSON.stringify({ ok: false, stopped: true }))
      throw error
    })
    world.print(args.json ? JSON.stringify(report) : describe(report))
    return report.ok ? 0 : 1
  },
})

interface Report {
  readonly ok: boolean
  /** Of an embedded log. */
  readonly log?: LogReport
  readonly readings: Comparison
  readonly deadLetters: Comparison
}

const stoppedWords = 'stopped before it finished: NOT verified, nothing is said about the rest'

async function verifyAll(config: Config, world: CommandWorld): Promise<Report> {
  // What it does by itself (opening the store) is no news, unless it goes wrong.
  const logger = createLogger(config.logLevel === 'info' ? 'warn' : config.logLevel, 'verify')
  // Half a check must not pass for one.
  const progress = progressOn(world, stoppedWords)
  // Kafka's frames are its brokers' to check.
  const report =
    config.log === 'kafka'
      ? undefined
      : await verifyLog(logDirectory(config), { progress: (done, of) => progress('segments', done, of) })
  const log = await openLog({ config, mode: 'read', logger, clock: systemClock })
  const clickhouse = openClickHouse(findClickHouse(config), { logger })
  const closeStore = await openStore(config, clickhouse, { world, logger, whenStopped: stoppedWords })
  try {
    const compare = (topic: 'readings' | 'dead-letters'): Promise<Comparison> =>
      compareWithTable({ log, clickhouse, topic, progress: (done, of) => progress(topic, done, of) })
    const readings = await compare('readings')
    const deadLetters = await compare('dead-letters')
    const isSame = [readings, deadLetters].every(({ differences }) =>
      differenceKinds.every((kind) => differences[kind] === 0),
    )
    return { ok: isSame && !report?.problems.length, ...(report && { log: report }), readings, deadLetters }
  } finally {
    progress('', 0, 0)
    await clickhouse.close()
    await log.close()
    await closeStore()
  }
}

function describe({ ok, log, readings, deadLetters }: Report): string {
  const lines = log
    ? [
        `log: ${log.segments} ${log.segments === 1 ? 'segment' : 'segments'}, ${log.chunks} ${log.chunks === 1 ? 'chunk' : 'chunks'}, ${log.problems.length || 'no'} damage`,
      ]
    : []
  for (const { detail } of log?.problems ?? []) lines.push(`  ${detail}`)
  for (const [name, each] of [
    ['readings', readings],
    ['dead letters', deadLetters],
  ] as const) {
    lines.push(`${name}: ${each.inLog} in the log, ${each.compared} compared with the table, ${each.pending} pending`)
    if (each.expired > 0) lines.push(`  ${each.expired} are older than raw readings are kept, and have left the table`)
    for (const kind of differenceKinds)
      if (each.differences[kind] > 0) lines.push(`  ${kind}: ${each.differences[kind]}`)
    for (const { kind, row } of each.examples) lines.push(`  ${kind}: ${JSON.stringify(row)}`)
    if (each.endedAtDamage) lines.push('  compared only up to the damage')
  }
  lines.push(ok ? 'verified: no difference' : 'NOT verified')
  return lines.join('\n')
}
