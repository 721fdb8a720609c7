// Where the writer stands is a file. When it is not what was written, nobody guesses: the writer stands still and names the file; devices are
// acknowledged, the API answers, and once a person has removed the file everything is stored, without a restart.
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { ask, type ReadingItem } from '../helpers/ask.ts'
import { RawMqtt } from '../helpers/mqtt-raw.ts'
import { waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, runWeir, startWeir } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000

describeOnEmbedded(
  'a garbled position stops only its reader',
  'positions are the brokers’; one that is out of its topic: a-group-that-retention-passed-is-reset',
  () => {
    it('and once it is removed everything is stored', async () => {
      const weir = await startWeir()
      const publish = async (value: number): Promise<void> => {
        const device = await RawMqtt.connected(weir.mqtt, 'd')
        await device.publish('devices/d/telemetry', `{"ts": ${firstAt + value}, "v": ${value}}`)
        device.destroy()
      }
      const valuesAt = async (path: string): Promise<number[]> =>
        (await ask<{ items: ReadingItem[] }>(`${weir.http}${path}`)).items.map(({ value }) => value!)
      const inTable = (): Promise<number[]> => valuesAt('/v1/readings?device=d&from=0')
      const readiness = async () => {
        const response = await fetch(`${weir.http}/readyz`, { signal: AbortSignal.timeout(30_000) })
        const { parts } = (await response.json()) as { parts: Record<string, { state: string; detail?: string }> }
        return { status: response.status, parts }
      }

      await publish(1)
      await waitFor(async () => (await inTable()).length === 1, { what: 'the first reading in the table' })
      const file = join(weir.data, 'log/groups/writer.readings.json')
      writeFileSync(file, 'what somebody wrote here')
      await weir.kill('serve')
      await publish(2)
      const { parts } = await waitFor(
        async () => {
          const answer = await readiness()
          return answer.status === 503 && answer.parts.writer?.detail?.includes(file) && answer
        },
        { what: '/readyz to name the file' },
      )
      expect(parts.writer).toMatchObject({ state: 'failed', detail: expect.stringMatching(/remove it/) })
      const { serve } = weir.pids()
      // The API goes on, with what the table has and with what the log has beyond it.
      await waitFor(async () => (await valuesAt('/v1/latest?device=d')).join() === '2', { what: 'the newest value' })
      expect(await inTable()).toEqual([1])
      expect((await readiness()).parts.api?.state).toBe('ok')
      expect(weir.stderr()).toContain('a consumer of the log stands still')

      rmSync(file)
      await waitFor(async () => (await inTable()).join() === '1,2', { withinMs: 60_000, what: 'the second reading' })
      await waitFor(async () => (await readiness()).status === 200, { what: '/readyz to be well again' })
      expect(weir.pids().serve).toBe(serve)
      expect((await runWeir(['verify', '--data', weir.data])).code).toBe(0)
      await weir.stop()
    })
  },
)
