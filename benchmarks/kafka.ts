// What does the log cost on a real Kafka broker on this machine? Packed chunks against one reading a message (by kafkajs' own producer, as one would
// without Weir, and by ours), compressed against not, and the whole product (MQTT to table) on Kafka against the embedded log and against replay.
import { Kafka, logLevel } from 'kafkajs'
import type { EventLog } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { silentLogger } from '../runtime/logger.ts'
import { openKafkaLog } from '../stream/log/kafka-log.ts'
import type { KafkaCompression } from '../stream/log/kafka-records.ts'
import { startKafka, type TestKafka } from '../tests/helpers/kafka.ts'
import {
  type Benchmark,
  type BenchmarkOptions,
  interleave,
  type Measurement,
  type Report,
  type Round,
  type Side,
  spreadOf,
} from './harness.ts'
import { startLoad } from './load-process.ts'
import { cpuUsOf } from './process-figures.ts'
import { loadSetup, runIntoTable, startForBenchmark } from './weir-side.ts'

const secondsDefault = 3
const warmSeconds = 1
const partitions = 4
const rowsAChunk = 1_000
/** Chunks that wait at once; one reading a message gets as many bytes. */
const packedInFlight = 16
const singleInFlight = 4_000
/** kafkajs' producer sends what one call is given as one batch: it gets the same 4,000 messages in flight. */
const producerSends = 4
const replayBytesMax = 4 * 1024 * 1024

export const kafka: Benchmark = {
  name: 'kafka',
  question:
    'readings a second on a real Kafka: packed against one a message, replay against live, end to end against the embedded log',
  async run({ rounds, seconds = secondsDefault, shape, roles }, report) {
    const broker = await startKafka({ isMeasured: true })
    try {
      const replay = shape === 'end-to-end' ? [] : await measureLog(broker, rounds, seconds, report)
      if (shape === 'log') return
      const live = await measureProduct(broker, roles, rounds, seconds, report)
      const replayRate = spreadOf(replay).median
      if (replay.length > 0)
        report.ratio(
          'replay ÷ live (what the whole product takes in)',
          live.map((rate) => replayRate / rate),
          { min: 4 },
        )
    } finally {
      await broker.dispose()
    }
  },
}

async function measureLog(broker: TestKafka, rounds: number, seconds: number, report: Report): Promise<number[]> {
  const open = (prefix: string, compression: KafkaCompression): Promise<EventLog> =>
    openKafkaLog({
      endpoint: { brokers: broker.brokers, requestTimeoutMs: 10_000, logger: silentLogger },
      prefix,
      mode: 'append',
      partitions,
      retentionMs: 3_600_000,
      compression,
      sessionTimeoutMs: 10_000,
      patienceMs: 60_000,
      logger: silentLogger,
      topicSettings: { 'retention.bytes': String(512 * 1024 * 1024) },
    })
  const [plain, gzip, single] = await Promise.all([
    open('packed.', 'none'),
    open('gzip.', 'gzip'),
    open('single.', 'none'),
  ])
  try {
    const side = (name: string, log: EventLog, rows: number, inFlight: number): Side => ({
      name,
      measure: () => appendFor(log, broker, rows, inFlight, seconds),
    })
    const packed = side('packed  ', plain, rowsAChunk, packedInFlight)
    const byKafkajs: Side = { name: 'kafkajs ', measure: () => produceFor(broker, seconds) }
    for (const each of [
      packed,
      byKafkajs,
      side('', gzip, rowsAChunk, packedInFlight),
      side('', single, 1, singleInFlight),
    ])
      await each.measure(-1)
    const rates = (found: readonly Round[]): number[] =>
      found.map(({ a, b }) => a.figures['readings/s']! / b.figures['readings/s']!)
    const apart = await interleave(packed, byKafkajs, rounds, report)
    report.ratio("packed ÷ one reading a message by kafkajs' own producer", rates(apart), { min: 10 })
    for (const name of ['readings/s', 'our µs', 'broker µs'])
      report.figure(
        `packed ${name}`,
        apart.map(({ a }) => a.figures[name]!),
      )
    report.ratio(
      'packed ÷ one reading a message by ours',
      rates(await interleave(packed, side('one each', single, 1, singleInFlight), rounds, report)),
    )
    report.ratio(
      'gzip ÷ not compressed',
      rates(await interleave(side('gzip    ', gzip, rowsAChunk, packedInFlight), packed, rounds, report)),
    )
    const replay: Side = { name: 'replay  ', measure: () => replayOnce(plain) }
    const replays = await interleave(replay, packed, rounds, report)
    report.ratio('replay ÷ packed appends', rates(replays))
    return replays.map(({ a }) => a.figures['readings/s']!)
  } finally {
    await Promise.all([plain.close(), gzip.close(), single.close()])
  }
}

/** As many rows as a fleet would send: one series after another, two decimals. */
function chunkOf(count: number): Buffer {
  const writer = new RowWriter()
  for (let i = 0; i < count; i++) {
    const prefix = encodeRowPrefix('default', `bench-${String(i % 200).padStart(4, '0')}`, 'temperature')
    writer.number(prefix, 1_760_000_000_000_000 + i * 1_000, 10 + (i % 1_000) / 100, 1_760_000_000_000_000 + i)
  }
  return Buffer.from(writer.rows())
}

