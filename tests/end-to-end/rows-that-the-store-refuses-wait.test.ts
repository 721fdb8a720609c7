// A store that says no to rows (somebody altered its table) gets no other ones instead: they wait in the log with all that comes after them, devices
// go on being acknowledged, a person is told, and once the table is as it should be everything is stored without a restart.
import { afterAll, describe, expect, it } from 'vitest'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { askStore, queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000

describe('rows that the store refuses wait', () => {
  const publishers: RawPublisher[] = []
  afterAll(() => {
    for (const publisher of publishers) publisher.stop()
  })

  it('in the log, with what comes after them, and need no restart', async () => {
    const weir = await startWeir()
    const device = 'd'
    const acknowledged = new Set<number>()
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: device,
      window: 50,
      ratePerS: 1_000,
      resend: true,
      message: (index) => ({ topic: `devices/${device}/telemetry`, payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: (index) => acknowledged.add(index),
    })
    publishers.push(publisher)
    publisher.resume()
    const stored = async (): Promise<number> => {
      const [row] = await queryStore<{ n: number }>(weir.data, 'SELECT count() AS n FROM weir.readings FINAL')
      return row!.n
    }
    await waitFor(async () => (await stored()) > 100, { what: 'some readings in the table' })
    await askStore(weir.data, 'ALTER TABLE weir.readings ADD CONSTRAINT none CHECK value < 0')
    const writer = await waitFor(
      async () => {
        const response = await fetch(`${weir.http}/readyz`)
        const { parts } = (await response.json()) as { parts: Record<string, { state: string; detail?: string }> }
        return response.status === 503 && parts.writer?.state === 'failed' && parts.writer
      },
      { what: '/readyz to say that the writer has failed' },
    )
    expect(writer.detail).toMatch(/^readings \d+: \d+-\d+.*\(partition: offsets\) can't be stored: /)
    const line = weir
      .stderr()
      .split('\n')
      .find((each) => each.includes('the store refuses rows of the log'))
    expect(JSON.parse(line!)).toMatchObject({ topic: 'readings', offsets: expect.stringMatching(/\d+: \d+-\d+/) })
    // Neither lost nor in the way of devices.
    const [before, inTable] = [acknowledged.size, await stored()]
    await waitFor(() => acknowledged.size > before + 1_000, { what: 'acknowledgements to go on' })
    expect(await stored()).toBe(inTable)
    const { serve, clickhouse } = weir.pids()
    await askStore(weir.data, 'ALTER TABLE weir.readings DROP CONSTRAINT none')
    publisher.pause()
    await publisher.settled()
    expect(publisher.broken).toBeUndefined()
    // What was refused is offered again every half minute.
    await waitFor(
      async () => {
        const rows = await queryStore(
          weir.data,
          'SELECT count() AS rows, uniqExact(observedAt) AS distinct, sum(value) AS sum FROM weir.readings FINAL',
        )
        const sum = [...acknowledged].reduce((all, each) => all + each, 0)
        expect(rows).toEqual([{ rows: acknowledged.size, distinct: acknowledged.size, sum }])
        return true
      },
      { withinMs: 120_000, everyMs: 250, what: 'all acknowledged readings in the table' },
    )
    expect(weir.pids()).toMatchObject({ serve, clickhouse })
    await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, { what: '/readyz to be well again' })
    const verified = await runWeir(['verify', '--data', weir.data])
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
    await weir.stop()
  })
})
