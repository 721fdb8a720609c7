// The log's contract against a real Kafka broker, and what only this adapter has.
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { silentLogger } from '../../runtime/logger.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../../tests/helpers/kafka.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { eventLogContract, type LogSize } from './event-log.contract.ts'
import { createAdmin, type KafkaEndpoint } from './kafka-client.ts'
import { type KafkaLogOptions, openKafkaLog } from './kafka-log.ts'

const mebibyte = 1024 * 1024

describe.skipIf(kafkaMissing())('on Apache Kafka', () => {
  let kafka: TestKafka
  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)
  afterAll(() => kafka?.dispose())

  const endpoint = (): KafkaEndpoint => ({ brokers: kafka.brokers, requestTimeoutMs: 10_000, logger: silentLogger })
  const options = (prefix: string, size: LogSize, mode: 'append' | 'read'): KafkaLogOptions => ({
    endpoint: endpoint(),
    prefix,
    mode,
    partitions: 4,
    retentionMs: 3_600_000,
    compression: 'none',
    sessionTimeoutMs: 6_000,
    // A slow machine is no cluster that is away.
    patienceMs: 60_000,
    logger: silentLogger,
    // The least that a broker takes for a segment, and fetched in steps that are well below it.
    ...(size === 'small' && {
      topicSettings: { 'segment.bytes': String(mebibyte), 'retention.bytes': '1' },
      queueBytes: 64 * 1024,
      fetchBytes: 64 * 1024,
    }),
  })

  it.each(['none', 'gzip'] as const)(
    'Kafka’s own tool finds each chunk whole, %s',
    async (compression) => {
      const prefix = `foreign-${compression}.`
      const log = await openKafkaLog({ ...options(prefix, 'usual', 'append'), compression })
      const rows = ['first', 'second', 'third'].map((each) => `${each} `.repeat(200))
      await Promise.all(rows.map((each, i) => log.append('readings', 2, Buffer.from(each), 200 + i, 1_000 + i)))
      await log.close()
      const file = join(kafka.dataDirectory(1), `${prefix}readings-2`, '00000000000000000000.log')
      const dump = ['kafka.tools.DumpLogSegments', '--deep-iteration', '--print-data-log', '--files', file]
      const printed = kafka.runTool(dump)
      expect(printed).toContain(`compresscodec: ${compression}`)
      expect(printed).not.toContain('isvalid: false')
      const headers = 'headerKeys: [weir-format,weir-count,weir-received-at,weir-received-at-max]'
      for (const [i, each] of rows.entries()) expect(printed).toContain(`sequence: ${i} ${headers} payload: ${each}`)
      expect(printed).toContain('count: 3 baseSequence: 0')
    },
    60_000,
  )

  eventLogContract({
    name: 'kafka',
    open: async (size) => {
      const place = `test-${randomBytes(4).toString('hex')}.`
      return { place, log: await openKafkaLog(options(place, size, 'append')) }
    },
    reopen: (place, mode, size) => openKafkaLog(options(place, size, mode)),
    retentionPassed: async (place) => {
      const admin = createAdmin(endpoint())
      await admin.connect()
      const low = async (): Promise<number> =>
        Number((await admin.fetchTopicOffsets(`${place}readings`)).find(({ partition }) => partition === 2)?.low)
      await waitFor(async () => (await low()) > 0, { withinMs: 60_000, everyMs: 100, what: 'retention' })
      await admin.disconnect()
    },
    skip: [
      {
        test: 'append pushes back when the log is full, says so, and goes on by itself when there is room',
        reason: 'a broker has no quota that refuses appends: its operator watches its disk',
      },
      {
        test: 'retention never passes a group that is still to read',
        reason: 'a broker removes by age and size, whoever has read: a group that was passed stops with an alarm',
      },
      {
        test: 'retention never passes what a group is still to read of one topic, however far it is in another',
        reason: 'a broker removes by age and size, whoever has read: a group that was passed stops with an alarm',
      },
    ],
  })
})
