// `weir verify` holds the log against the table, reading by reading, while Weir runs and when it is stopped.
import { beforeAll, describe, expect, it } from 'vitest'
import { RawMqtt, RawPublisher } from '../helpers/mqtt-raw.ts'
import { askStore, queryStore } from '../helpers/store.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const readings = 200
const firstAt = 1_700_000_000_000

describe('verify finds differences', () => {
  let weir: WeirProcess
  beforeAll(async () => {
    weir = await startWeir()
    const device = await RawMqtt.connected(weir.mqtt, 'd')
    for (let i = 0; i < readings; i++)
      await device.publish(`devices/d${i % 4}/telemetry`, `{"ts": ${firstAt + i}, "v": ${i}}`, i + 1)
    // A repeat and a correction are no difference.
    await device.publish('devices/d0/telemetry', `{"ts": ${firstAt}, "v": 0}`, 1)
    await device.publish('devices/d0/telemetry', `{"ts": ${firstAt}, "v": 0.5}`, 2)
    await device.publish('devices/d0/telemetry', `{"ts": ${firstAt}, "state": "idle"}`, 3)
    device.destroy()
    await waitFor(
      async () => {
        const [row] = await queryStore<{ rows: number }>(weir.data, 'SELECT count() AS rows FROM weir.readings FINAL')
        return row!.rows === readings + 1
      },
      { what: 'all readings in the table' },
    )
  })

  const verify = () => runWeir(['verify', '--data', weir.data])

  it('none, where there is none', async () => {
    const result = await verify()
    expect(result.code, result.stdout + result.stderr).toBe(0)
  })

  it('none either while readings come in', async () => {
    let acknowledged = 0
    const publisher = new RawPublisher({
      address: () => weir.mqtt,
      clientId: 'busy',
      window: 100,
      ratePerS: 3_000,
      resend: true,
      message: (index) => ({ topic: 'devices/busy/telemetry', payload: `{"ts":${firstAt + index},"v":${index}}` }),
      onAcknowledged: () => acknowledged++,
    })
    publisher.resume()
    try {
      await waitFor(() => acknowledged > 1_000, { what: 'some load' })
      for (let times = 0; times < 3; times++) {
        const before = acknowledged
        const result = await verify()
        expect(result.code, result.stdout + result.stderr).toBe(0)
        expect(acknowledged).toBeGreaterThan(before)
      }
    } finally {
      publisher.stop()
    }
  })

  it('a reading that is missing', async () => {
    await askStore(
      weir.data,
      `ALTER TABLE weir.readings DELETE WHERE device = 'd1' AND value = 5 SETTINGS mutations_sync = 1`,
    )
    const result = await verify()
    expect(result.code, result.stdout + result.stderr).toBe(1)
    expect(result.stdout + result.stderr).toContain('d1')
  })

  it('a value that is another', async () => {
    await askStore(
      weir.data,
      `ALTER TABLE weir.readings UPDATE value = 1000000 WHERE device = 'd2' AND value = 6 SETTINGS mutations_sync = 1`,
    )
    const result = await verify()
    expect(result.code, result.stdout + result.stderr).toBe(1)
    expect(result.stdout + result.stderr).toMatch(/d2/)
  })

  it('the same when everything is stopped', async () => {
    await weir.stop()
    const result = await verify()
    expect(result.code, result.stdout + result.stderr).toBe(1)
    expect(result.stdout + result.stderr).toMatch(/d1/)
  })
})
