// Kafka's retention waits for nobody. A writer that it has passed stands still and says what is lost; `weir offsets` says so too, sets it to what is left,
// says what that skips, and refuses while somebody reads. Everything that Kafka still holds is in the table then, once. So it is where Kafka has lost all
// of a partition, and what came since has outgrown the writer's place.
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { partitionOf } from '../../domain/event-log.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { createAdmin } from '../../stream/log/kafka-client.ts'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { startKafka, type TestKafka } from '../helpers/kafka.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const prefix = 'passed.'
const device = 'pump-7'
const partition = partitionOf('default', device, 4)

describe('a group that retention passed is reset', () => {
  let kafka: TestKafka
  let ingest: WeirProcess
  let rest: WeirProcess
  let env: Record<string, string>
  beforeAll(async () => {
    kafka = await startKafka()
    env = {
      WEIR_LOG: 'kafka',
      WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
      WEIR_KAFKA_PREFIX: prefix,
      WEIR_KAFKA_SESSION_TIMEOUT: '2s',
    }
    ingest = await startWeir({ env, roles: ['ingest'] })
    rest = await startWeir({ env, roles: ['writer', 'api'] })
  }, 240_000)
  afterAll(() => kafka?.dispose())

  /** One chunk each. */
  const publish = async (...values: number[]): Promise<void> => {
    const client = await RawMqtt.connected(ingest.mqtt, device)
    for (const value of values)
      await client.publish(`devices/${device}/telemetry`, `{"ts": ${1_700_000_000_000 + value}, "v": ${value}}`)
    client.destroy()
  }
  const expectStored = (expected: string): Promise<unknown> =>
    waitFor(
      async () => {
        const url = `${rest.http}/v1/readings?device=${device}&from=0`
        const values = (await ask<{ items: ReadingItem[] }>(url)).items.map(({ value }) => value)
        expect(values.join()).toBe(expected)
        return true
      },
      { withinMs: 60_000, everyMs: 250, what: `the readings ${expected}` },
    )
  const offsets = (...words: string[]) => runWeir(['offsets', ...words], { env })
  const where = `writer, readings, partition ${partition}`

  it('is listed with what is left to read, and left alone while it is read', async () => {
    await publish(0, 1, 2)
    await expectStored('0,1,2')
    const { code, stdout } = await waitFor(
      async () => {
        const found = await offsets('list', '--topic', 'readings')
        return found.stdout.includes(`partition ${partition}: holds 0 to 3, at 3: 0 to read`) && found
      },
      { withinMs: 60_000, everyMs: 250 },
    )
    expect([code, stdout]).toEqual([0, expect.stringMatching(/^writer, readings: one process reads\n/)])
    const words = ['reset', 'writer', '--topic', 'readings', '--partition', String(partition), '--to', '1']
    const refused = await offsets(...words)
    expect([refused.code, refused.stdout]).toEqual([1, ''])
    expect(refused.stderr).toMatch(/^passed\.writer\.readings is being read by one process: nothing was changed\. End /)
    expect((await offsets('reset', 'writer')).stdout).toBe('writer: every position is in its topic: nothing to reset\n')
  }, 120_000)

  it('passed while the writer was away: it stands still and says what is lost', async () => {
    await rest.stop()
    await publish(3, 4, 5, 6, 7)
    await removeBefore(6)
    rest = await startWeir({ env, roles: ['writer', 'api'], data: rest.data, untilListening: ['http'] })
    await waitFor(() => /"level":50.*stands still/.test(rest.stderr()), { withinMs: 60_000, what: 'the alarm' })
    expect(rest.stderr()).toMatch(
      new RegExp(
        `chunk 3 in partition ${partition} of passed\\.readings was removed before it was read: the oldest that is left is 6, 3 are lost`,
      ),
    )
    const { parts } = await waitFor(
      async () => {
        const answer = await fetch(`${rest.http}/readyz`, { signal: AbortSignal.timeout(20_000) })
        const found = (await answer.json()) as { parts: Record<string, { state: string; detail?: string }> }
        return found.parts.writer?.state === 'failed' && found
      },
      { withinMs: 60_000, everyMs: 250, what: '/readyz to say so' },
    )
    expect(parts.writer!.detail).toMatch(/readings wait in the log: chunk 3 .*3 are lost/)
    await expectStored('0,1,2')
    const { code, stdout } = await offsets('list', '--json')
    expect(code).toBe(1)
    const { ok, groups } = JSON.parse(stdout) as {
      ok: boolean
      groups: { group: string; topic: string; partitions: unknown[] }[]
    }
    expect(ok).toBe(false)
    const readings = groups.find(({ group, topic }) => group === 'writer' && topic === 'readings')!
    expect(readings.partitions[partition]).toEqual({
      partition,
      oldest: 6,
      end: 8,
      committed: 3,
      lost: 3,
      isPastEnd: false,
      isOtherLog: false,
    })
  }, 180_000)

  it('says what a reset skips, does it, and the writer goes on by itself', async () => {
    const dry = await offsets('reset', 'writer', '--dry-run')
    expect([dry.code, dry.stdout]).toEqual([
      0,
      `${where}: would go from 3 to 6: skips 3 chunks that Kafka has removed\n`,
    ])
    // Between its looks a writer that stands still is nobody's reader: it need not be stopped.
    const done = await waitFor(
      async () => {
        const found = await offsets('reset', 'writer')
        return found.code === 0 && found
      },
      { withinMs: 60_000, everyMs: 250, what: 'the writer to be between two looks' },
    )
    expect(done.stdout).toBe(`${where}: set from 3 to 6: skips 3 chunks that Kafka has removed\n`)
    await expectStored('0,1,2,6,7')
    await waitFor(() => /the consumer that stood still goes on/.test(rest.stderr()), { withinMs: 90_000 })
    await publish(8)
    await expectStored('0,1,2,6,7,8')
    expect((await offsets('list')).code).toBe(0)
  }, 240_000)

  it('can be set anywhere: back, where rows fold, and on, where it says what it skips', async () => {
    await rest.stop()
    const words = ['reset', 'writer', '--topic', 'readings', '--partition', String(partition)]
    expect((await offsets(...words, '--to', '99')).stderr).toMatch(/holds 6 to 9: it can't be set to 99/)
    expect((await offsets(...words, '--to', 'oldest')).stdout).toBe(
      `${where}: set from 9 to 6: 3 chunks are read again\n`,
    )
    rest = await startWeir({ env, roles: ['writer', 'api'], data: rest.data })
    await publish(9)
    await expectStored('0,1,2,6,7,8,9')
    await rest.stop()
    await publish(10, 11)
    expect((await offsets(...words, '--to', 'newest')).stdout).toBe(
      `${where}: set from 10 to 12: skips 2 chunks that are still there\n`,
    )
    for (const wrong of [['list', 'writer'], ['reset'], ['reset', 'readers'], [...words, '--to', 'there'], ['show']])
      expect((await offsets(...wrong)).code, wrong.join(' ')).toBe(2)
  }, 240_000)

  it('in a partition that Kafka has lost, and that has outgrown it since: nothing of what came is skipped', async () => {
    rest = await startWeir({ env, roles: ['writer', 'api'], data: rest.data })
    await publish(12)
    await expectStored('0,1,2,6,7,8,9,12')
    await rest.stop()
    await kafka.kill(1)
    await rm(join(kafka.dataDirectory(1), `${prefix}readings-${partition}`), { recursive: true })
    await kafka.revive(1)
    const since = Array.from({ length: 15 }, (_, i) => 13 + i)
    await publish(...since)
    rest = await startWeir({ env, roles: ['writer', 'api'], data: rest.data, untilListening: ['http'] })
    await waitFor(
      () => new RegExp(`chunk 12 in partition ${partition} of .* is not the one that was read`).test(rest.stderr()),
      { withinMs: 60_000, what: 'the alarm' },
    )
    const { code, stdout } = await offsets('list', '--topic', 'readings')
    expect(code).toBe(1)
    expect(stdout).toContain(`partition ${partition}: holds 0 to 15, at 13: WRONG: not what was read before it`)
    const done = await waitFor(
      async () => {
        const found = await offsets('reset', 'writer')
        return found.code === 0 && found
      },
      { withinMs: 60_000, everyMs: 250, what: 'the writer to be between two looks' },
    )
    expect(done.stdout).toBe(`${where}: set from 13 to 0: skips nothing\n`)
    await expectStored(['0,1,2,6,7,8,9,12', ...since].join())
    await ingest.stop()
  }, 240_000)

  /** What retention does, without its clock. */
  async function removeBefore(offset: number): Promise<void> {
    const admin = createAdmin({ brokers: kafka.brokers, requestTimeoutMs: 20_000, logger: silentLogger })
    await admin.connect()
    await admin.fetchTopicOffsets(`${prefix}readings`)
    const partitions = [{ partition, offset: String(offset) }]
    await admin.deleteTopicRecords({ topic: `${prefix}readings`, partitions })
    await admin.disconnect()
  }
})
