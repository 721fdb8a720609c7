// What was once durable and is no longer what was written is not cut off in silence: the start is refused with the file and the place, and
// `weir verify` says the same.
import { copyFileSync } from 'node:fs'
import { basename } from 'node:path'
import { beforeAll, expect, it } from 'vitest'
import { flipBit, lastFrame, segmentFiles, writeGarbageAtEnd } from '../helpers/log-files.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { describeOnEmbedded, runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const ports = { WEIR_MQTT_PORT: '0', WEIR_HTTP_PORT: '0', WEIR_GATEWAY_PORT: '0', WEIR_LIVE_PORT: '0' }

describeOnEmbedded('a damaged log is refused', 'frames on a broker’s disk are its own to check', () => {
  let weir: WeirProcess
  let file: string
  beforeAll(async () => {
    weir = await startWeir()
    const device = await RawMqtt.connected(weir.mqtt, 'd')
    for (let i = 1; i <= 50; i++) await device.publish('devices/d/telemetry', `{"v": ${i}}`, i)
    device.destroy()
    await weir.stop()
    file = segmentFiles(weir.data).at(-1)!
    copyFileSync(file, `${file}.kept`)
  })

  it('with the file and the place named, by start and by verify', async () => {
    const { start } = lastFrame(file)
    // In the middle: valid commits follow.
    const at = 4096 + Math.floor((start - 4096) / 2)
    flipBit(file, at)
    const refused = await runWeir(['start', '--data', weir.data], { env: ports })
    expect(refused.code).toBe(1)
    expect(refused.stdout).not.toContain('ready')
    expect(refused.stderr).toContain(basename(file))
    const named = [...refused.stderr.matchAll(/\b\d{4,}\b/g)].map(([digits]) => Number(digits))
    // The frame that holds the place begins before it, by at most one small frame.
    expect(
      named.some((offset) => offset <= at && offset > at - 400),
      refused.stderr,
    ).toBe(true)
    const verified = await runWeir(['verify', '--data', weir.data])
    expect(verified.code).toBe(1)
    expect(verified.stdout + verified.stderr).toContain(basename(file))
  })

  it('and a torn end is cut instead', async () => {
    copyFileSync(`${file}.kept`, file)
    writeGarbageAtEnd(file, Buffer.from('what a crash left behind'))
    const again = await startWeir({ data: weir.data })
    const device = await RawMqtt.connected(again.mqtt, 'd')
    await device.publish('devices/d/telemetry', '{"v": 51}')
    device.destroy()
    await again.stop()
    expect((await runWeir(['verify', '--data', weir.data])).code).toBe(0)
  })
})
