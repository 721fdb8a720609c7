// `weir topics` against a real broker: what it makes, what it says about topics that somebody else made, and that it changes nothing.
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { silentLogger } from '../../runtime/logger.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../../tests/helpers/kafka.ts'
import { runWeir } from '../../tests/helpers/spawn-weir.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { createAdmin } from './kafka-client.ts'
import { openKafkaLog } from './kafka-log.ts'
import type { TopicReport } from './kafka-topics.ts'

describe.skipIf(kafkaMissing())('topics in Kafka', () => {
  let kafka: TestKafka
  beforeAll(async () => {
    kafka = await startKafka()
  }, 180_000)
  afterAll(() => kafka?.dispose())

  const topics = async (prefix: string, ...words: string[]): Promise<{ code: number | null; found: TopicReport[] }> => {
    const env = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: kafka.brokers.join(','), WEIR_KAFKA_PREFIX: prefix }
    const { code, stdout } = await runWeir(['topics', '--json', ...words], { env })
    return { code, found: (JSON.parse(stdout) as { topics: TopicReport[] }).topics }
  }
  const problemsOf = (found: readonly TopicReport[]): string[] => found.flatMap(({ problems }) => problems)

  it('are made once, with as many partitions as the log has, and are found good enough then', async () => {
    const before = await topics('made.', '--check')
    expect(before.code).toBe(1)
    expect(problemsOf(before.found)).toEqual(['is not there', 'is not there', 'is not there'])
    const made = await topics('made.')
    expect(made.code).toBe(0)
    expect(made.found.map(({ name, created, partitions }) => [name, created, partitions]).sort()).toEqual([
      ['made.anomalies', true, 4],
      ['made.dead-letters', true, 4],
      ['made.readings', true, 4],
    ])
    const after = await topics('made.')
    expect(after.code).toBe(0)
    expect(after.found.some(({ created }) => created)).toBe(false)
    expect(after.found[0]!.warnings).toEqual([expect.stringMatching(/one copy/)])
  })

  it('that cannot work are named, each with what to set, and a start refuses them', async () => {
    const admin = createAdmin({ brokers: kafka.brokers, requestTimeoutMs: 10_000, logger: silentLogger })
    await admin.connect()
    await admin.createTopics({
      waitForLeaders: true,
      topics: [
        {
          topic: 'wrong.readings',
          numPartitions: 2,
          configEntries: [
            { name: 'cleanup.policy', value: 'compact' },
            { name: 'compression.type', value: 'lz4' },
            { name: 'min.insync.replicas', value: '2' },
          ],
        },
      ],
    })
    await admin.disconnect()
    const { code, found } = await topics('wrong.')
    expect(code).toBe(1)
    expect(problemsOf(found)).toEqual([
      expect.stringMatching(/2 partitions and WEIR_PARTITIONS is 4.*WEIR_PARTITIONS=2/),
      expect.stringMatching(/compacted.*cleanup.policy=delete/),
      expect.stringMatching(/stored as lz4.*compression.type=producer/),
      expect.stringMatching(/asks for 2 copies in sync and has 1/),
    ])
    const opening = openKafkaLog({
      endpoint: { brokers: kafka.brokers, requestTimeoutMs: 10_000, logger: silentLogger },
      prefix: 'wrong.',
      mode: 'append',
      partitions: 4,
      retentionMs: 3_600_000,
      compression: 'none',
      sessionTimeoutMs: 6_000,
      logger: silentLogger,
    })
    await expect(opening).rejects.toThrow(/The Kafka topic wrong\.readings has 2 partitions/)
  })

  it('that would not keep readings for as long as was asked are named, also when WEIR_RETENTION_LOG was changed since', async () => {
    const env = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: kafka.brokers.join(','), WEIR_KAFKA_PREFIX: 'kept.' }
    const warnings = async (retention: string): Promise<string[]> => {
      const { code, stdout } = await runWeir(['topics', '--json'], { env: { ...env, WEIR_RETENTION_LOG: retention } })
      expect(code).toBe(0)
      const { topics: found } = JSON.parse(stdout) as { topics: TopicReport[] }
      return found.find(({ name }) => name === 'kept.readings')!.warnings.filter((each) => !/one copy/.test(each))
    }
    expect(await warnings('24h')).toEqual([])
    expect(await warnings('72h')).toEqual([
      expect.stringMatching(/for 86400000 ms, which is less than WEIR_RETENTION_LOG.*set retention\.ms=259200000$/),
    ])
    expect(await warnings('12h')).toEqual([
      expect.stringMatching(/more than WEIR_RETENTION_LOG.*retention\.ms=43200000/),
    ])
    const admin = createAdmin({ brokers: kafka.brokers, requestTimeoutMs: 10_000, logger: silentLogger })
    await admin.connect()
    const configEntries = [
      { name: 'retention.ms', value: '-1' },
      { name: 'retention.bytes', value: '1000000' },
      { name: 'message.timestamp.type', value: 'CreateTime' },
    ]
    await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: 'kept.readings', configEntries }] })
    await admin.disconnect()
    expect(
      await waitFor(async () => (await warnings('24h')).length > 1 && warnings('24h'), { withinMs: 60_000 }),
    ).toEqual(
      expect.arrayContaining([
        expect.stringMatching(/for ever, which is more than WEIR_RETENTION_LOG/),
        expect.stringMatching(/beyond 1000000 bytes a partition.*set retention\.bytes=-1/),
        expect.stringMatching(/set message\.timestamp\.type=LogAppendTime/),
      ]),
    )
  }, 120_000)

  it('a cluster that is away is one sentence, and exit code 1', async () => {
    const env = { WEIR_LOG: 'kafka', WEIR_KAFKA_BROKERS: '127.0.0.1:1' }
    const { code, stderr } = await runWeir(['topics'], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(/Kafka at 127\.0\.0\.1:1 can't be asked: .+\n$/)
  })

  it('an embedded log has none', async () => {
    const { code, stderr } = await runWeir(['topics'])
    expect(code).toBe(1)
    expect(stderr).toMatch(/WEIR_LOG=kafka/)
  })
})
