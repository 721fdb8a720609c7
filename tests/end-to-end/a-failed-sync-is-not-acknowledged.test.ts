// A disk that says EIO to fdatasync has kept nothing, and a second sync would prove nothing. No device hears that its reading is kept, operators are
// told, and the log goes on by itself where that is safe: in another file. Where it is not, it takes nothing more until it is opened again.
import { afterAll, expect, it } from 'vitest'
import { createFailingDisk } from '../helpers/failing-disk.ts'
import { RawPublisher } from '../helpers/mqtt-raw.ts'
import { queryStore } from '../helpers/store.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { describeOnEmbedded, runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'

const firstAt = 1_700_000_000_000
const quietMs = 1_500
const everyTime = 1e9

describeOnEmbedded(
  'a failed sync is not acknowledged',
  'syncs are the brokers’; one that stops is in waits-for-kafka',
  () => {
    const disk = createFailingDisk()
    const publishers: RawPublisher[] = []
    afterAll(() => {
      for (const publisher of publishers) publisher.stop()
      disk.dispose()
    })

    const publish = (device: string, current: () => WeirProcess) => {
      const acknowledged = new Set<number>()
      const publisher = new RawPublisher({
        address: () => current().mqtt,
        clientId: device,
        window: 50,
        ratePerS: 2_000,
        resend: true,
        message: (index) => ({
          topic: `devices/${device}/telemetry`,
          payload: `{"ts":${firstAt + index},"v":${index}}`,
        }),
        onAcknowledged: (index) => acknowledged.add(index),
      })
      publishers.push(publisher)
      publisher.resume()
      return { publisher, acknowledged }
    }

    const expectAllInTable = async (weir: WeirProcess, device: string, acknowledged: ReadonlySet<number>) => {
      await waitFor(
        async () => {
          const rows = await queryStore(
            weir.data,
            `SELECT count() AS rows, uniqExact(observedAt) AS distinct, sum(value) AS sum FROM weir.readings FINAL WHERE device = '${device}'`,
          )
          const sum = [...acknowledged].reduce((all, each) => all + each, 0)
          expect(rows).toEqual([{ rows: acknowledged.size, distinct: acknowledged.size, sum }])
          return true
        },
        { withinMs: 60_000, everyMs: 250, what: `${acknowledged.size} readings of ${device} in the table` },
      )
      const verified = await runWeir(['verify', '--data', weir.data])
      expect(verified.code, verified.stdout + verified.stderr).toBe(0)
    }

    const readiness = async (weir: WeirProcess) => {
      const response = await fetch(`${weir.http}/readyz`, { signal: AbortSignal.timeout(30_000) })
      const { parts } = (await response.json()) as { parts: Record<string, { state: string; detail?: string }> }
      return { status: response.status, log: parts.log! }
    }

    it('and the log goes on by itself in another file', async () => {
      const weir = await startWeir({ env: disk.env })
      const { publisher, acknowledged } = publish('goes-on', () => weir)
      for (let faults = 1; faults <= 3; faults++) {
        const before = acknowledged.size
        await waitFor(() => acknowledged.size > before + 200, { what: 'some load' })
        disk.order({ fdatasync: { file: /\.seg$/, times: 1 } })
        await waitFor(() => disk.left() === 0, { what: 'the fault' })
        await waitFor(() => weir.stderr().split('could not be made durable (EIO').length > faults, {
          what: 'the log line',
        })
        await waitFor(() => weir.stderr().split('the log takes appends again').length > faults, {
          what: 'the good news',
        })
      }
      const after = acknowledged.size
      await waitFor(() => acknowledged.size > after + 200, { what: 'acknowledgements to go on' })
      publisher.pause()
      await publisher.settled()
      expect(publisher.broken).toBeUndefined()
      expect(acknowledged.size).toBe(publisher.sent)
      await waitFor(async () => (await readiness(weir)).status === 200, { what: '/readyz to be well again' })
      await expectAllInTable(weir, 'goes-on', acknowledged)
      await weir.stop()
    })

    it('and where no other file can be made sure of, it stops for good: a restart goes on', async () => {
      let weir = await startWeir({ env: disk.env })
      const { data } = weir
      const { publisher, acknowledged } = publish('stops', () => weir)
      await waitFor(() => acknowledged.size > 200, { what: 'some load' })
      disk.order({ fdatasync: { file: /\.seg$/, times: 1 }, fsync: { file: /\/log$/, times: everyTime } })
      const { log } = await waitFor(
        async () => {
          const answer = await readiness(weir)
          return answer.log.state === 'failed' && answer
        },
        { what: '/readyz to say that the log has failed' },
      ).then(async () => {
        // It goes through being stalled.
        await waitFor(async () => /opened again/.test((await readiness(weir)).log.detail ?? ''))
        return readiness(weir)
      })
      expect(log.detail).toMatch(/EIO.*the log takes nothing more until it is opened again/)
      expect((await readiness(weir)).status).toBe(503)
      expect(weir.stderr()).toMatch(/"level":\d+.*the log takes nothing more until it is opened again/)
      // A good disk makes no difference: what is on it is not known.
      disk.mend()
      const kept = acknowledged.size
      await pause(quietMs)
      expect(acknowledged.size).toBe(kept)
      await weir.stop()
      expect(acknowledged.size).toBe(kept)
      weir = await startWeir({ data, env: disk.env })
      await waitFor(() => acknowledged.size > kept + 200, { what: 'the device to go on' })
      publisher.pause()
      await publisher.settled()
      expect(publisher.broken).toBeUndefined()
      expect(acknowledged.size).toBe(publisher.sent)
      await expectAllInTable(weir, 'stops', acknowledged)
      await weir.stop()
    })
  },
)
