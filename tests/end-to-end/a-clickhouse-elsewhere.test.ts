// WEIR_CLICKHOUSE=http://…: the table on a server that somebody else runs. No ClickHouse server can be installed where these tests run, so the server
// is the real engine behind Weir's own HTTP interface, in a process of its own that these tests start, kill and hide behind proxies.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { type Certificates, makeCertificates } from '../helpers/certificates.ts'
import { type ClickHouseProcess, startClickHouse } from '../helpers/clickhouse-process.ts'
import { CuttingProxy } from '../helpers/cutting-proxy.ts'
import { RawMqtt, RawPublisher } from '../helpers/mqtt-raw.ts'
import { askStore, queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

interface Ready {
  readonly status: string
  readonly parts: Readonly<Record<string, { state: string; detail?: string }>>
}

const firstAt = 1_700_000_000_000

/** One request at a time on a connection, and its head comes in one piece. */
const isInsert = (sent: Buffer): boolean | undefined => {
  const head = sent.subarray(0, 2_000).toString('latin1')
  return head.startsWith('POST /') ? head.includes('query=INSERT+INTO+readings') : undefined
}

describe(`a ClickHouse elsewhere (the engine behind our own HTTP interface), ${isOnKafka ? 'Kafka' : 'the embedded log'} before it`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-elsewhere-'))
  let server: ClickHouseProcess
  let port = 0
  let test = 0
  let certificates: Certificates
  beforeAll(async () => {
    certificates = makeCertificates(directory)
    server = await startClickHouse()
    port = Number(new URL(server.url()).port)
  }, 60_000)
  beforeEach(() => {
    test++
  })
  afterAll(async () => {
    await server?.dispose()
    rmSync(directory, { recursive: true, force: true })
  })

  const secret = (): { username: string; password: string } =>
    JSON.parse(readFileSync(join(server.data, 'clickhouse/endpoint.json'), 'utf8'))
  const setSecret = (password: string): void => {
    const file = join(server.data, 'clickhouse/endpoint.json')
    writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), password }))
  }
  /** Each test has a database of its own. */
  const environment = (more: Record<string, string> = {}): Record<string, string> => ({
    WEIR_CLICKHOUSE: `http://127.0.0.1:${port}`,
    WEIR_CLICKHOUSE_USER: secret().username,
    WEIR_CLICKHOUSE_PASSWORD: secret().password,
    WEIR_CLICKHOUSE_DATABASE: `weir_${test}`,
    ...more,
  })
  const publish = async (weir: WeirProcess, value: number): Promise<void> => {
    const device = await RawMqtt.connected(weir.mqtt, 'd')
    await device.publish('devices/d/telemetry', `{"ts": ${firstAt + value}, "v": ${value}}`)
    device.destroy()
  }
  const values = async (weir: WeirProcess): Promise<string> => {
    const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/readings?device=d&from=0`)
    return items.map(({ value }) => value).join()
  }
  const expectStored = (weir: WeirProcess, expected: string): Promise<true> =>
    waitFor(async () => (await values(weir)) === expected, { withinMs: 30_000, everyMs: 200, what: expected })
  const readiness = async (weir: WeirProcess): Promise<{ status: number; body: Ready }> => {
    const response = await fetch(`${weir.http}/readyz`, { signal: AbortSignal.timeout(10_000) })
    return { status: response.status, body: (await response.json()) as Ready }
  }
  const expectSays = (weir: WeirProcess, words: RegExp): Promise<true> =>
    waitFor(
      async () => {
        const { status, body } = await readiness(weir)
        expect(body.parts.clickhouse?.detail).toMatch(words)
        return status === 503 && body.parts.clickhouse?.state === 'failed'
      },
      { withinMs: 30_000, everyMs: 200, what: `/readyz to say ${words}` },
    )
  const expectReady = (weir: WeirProcess): Promise<true> =>
    waitFor(async () => (await readiness(weir)).status === 200, { withinMs: 30_000, everyMs: 200, what: '/readyz' })
  const logLines = (weir: WeirProcess, words: RegExp): number =>
    weir
      .stderr()
      .split('\n')
      .filter((line) => words.test(line)).length
  const verified = async (weir: WeirProcess, env: Record<string, string>): Promise<void> => {
    const { code, stdout, stderr } = await runWeir(['verify', '--data', weir.data], { env, withinMs: 120_000 })
    expect(code, `${stdout}${stderr}`).toBe(0)
  }
  /** Columns of a thousand readings a message, all acknowledged; gives back how many readings. */
  const publishMany = async (weir: WeirProcess, messages: number): Promise<number> => {
    let acknowledged = 0
    const each = 1_000
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'many',
      window: 20,
      resend: true,
      message: (index) => {
        const at = Array.from({ length: each }, (_, i) => firstAt + index * each + i)
        return {
          topic: 'devices/many/telemetry',
          payload: JSON.stringify({ ts: at, values: { v: at.map((ms) => ms % 1_000) } }),
        }
      },
      onAcknowledged: () => {
        if (++acknowledged >= messages) publisher.pause()
      },
    })
    publisher.resume()
    await waitFor(() => acknowledged >= messages, { withinMs: 90_000, what: () => `${messages}, not ${acknowledged}` })
    await publisher.settled()
    publisher.stop()
    expect(publisher.broken).toBeUndefined()
    return publisher.sent * each
  }
  const expectRows = (count: number): Promise<true> =>
    waitFor(
      async () => {
        expect((await rows(`weir_${test}`)).distinct).toBe(count)
        return true
      },
      { withinMs: 120_000, everyMs: 500, what: `${count} readings in the table` },
    )
  const rows = async (database: string): Promise<{ distinct: number; raw: number }> => {
    const [found] = await queryStore<{ distinct: number; raw: number }>(
      server.data,
      `SELECT (SELECT count() FROM ${database}.readings FINAL) AS distinct, (SELECT count() FROM ${database}.readings) AS raw`,
    )
    return found!
  }

  it('is found late, said to be away meanwhile, and readings go the whole way; no store is started here', async () => {
    await server.kill()
    const weir = await startWeir({ env: environment(), untilListening: ['http'] })
    await publish(weir, 1)
    await expectSays(weir, /ClickHouse at http:\/\/127\.0\.0\.1:\d+: .*ECONNREFUSED/)
    expect(weir.stdout()).not.toMatch(/^ready$/m)
    await server.start()
    await waitFor(() => /^ready$/m.test(weir.stdout()), { withinMs: 30_000, what: '"ready"' })
    await expectStored(weir, '1')
    await expectReady(weir)
    await publish(weir, 2)
    await expectStored(weir, '1,2')
    expect(Object.keys(weir.pids()).sort()).toEqual(['ingest', 'serve'])
    expect(logLines(weir, /ClickHouse at .*: readings wait in the log/)).toBe(1)
    expect(logLines(weir, /the store answers/)).toBe(1)
    await verified(weir, environment())
    await weir.stop()
    await verified(weir, environment())
    await askStore(server.data, `ALTER TABLE weir_${test}.readings DELETE WHERE value = 2 SETTINGS mutations_sync = 1`)
    const found = await runWeir(['verify', '--data', weir.data], { env: environment(), withinMs: 60_000 })
    expect([found.code, found.stdout]).toEqual([1, expect.stringMatching(/missing: 1\b/)])
    expect(weir.stderr()).not.toContain(secret().password)
  }, 180_000)

  it('away for longer than the buffers last, it costs nothing but time: devices go on, memory stays, all is stored', async () => {
    const weir = await startWeir({ env: environment() })
    await publish(weir, 1)
    await expectStored(weir, '1')
    await server.kill()
    const servePid = weir.pids().serve!
    // The writer reads ahead by a million rows or 64 MiB at most: this is twice as much.
    const published = await publishMany(weir, 2_000)
    await expectSays(weir, /ECONNREFUSED/)
    const peaksMiB = [peakMemoryMiB(servePid), peakMemoryMiB(weir.pid)]
    await server.start()
    await expectRows(published + 1)
    await expectReady(weir)
    expect(weir.pids().serve).toBe(servePid)
    expect(peaksMiB.every((mebibytes) => mebibytes < 500)).toBe(true)
    await verified(weir, environment())
    expect(logLines(weir, /ClickHouse at .*: readings wait in the log/)).toBe(1)
    await weir.stop()
  }, 300_000)

  it('answers that are lost after the insert was done leave each reading once', async () => {
    const proxy = await CuttingProxy.open({ target: () => ({ host: '127.0.0.1', port }) })
    const env = environment({ WEIR_CLICKHOUSE: `http://127.0.0.1:${proxy.port}` })
    const weir = await startWeir({ env })
    const servePid = weir.pids().serve
    proxy.cutAnswers(5, isInsert)
    const published = await publishMany(weir, 200)
    await expectRows(published)
    await waitFor(() => proxy.answersLeft === 0, { withinMs: 60_000, what: 'all cuts' })
    await expectReady(weir)
    expect(proxy.cuts).toBe(5)
    expect(logLines(weir, /"level":40.*a batch waits; the log keeps what comes after it/)).toBeGreaterThan(0)
    expect(logLines(weir, /the batch that waited was handled/)).toBeGreaterThan(0)
    // What was inserted again was in the table before; nothing crashed for it.
    await expectRows(published)
    expect(weir.pids().serve).toBe(servePid)
    await verified(weir, env)
    await weir.stop()
    await proxy.close()
  }, 240_000)

  it('behind TLS with an authority of its own: trusted when it is named, refused in one sentence when it is not', async () => {
    const { authorityFile, key, cert } = certificates
    const proxy = await CuttingProxy.open({ target: () => ({ host: '127.0.0.1', port }), tls: { key, cert } })
    const env = environment({ WEIR_CLICKHOUSE: `https://127.0.0.1:${proxy.port}`, WEIR_CLICKHOUSE_COMPRESSION: 'gzip' })
    const distrustful = await startWeir({ env, untilListening: ['http'] })
    await publish(distrustful, 1)
    await expectSays(distrustful, /certificate .* is not trusted .* set WEIR_CLICKHOUSE_CA/)
    expect(logLines(distrustful, /WEIR_CLICKHOUSE_CA/)).toBe(1)
    await distrustful.stop()
    const weir = await startWeir({ data: distrustful.data, env: { ...env, WEIR_CLICKHOUSE_CA: authorityFile } })
    await expectStored(weir, '1')
    await publish(weir, 2)
    await expectStored(weir, '1,2')
    await expectRows((await publishMany(weir, 20)) + 2)
    await verified(weir, { ...env, WEIR_CLICKHOUSE_CA: authorityFile })
    await weir.stop()
    await proxy.close()
  }, 180_000)

  it('a password that it does not know is one sentence, and devices go on until somebody has put it right', async () => {
    const password = 'what-we-say'
    const weir = await startWeir({ env: environment({ WEIR_CLICKHOUSE_PASSWORD: password }), untilListening: ['http'] })
    await publish(weir, 1)
    await expectSays(weir, /does not let in the user weir .* set WEIR_CLICKHOUSE_USER and WEIR_CLICKHOUSE_PASSWORD/)
    expect(logLines(weir, /does not let in/)).toBe(1)
    expect(JSON.stringify((await readiness(weir)).body) + weir.stderr() + weir.stdout()).not.toContain(password)
    await server.kill('SIGTERM')
    setSecret(password)
    await server.start()
    await expectStored(weir, '1')
    await expectReady(weir)
    await weir.stop()
  }, 120_000)
})

function peakMemoryMiB(pid: number): number {
  const kibibytes = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kibibytes) / 1024
}
