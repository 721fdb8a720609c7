// `weir move` through the front door: a machine that was killed with readings that are not in its table yet, moved to a real Kafka and another
// ClickHouse (the embedded engine standing alone). Killed half-way, run again, run once more: every acknowledged reading is there once, and so is all
// that was found, could not be used and was put back.
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { AnomaliesAnswer, DeadLettersAnswer } from '../../api/wire.ts'
import type { MoveReport } from '../../cli/move-report.ts'
import { anomalyId, encodeAnomaly } from '../../domain/anomaly.ts'
import { deadLetterId, encodeDeadLetter } from '../../domain/dead-letter.ts'
import { type EventLog, partitionOf } from '../../domain/event-log.ts'
import type { Micros } from '../../domain/reading.ts'
import { encodeRowPrefix, RowWriter } from '../../domain/row-format.ts'
import { systemClock } from '../../runtime/clock.ts'
import { createLogger } from '../../runtime/logger.ts'
import { readSnapshotPlace } from '../../stream/detectors/snapshot.ts'
import { openEmbeddedLog } from '../../stream/log/embedded-log.ts'
import { openKafkaLog } from '../../stream/log/kafka-log.ts'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { type ClickHouseProcess, startClickHouse } from '../helpers/clickhouse-process.ts'
import { kafkaMissing, startKafka, type TestKafka } from '../helpers/kafka.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { projectDirectory } from '../helpers/spawn-weir.ts'
import { queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

const missing = kafkaMissing()
const devices = ['a', 'b', 'c', 'd', 'e', 'f']
const partitions = 4
const bulkChunks = 4_000
const bulkRows = 200
const firstAt = 1_700_000_000_000

const notHere = missing ? ` (skipped: ${missing})` : isOnKafka ? ' (not on Kafka: it begins on the embedded log)' : ''

interface Sum {
  readonly rows: number
  readonly checksum: bigint
}

describe.skipIf(missing || isOnKafka)(`a machine moves to Kafka${notHere}`, () => {
  const data = mkdtempSync(join(tmpdir(), 'weir-test-move-'))
  let kafka: TestKafka
  let elsewhere: ClickHouseProcess
  let env: Record<string, string>
  let published = 0

  beforeAll(async () => {
    kafka = await startKafka()
    elsewhere = await startClickHouse()
    const { username, password } = JSON.parse(readFileSync(join(elsewhere.data, 'clickhouse/endpoint.json'), 'utf8'))
    env = {
      WEIR_KAFKA_BROKERS: kafka.brokers.join(','),
      WEIR_CLICKHOUSE: elsewhere.url(),
      WEIR_CLICKHOUSE_USER: username,
      WEIR_CLICKHOUSE_PASSWORD: password,
    }
  }, 120_000)
  afterAll(async () => {
    await elsewhere?.dispose()
    await kafka?.dispose()
    rmSync(data, { recursive: true, force: true })
  }, 60_000)

  const publishRound = async (weir: WeirProcess): Promise<void> => {
    published++
    for (const device of devices) {
      const socket = await RawMqtt.connected(weir.mqtt, device)
      const ts = firstAt + published * 1_000
      await socket.publish(`devices/${device}/telemetry`, `{"ts": ${ts}, "v": ${published}}`)
      socket.destroy()
    }
  }
  const valuesOf = async (weir: WeirProcess, device: string): Promise<number[]> => {
    const { items } = await ask<{ items: ReadingItem[] }>(
      `${weir.http}/v1/readings?device=${device}&metric=v&from=0&limit=1000`,
    )
    return items.map(({ value }) => Number(value))
  }
  const lettersOf = async (weir: WeirProcess): Promise<DeadLettersAnswer['items']> =>
    (await ask<DeadLettersAnswer>(`${weir.http}/v1/dead-letters?device=a`)).items
  /** By their scores. */
  const anomaliesOf = async (weir: WeirProcess): Promise<number[]> =>
    (await ask<AnomaliesAnswer>(`${weir.http}/v1/anomalies?device=a&from=0`)).items
      .map(({ score }) => score * 10)
      .sort((a, b) => a - b)
  const expected = (): number[] => Array.from({ length: published }, (_, i) => i + 1)
  /** Of each table that the report tells of, by the store itself. */
  const sumsOf = async (directory: string, { tables }: MoveReport): Promise<Record<string, Sum>> => {
    const sums: Record<string, Sum> = {}
    for (const { table } of tables) {
      const sql = `SELECT count() AS rows, toString(sum(cityHash64(*))) AS checksum FROM weir.${table} FINAL`
      const [sum] = await queryStore<{ rows: number; checksum: string }>(directory, sql)
      sums[table] = { rows: sum!.rows, checksum: BigInt(sum!.checksum) }
    }
    return sums
  }
  const said = ({ tables }: MoveReport): Record<string, Sum> =>
    Object.fromEntries(tables.map(({ table, rows, checksum }) => [table, { rows, checksum: BigInt(`0x${checksum}`) }]))
  let wouldMove: MoveReport
  const run = async (
    words: readonly string[],
    more = {},
  ): Promise<{ code: number | null; report: MoveReport; stderr: string }> => {
    const { code, stdout, stderr } = await runWeir(
      ['move', '--from', 'embedded', '--to', 'kafka', '--data', data, '--json', ...words],
      { env, withinMs: 180_000, ...more },
    )
    return { code, stderr, report: stdout === '' ? (undefined as never) : JSON.parse(stdout) }
  }

  it('is refused while Weir runs on the directory, which may be counted meanwhile', async () => {
    const weir = await startWeir({ data })
    for (let round = 0; round < 5; round++) await publishRound(weir)
    const socket = await RawMqtt.connected(weir.mqtt, 'a')
    await socket.publish('devices/a/telemetry', '{"broken": ')
    socket.destroy()
    await waitFor(async () => (await valuesOf(weir, 'f')).length === 5, { what: 'what was published' })
    const letter = await waitFor(async () => (await lettersOf(weir))[0], { what: 'the dead letter' })
    const url = `${weir.http}/v1/dead-letters/${encodeURIComponent(letter.id)}/replay`
    const mended = await fetch(url, { method: 'POST', body: `{"ts": ${firstAt}, "mended": 1}` })
    expect(mended.status, await mended.text()).toBeLessThan(300)
    expect((await lettersOf(weir))[0]!.putBack).toMatchObject({ accepted: 1, deadLettered: 0 })
    expect((await runWeir(['device', 'add', 'boiler-1', '--data', data])).code).toBe(0)
    const refused = await run([])
    expect(refused.code).toBe(1)
    expect(refused.stderr).toMatch(/Weir runs on .* \(process \d+\): stop it first/)
    const counted = await run(['--dry-run'])
    expect(counted.code, counted.stderr).toBe(0)
    expect(counted.report.topics[0]?.from.readings).toBe(5 * devices.length + 1)
    expect(counted.report.tables.find(({ table }) => table === 'dead_letters_put_back')?.rows).toBe(1)
    // What detection has learned is on disk after a stop; what comes then is acknowledged, and perhaps not in the table.
    await weir.stop()
    await withLog(data, (log) => appendAnomaly(log, 1))
    const again = await startWeir({ data })
    await waitFor(async () => (await anomaliesOf(again)).length === 1, { what: 'the anomaly in the table' })
    await publishRound(again)
    await again.kill('all')
  }, 180_000)

  it('says what it would move, and changes nothing', async () => {
    await fillLog(data)
    await withLog(data, async (log) => {
      await appendAnomaly(log, 2)
      await appendLetter(log)
    })
    const { code, report, stderr } = await run(['--dry-run'])
    expect(code, stderr).toBe(0)
    expect(report.state).toBe('would-move')
    const [readings, anomalies, letters] = report.topics
    expect(readings?.from.readings).toBe(6 * devices.length + 1 + bulkChunks * bulkRows)
    expect(anomalies?.from.readings).toBe(2)
    expect(letters?.from.readings).toBe(2)
    const rows = Object.fromEntries(report.tables.map(({ table, rows: found }) => [table, found]))
    expect(rows).toMatchObject({ anomalies: 1, dead_letters: 1, dead_letters_put_back: 1 })
    expect(rows.readings).toBeGreaterThanOrEqual(5 * devices.length + 1)
    expect(report.devices).toEqual({ file: join(data, 'devices.ndjson'), registered: 1 })
    wouldMove = report
    const topics = await runWeir(['topics', '--check', '--json'], { env: { ...env, WEIR_LOG: 'kafka' } })
    expect(JSON.parse(topics.stdout).topics.map(({ partitions: there }: { partitions: number }) => there)).toEqual([
      0, 0, 0,
    ])
  }, 180_000)

  it('killed half-way, goes on when it is run again, and both sides agree', async () => {
    const target = await openTarget(kafka)
    const halfWay = waitFor(
      async () => [...(await target.end('readings')).values()].reduce((sum, offset) => sum + offset, 0) > 200,
      { withinMs: 120_000, everyMs: 2, what: 'the first chunks in Kafka' },
    )
    expect(await killedWhen(halfWay, ['move', '--from', 'embedded', '--to', 'kafka', '--data', data], env)).toBe(
      'SIGKILL',
    )
    await target.close()
    expect(JSON.parse(readFileSync(join(data, 'log/move.json'), 'utf8')).state).toBe('begun')

    const { code, report, stderr } = await run([])
    expect(code, stderr).toBe(0)
    expect(report.state).toBe('moved')
    for (const { from, to } of report.topics) expect(to).toEqual(from)
    const [readings] = report.topics
    expect(readings!.copied).toBeLessThan(readings!.from.chunks)
    expect(report.groups).toContainEqual(expect.objectContaining({ group: 'writer', topic: 'readings' }))
    // Nothing had left this log: places are what they were.
    for (const { from, to } of report.groups) expect(to).toEqual(from)
    expect(report.detector).toBe('moved')
    expect(readSnapshotPlace(join(data, 'detector/snapshot'))?.log).toBe(report.to)
    // Tables by what the stores themselves say, there and here.
    expect(said(report)).toEqual(said(wouldMove))
    expect(await sumsOf(elsewhere.data, report)).toEqual(said(report))
    const own = await startClickHouse({ data })
    expect(await sumsOf(data, report)).toEqual(said(report))
    await own.dispose()

    const again = await run([])
    expect(again.report).toEqual({ ...report, state: 'moved-before' })
  }, 300_000)

  it('is not begun again by others, here or there', async () => {
    const here = await runWeir(['start', '--data', data], { env: { WEIR_MQTT_PORT: '0', WEIR_HTTP_PORT: '0' } })
    expect(here.code).toBe(1)
    expect(here.stderr).toMatch(/was moved to Kafka .* set WEIR_LOG=kafka/)
    const other = mkdtempSync(join(tmpdir(), 'weir-test-move-'))
    await fillLog(other, 3)
    const there = await runWeir(['move', '--from', 'embedded', '--to', 'kafka', '--data', other], { env })
    expect(there.code).toBe(1)
    expect(there.stderr).toMatch(/readings in Kafka holds \d+ messages already/)
    rmSync(other, { recursive: true, force: true })
  }, 120_000)

  it('every acknowledged reading is there once, and new ones go on', async () => {
    const weir = await startWeir({ data, env: { ...env, WEIR_LOG: 'kafka' } })
    await publishRound(weir)
    for (const device of devices)
      await waitFor(async () => (await valuesOf(weir, device)).join() === expected().join(), {
        withinMs: 60_000,
        what: `the readings of ${device}`,
      })
    const all = published * devices.length + 1 + bulkChunks * bulkRows
    const count = async (): Promise<unknown> =>
      (await queryStore(elsewhere.data, 'SELECT count() AS rows FROM weir.readings FINAL'))[0]
    await waitFor(async () => JSON.stringify(await count()) === JSON.stringify({ rows: all }), {
      withinMs: 120_000,
      everyMs: 200,
      what: `${all} rows`,
    })
    // What was in the table, and what only the log had.
    await waitFor(async () => (await lettersOf(weir)).length === 2, { what: 'both dead letters' })
    expect((await lettersOf(weir)).map(({ putBack }) => putBack?.accepted)).toEqual([undefined, 1])
    await waitFor(async () => (await anomaliesOf(weir)).join() === '1,2', { what: 'both anomalies' })
    const known = await runWeir(['device', 'list', '--data', data, '--json'])
    expect(known.stdout).toContain('boiler-1')
    await weir.stop()
    const verified = await runWeir(['verify', '--data', data], {
      env: { ...env, WEIR_LOG: 'kafka' },
      withinMs: 120_000,
    })
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
  }, 300_000)

  it('topics of another number of partitions are refused with a sentence', async () => {
    const prefix = { WEIR_KAFKA_PREFIX: 'other.' }
    const made = await runWeir(['topics'], { env: { ...env, ...prefix, WEIR_LOG: 'kafka', WEIR_PARTITIONS: '3' } })
    expect(made.code).toBe(0)
    const other = mkdtempSync(join(tmpdir(), 'weir-test-move-'))
    await fillLog(other, 3)
    const refused = await runWeir(['move', '--from', 'embedded', '--to', 'kafka', '--data', other], {
      env: { ...env, ...prefix },
    })
    expect(refused.code).toBe(1)
    expect(refused.stderr).toContain('has 3 partitions and WEIR_PARTITIONS is 4')
    rmSync(other, { recursive: true, force: true })
  }, 120_000)

  it('is used one way only', async () => {
    const { code, stderr } = await runWeir(['move', '--from', 'kafka', '--to', 'embedded', '--data', data], { env })
    expect(code).toBe(2)
    expect(stderr).toContain('weir move --from embedded --to kafka')
  })
})

/** A command that is ended by kill -9 when something has happened; how it ended. */
async function killedWhen(
  happened: Promise<unknown>,
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<NodeJS.Signals | number | null> {
  const main = process.env.WEIR_TEST_MAIN ?? join(projectDirectory, 'dist/main.js')
  const child = spawn(process.execPath, [main, ...words], { env: { PATH: process.env.PATH, ...env }, stdio: 'ignore' })
  const ended = new Promise<NodeJS.Signals | number | null>((done) =>
    child.once('exit', (code, signal) => done(signal ?? code)),
  )
  void happened.finally(() => child.kill('SIGKILL')).catch(() => {})
  return ended
}

/** Of the machine that is moved, stopped. */
async function withLog(data: string, use: (log: EventLog) => Promise<void>): Promise<void> {
  const log = await openEmbeddedLog({
    ...{ directory: join(data, 'log'), mode: 'append', partitions, quotaBytes: 2 ** 34, retentionMs: 86_400_000 },
    ...{ groups: ['writer'], logger: createLogger('silent', 'test'), clock: systemClock },
  })
  await use(log)
  await log.close()
}

/** What a machine has that took readings in while its store was away. */
function fillLog(data: string, chunks = bulkChunks): Promise<void> {
  return withLog(data, async (log) => {
    const writer = new RowWriter()
    const appended: Promise<unknown>[] = []
    for (let chunk = 0; chunk < chunks; chunk++) {
      const device = `bulk-${chunk % 16}`
      const partition = partitionOf('default', device, partitions)
      const prefix = encodeRowPrefix('default', device, 'v')
      const receivedAt = systemClock.nowMicros() + chunk * bulkRows
      for (let row = 0; row < bulkRows; row++) {
        const observedAt = 1_600_000_000_000_000 + (chunk * bulkRows + row) * 1_000
        writer.number(prefix, observedAt, Math.sin(row), receivedAt + row)
      }
      appended.push(log.append('readings', partition, Buffer.from(writer.rows()), bulkRows, writer.receivedAt))
      writer.reset()
      if (appended.length % 50 === 0) await Promise.all(appended)
    }
    await Promise.all(appended)
  })
}

async function appendAnomaly(log: EventLog, score: number): Promise<void> {
  const receivedAt = systemClock.nowMicros()
  const series = { tenant: 'default', device: 'a', metric: 'v', observedAt: ((firstAt + score) * 1_000) as Micros }
  const row = encodeAnomaly({
    ...{ ...series, receivedAt, id: anomalyId(series, 'test/1'), detector: 'test/1', score: score / 10, value: score },
    ...{ expectedLow: 0, expectedHigh: 1, explanation: 'Found by hand.', evidence: '{}' },
  })
  await log.append('anomalies', partitionOf('default', 'a', partitions), row, 1, receivedAt)
}

async function appendLetter(log: EventLog): Promise<void> {
  const receivedAt = systemClock.nowMicros()
  const row = encodeDeadLetter({
    ...{
      tenant: 'default',
      device: 'a',
      id: deadLetterId(receivedAt, 1),
      reason: 'malformed-payload',
      detail: 'No JSON.',
    },
    ...{ metric: '', codec: 'json', origin: 'test', receivedAt, payload: Buffer.from('{') },
  })
  await log.append('dead-letters', partitionOf('default', 'a', partitions), row, 1, receivedAt)
}

function openTarget(kafka: TestKafka): ReturnType<typeof openKafkaLog> {
  const logger = createLogger('silent', 'test')
  return openKafkaLog({
    endpoint: { brokers: kafka.brokers, tls: undefined, sasl: undefined, requestTimeoutMs: 5_000, logger },
    ...{ prefix: 'weir.', mode: 'read', partitions, retentionMs: 86_400_000, compression: 'none' },
    ...{ sessionTimeoutMs: 6_000, logger },
  })
}