async function appendFor(
  log: EventLog,
  broker: TestKafka,
  rows: number,
  inFlight: number,
  seconds: number,
): Promise<Measurement> {
  const chunk = chunkOf(rows)
  const began = performance.now()
  const until = began + seconds * 1_000
  const cpu = process.cpuUsage()
  const brokerBefore = cpuUsOf(broker.pid(1))
  let chunks = 0
  const worker = async (number: number): Promise<void> => {
    while (performance.now() < until) {
      await log.append('readings', number % partitions, chunk, rows, 1_760_000_000_000_000)
      chunks++
    }
  }
  await Promise.all(Array.from({ length: inFlight }, (_, number) => worker(number)))
  const readings = chunks * rows
  const { user, system } = process.cpuUsage(cpu)
  return {
    figures: {
      'readings/s': readings / ((performance.now() - began) / 1_000),
      'our µs': (user + system) / readings,
      'broker µs': (cpuUsOf(broker.pid(1)) - brokerBefore) / readings,
    },
  }
}

/** What one would do without Weir: each reading a message of its own, by the client's producer, as safely (idempotent, all copies). */
async function produceFor(broker: TestKafka, seconds: number): Promise<Measurement> {
  const producer = new Kafka({ brokers: [...broker.brokers], logLevel: logLevel.NOTHING }).producer({
    idempotent: true,
  })
  await producer.connect()
  const value = chunkOf(1)
  const messages = Array.from({ length: singleInFlight / producerSends }, (_, i) => ({
    value,
    partition: i % partitions,
  }))
  const began = performance.now()
  const until = began + seconds * 1_000
  const cpu = process.cpuUsage()
  const brokerBefore = cpuUsOf(broker.pid(1))
  let readings = 0
  const worker = async (): Promise<void> => {
    while (performance.now() < until) {
      await producer.send({ topic: 'single.readings', acks: -1, messages })
      readings += messages.length
    }
  }
  await Promise.all(Array.from({ length: producerSends }, worker))
  const { user, system } = process.cpuUsage(cpu)
  const figures = {
    'readings/s': readings / ((performance.now() - began) / 1_000),
    'our µs': (user + system) / readings,
    'broker µs': (cpuUsOf(broker.pid(1)) - brokerBefore) / readings,
  }
  await producer.disconnect()
  return { figures }
}

/** Everything that is in the log, from its beginning. */
async function replayOnce(log: EventLog): Promise<Measurement> {
  const end = await log.end('readings')
  const next = new Map<number, number>()
  const stop = new AbortController()
  const cpu = process.cpuUsage()
  const began = performance.now()
  let readings = 0
  let bytes = 0
  for await (const chunks of log.tail('readings', new Map(), stop.signal)) {
    for (const chunk of chunks) {
      readings += chunk.count
      bytes += chunk.rows.length
      next.set(chunk.partition, chunk.offset + 1)
    }
    if ([...end].every(([partition, offset]) => (next.get(partition) ?? 0) >= offset) || bytes > 64 * replayBytesMax)
      stop.abort()
  }
  const { user, system } = process.cpuUsage(cpu)
  return {
    figures: {
      'readings/s': readings / ((performance.now() - began) / 1_000),
      'our µs': (user + system) / readings,
    },
  }
}

async function measureProduct(
  broker: TestKafka,
  roles: BenchmarkOptions['roles'],
  rounds: number,
  seconds: number,
  report: Report,
): Promise<number[]> {
  const onKafka = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: broker.brokers.join(',') }
  let started = 0
  const side = (name: string, env: () => Readonly<Record<string, string>>): Side => ({
    name,
    async measure(round) {
      const weir = await startForBenchmark({ roles }, env())
      try {
        const load = await startLoad(loadSetup('pipelined', weir.mqtt, `bench-${round}`))
        const brokerBefore = cpuUsOf(broker.pid(1))
        const run = await runIntoTable(weir, load, { seconds, warmSeconds })
        await load.stop()
        if (run.wrong !== undefined) report.fail(run.wrong)
        return {
          figures: {
            'acked/s': run.report.ackedPerS,
            'table/s': run.tablePerS,
            'ingest µs': run.cpuUsAReading.ingest,
            'serve µs': run.cpuUsAReading.serve,
            'clickhouse µs': run.cpuUsAReading.clickhouse,
            'broker µs': (cpuUsOf(broker.pid(1)) - brokerBefore) / run.report.acknowledged,
          },
          ...(run.wrong === undefined ? {} : { void: run.wrong }),
        }
      } finally {
        await weir.dispose()
      }
    },
  })
  const kafkaSide = side('kafka   ', () => ({ ...onKafka, WEIR_KAFKA_PREFIX: `bench${started++}.` }))
  // The broker compiles what it does often.
  await kafkaSide.measure(-1)
  const found = await interleave(
    kafkaSide,
    side('embedded', () => ({})),
    rounds,
    report,
  )
  for (const name of ['acked/s', 'table/s', 'ingest µs', 'serve µs', 'broker µs'])
    report.figure(
      `on Kafka: ${name}`,
      found.map(({ a }) => a.figures[name]!),
    )
  report.ratio(
    'end to end: Kafka ÷ embedded',
    found.map(({ a, b }) => a.figures['table/s']! / b.figures['table/s']!),
    { min: 0.4 },
  )
  return found.map(({ a }) => a.figures['acked/s']!)
}
