// A device that heard no acknowledgement sends again (MQTT 3.1.1 §4.4). One reading comes of it, with a clock or without, with QoS 1 or 2.
import { beforeAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { packet, packetType, publishPacket, RawMqtt, uint16 } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir, type WeirProcess } from '../helpers/weir-process.ts'

describe('a resend is one reading', () => {
  let weir: WeirProcess
  beforeAll(async () => {
    weir = await startWeir()
  })

  const valuesOf = async (device: string): Promise<(number | undefined)[]> => {
    const values: (number | undefined)[] = []
    for await (const { value } of allReadings(weir.http, { device, from: '0' })) values.push(value)
    return values
  }
  /** The marker comes last in the log: when it is answered, everything before it would be. */
  const expectValues = async (device: string, values: readonly number[]): Promise<void> => {
    const marker = await RawMqtt.connected(weir.mqtt, `${device}-marker`)
    await marker.publish(`devices/${device}/telemetry`, '{"marker": -1}')
    marker.destroy()
    await waitFor(async () => (await valuesOf(device)).includes(-1), { what: `the marker of ${device}` })
    expect((await valuesOf(device)).filter((value) => value !== -1).sort()).toEqual([...values])
  }
  /** Connects, sends bytes, and vanishes without reading an answer once they are durable: the next connection sees them. */
  const lose = async (device: string, payload: string, id: number): Promise<void> => {
    const first = await RawMqtt.connected(weir.mqtt, device, { clean: false })
    await first.publish(`devices/${device}/telemetry`, payload, id)
    first.destroy()
  }

  it.each([
    ['with a clock', '{"ts": 1700000000000, "v": 1}'],
    ['without a clock', '{"v": 1}'],
  ])('after a lost connection, %s', async (words, payload) => {
    const device = `again-${words.replaceAll(' ', '-')}`
    await lose(device, payload, 11)
    for (let times = 0; times < 3; times++) {
      const again = await RawMqtt.connected(weir.mqtt, device, { clean: false })
      await again.publish(`devices/${device}/telemetry`, payload, 11, true)
      again.destroy()
    }
    await expectValues(device, [1])
  })

  it('but the same message with another packet id is another one', async () => {
    await lose('twice', '{"v": 1}', 11)
    await lose('twice', '{"v": 1}', 12)
    await expectValues('twice', [1, 1])
  })

  it('and DUP alone makes nothing a repeat', async () => {
    const device = await RawMqtt.connected(weir.mqtt, 'dup')
    await device.publish('devices/dup/telemetry', '{"v": 1}', 1, true)
    await device.publish('devices/dup/telemetry', '{"v": 2}', 1, true)
    device.destroy()
    await expectValues('dup', [1, 2])
  })

  it('with QoS 2: sent again before PUBREL', async () => {
    const publish = (dup: boolean) =>
      publishPacket({ topic: 'devices/exact/telemetry', payload: '{"v": 1}', qos: 2, id: 5, dup })
    const first = await RawMqtt.connected(weir.mqtt, 'exact', { clean: false })
    first.send(publish(false))
    expect((await first.next()).type).toBe(packetType.pubrec)
    first.destroy()
    const again = await RawMqtt.connected(weir.mqtt, 'exact', { clean: false })
    again.send(publish(true))
    expect((await again.next()).type).toBe(packetType.pubrec)
    again.send(packet(0x62, uint16(5)))
    expect((await again.next()).type).toBe(packetType.pubcomp)
    again.destroy()
    await expectValues('exact', [1])
  })
})
