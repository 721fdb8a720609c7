// The store is behind the log: while it is away, devices are acknowledged as ever, operators are told, and afterwards everything is in the table.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings, ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt, RawPublisher } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

interface Ready {
  readonly status: string
  readonly parts: Readonly<Record<string, { state: string; detail?: string }>>
}

const firstAt = 1_700_000_000_000
const messages = 20_000
/** The writer's patience with an insert that does not come back, and the supervisor's with a store that does not answer. */
const noticedMsMax = 90_000
const caughtUpMsMax = 90_000

describe('a stopped store delays no acknowledgement', () => {
  const publishers: RawPublisher[] = []
  afterAll(() => {
    for (const publisher of publishers) publisher.stop()
  })

  /** As many as can be acknowledged, until `messages` are; each was acknowledged while the store was away. */
  const publishMany = async (weir: WeirProcess, device: string): Promise<Set<number>> => {
    const acknowledged = new Set<number>()
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: device,
      window: 100,
      resend: true,
      message: (index) => ({ topic: `devices/${device}/telemetry`, payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: (index) => {
        acknowledged.add(index)
        if (acknowledged.size >= messages) publisher.pause()
      },
    })
    publishers.push(publisher)
    publisher.resume()
    await waitFor(() => acknowledged.size >= messages, { what: `${messages} acknowledgements` })
    await publisher.settled()
    expect(publisher.broken).toBeUndefined()
    return acknowledged
  }

  const expectInTable = (weir: WeirProcess, device: string, acknowledged: ReadonlySet<number>): Promise<true> =>
    waitFor(
      async () => {
        const found: number[] = []
        for await (const { value } of allReadings(weir.http, { device, from: '0' })) found.push(value!)
        expect(found.length).toBe(acknowledged.size)
        expect(found.every((value, index) => value === index)).toBe(true)
        return true
      },
      { withinMs: caughtUpMsMax, everyMs: 250, what: `${acknowledged.size} readings of ${device}` },
    )

  const readiness = async (weir: WeirProcess): Promise<{ status: number; body: Ready }> => {
    const response = await fetch(`${weir.http}/readyz`, { signal: AbortSignal.timeout(30_000) })
    return { status: response.status, body: (await response.json()) as Ready }
  }

  const expectSaysSo = async (weir: WeirProcess): Promise<void> => {
    await waitFor(
      async () => {
        const { body } = await readiness(weir)
        const unwell = Object.values(body.parts).filter(({ state }) => state !== 'ok')
        return unwell.length > 0 && unwell.every(({ detail }) => (detail ?? '').length > 10)
      },
      { withinMs: noticedMsMax, everyMs: 250, what: '/readyz to name what is away' },
    )
  }

  const expectWell = async (weir: WeirProcess): Promise<void> => {
    await waitFor(async () => (await readiness(weir)).body.status === 'ready', {
      withinMs: caughtUpMsMax,
      everyMs: 250,
      what: '/readyz to be ready again',
    })
  }

  it('frozen', async () => {
    const weir = await startWeir({ env: { WEIR_HUNG_TIMEOUT: '1h' } })
    const thaw = weir.freeze('clickhouse')
    const acknowledged = await publishMany(weir, 'frozen').finally(() => undefined)
    // What lives in memory goes on being answered.
    await waitFor(
      async () => {
        const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/latest?device=frozen`)
        return items[0]?.value === messages - 1 || (items[0]?.value ?? 0) >= messages - 1
      },
      { what: 'the last value, without the store' },
    )
    await expectSaysSo(weir)
    thaw()
    await expectInTable(weir, 'frozen', acknowledged)
    await expectWell(weir)
    await weir.stop()
  })

  it('killed again and again', async () => {
    const weir = await startWeir()
    const publishing = publishMany(weir, 'killed')
    for (let times = 0; times < 3; times++) {
      await waitFor(() => weir.pids().clickhouse, { what: 'the store to be started again' })
      await weir.kill('clickhouse')
    }
    const acknowledged = await publishing
    await expectInTable(weir, 'killed', acknowledged)
    await expectWell(weir)
    await weir.stop()
  })

  it('and neither does a serving process that died', async () => {
    const weir = await startWeir()
    await weir.kill('serve')
    const acknowledged = await publishMany(weir, 'unserved')
    await waitFor(() => weir.pids().serve, { what: 'the serving process to be started again' })
    await expectInTable(weir, 'unserved', acknowledged)
    const device = await RawMqtt.connected(weir.mqtt, 'afterwards')
    await device.publish('devices/afterwards/telemetry', '{"v": 1}')
    device.destroy()
    await weir.stop()
  })
})
