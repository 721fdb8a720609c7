// A process that lives and says nothing is no use to anyone and does not end by itself: it is ended, started again, and catches up.
import { describe, expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { isAlive } from '../helpers/spawn-weir.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { startWeir } from '../helpers/weir-process.ts'

describe('a hung process is started again', () => {
  it.each(['serve', 'clickhouse'] as const)('%s', async (part) => {
    // Long enough for a busy machine not to be taken for a hang.
    const weir = await startWeir({ env: { WEIR_HUNG_TIMEOUT: '8s' } })
    const hung = weir.pids()[part]!
    weir.freeze(part)
    const device = await RawMqtt.connected(weir.mqtt, 'd')
    await device.publish('devices/d/telemetry', '{"ts": 1700000000000, "v": 1}')
    device.destroy()
    await waitFor(() => !isAlive(hung), { withinMs: 60_000, what: `the hung ${part} to be ended` })
    const said = weir
      .stderr()
      .split('\n')
      .filter((line) => line.includes(`"pid":${hung}`) && line.includes('says nothing: it hangs'))
    expect(said).toHaveLength(1)
    expect(weir.stderr()).toContain('said nothing for so long that it is ended')
    await waitFor(
      async () => {
        const { items } = await ask<{ items: ReadingItem[] }>(`${weir.http}/v1/readings?device=d&from=0`)
        return items.length === 1
      },
      { withinMs: 60_000, what: 'the reading to be stored and answered' },
    )
    await waitFor(async () => (await fetch(`${weir.http}/readyz`)).status === 200, { what: '/readyz to be well again' })
    expect(weir.pids()[part]).not.toBe(hung)
    await weir.stop()
  })
})
