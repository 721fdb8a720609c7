// Roles as separate starts on one data directory: they meet in its files, one of each kind at a time, and share one store, which passes on when
// the one that runs it ends.
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { itOnEmbedded, runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const ports = { WEIR_MQTT_PORT: '0', WEIR_HTTP_PORT: '0', WEIR_GATEWAY_PORT: '0', WEIR_LIVE_PORT: '0' }

describe('roles run apart', () => {
  const data = mkdtempSync(join(tmpdir(), 'weir-test-roles-'))
  let ingest: WeirProcess
  let writer: WeirProcess
  let api: WeirProcess
  beforeAll(async () => {
    ingest = await startWeir({ data, roles: ['ingest'] })
    writer = await startWeir({ data, roles: ['writer'] })
    api = await startWeir({ data, roles: ['api', 'detector'] })
  })
  afterAll(async () => {
    for (const each of [ingest, writer, api]) await each?.dispose()
    rmSync(data, { recursive: true, force: true })
  })

  const publish = async (value: number): Promise<void> => {
    const device = await RawMqtt.connected(ingest.mqtt, 'd')
    await device.publish('devices/d/telemetry', `{"ts": ${1_700_000_000_000 + value}, "v": ${value}}`)
    device.destroy()
  }
  const stored = (): Promise<number[]> =>
    ask<{ items: ReadingItem[] }>(`${api.http}/v1/readings?device=d&from=0`).then(({ items }) =>
      items.map(({ value }) => Number(value)),
    )

  it('each process is only what it was asked to be', () => {
    expect(Object.keys(ingest.urls)).toEqual(['mqtt', 'gateway'])
    expect(Object.keys(ingest.pids())).toEqual(['ingest'])
    expect(Object.keys(writer.urls)).toEqual([])
    expect(Object.keys(api.urls)).toEqual(['http', 'live'])
  })

  it('a reading goes the whole way', async () => {
    await publish(1)
    await waitFor(async () => (await stored()).join() === '1', { what: 'the reading' })
  })

  itOnEmbedded(
    'a second of a kind is refused with a sentence',
    'there may be any number: roles-apart-on-kafka',
    async () => {
      for (const role of ['ingest', 'writer']) {
        const second = await runWeir(['start', '--data', data, '--roles', role], { env: ports, withinMs: 40_000 })
        expect(second.code, `${role}: ${second.stderr}`).toBe(1)
        expect(second.stderr).toMatch(/process \d+/i)
        expect(second.stdout).not.toContain('ready')
      }
    },
    90_000,
  )

  it('the store passes on when the one that runs it is killed, and nothing is lost', async () => {
    await writer.kill('all')
    await publish(2)
    await waitFor(async () => (await stored()).includes(1), { what: 'the other store to answer' })
    writer = await startWeir({ data, roles: ['writer'] })
    await waitFor(async () => (await stored()).join() === '1,2', { what: 'both readings' })
    expect((await runWeir(['verify', '--data', data])).code).toBe(0)
  })

  it('each ends in order', async () => {
    for (const each of [api, writer, ingest]) await each.stop()
  })
})
