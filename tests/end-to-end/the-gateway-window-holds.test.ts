// The window of /v1/ingest, whatever its senders do: batches of any size, cut anywhere, pauses, sockets that end at random moments, kill -9 of the first
// process in between. Every acknowledged reading is in the table, once; of what was sent beyond the window nothing is, and 4008 says so.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { WindowSender } from '../helpers/window-sender.ts'

const kills = 2
const sendersCount = 4
const firstAt = 1_700_000_000_000
const valueAt = (index: number): number => ((index * 7_919) % 1_000_003) / 100

describe('the window of the gateway holds', () => {
  const random = createRandom()
  const senders: WindowSender[] = []
  const stopAll = (): Promise<unknown> => Promise.all(senders.map((sender) => sender.stop()))
  afterAll(stopAll)

  const check = async (weir: WeirProcess, { device, fates }: WindowSender): Promise<void> => {
    let last = -1
    const found = new Set<number>()
    for await (const { observedAt, value } of allReadings(weir.http, { device, metric: 'v', from: String(firstAt) })) {
      const index = observedAt - firstAt
      if (index <= last) throw new Error(`${device}: reading ${index} after ${last}: twice, or out of order`)
      if (fates[index] === undefined) throw new Error(`${device}: reading ${index} was never sent`)
      if (fates[index] === 'refused') throw new Error(`${device}: reading ${index} was beyond the window`)
      if (value !== valueAt(index)) throw new Error(`${device}: reading ${index} is ${value}`)
      found.add(index)
      last = index
    }
    const missing = fates.flatMap((fate, index) => (fate === 'kept' && !found.has(index) ? [index] : []))
    if (missing.length > 0) throw new Error(`${device}: ${missing.length} acknowledged ones are missing: ${missing[0]}`)
  }

  it(`whatever senders do, over ${kills} kills (seed ${random.seed})`, async () => {
    let current = await startWeir()
    let weir: WeirProcess | undefined = current
    const { data } = current
    for (let i = 0; i < sendersCount; i++)
      senders.push(
        new WindowSender({
          device: `window-${i}`,
          random: createRandom(random.between(0, 2 ** 31)),
          address: () => {
            if (weir === undefined) return undefined
            const { hostname, port } = new URL(weir.urls.gateway!)
            return { host: hostname, port: Number(port) }
          },
          payload: (index) => `{"ts":${firstAt + index},"v":${valueAt(index)}}`,
        }),
      )
    for (let round = 0; round <= kills; round++) {
      const before = senders.map(({ kept }) => kept)
      await waitFor(() => senders.every(({ kept }, i) => kept > before[i]! + 100), { withinMs: 60_000 })
      await pause(random.between(200, 1_500))
      if (round === kills) break
      weir = undefined
      await current.kill('ingest')
      const killed = current
      await waitFor(() => killed.pids().serve === undefined && killed.pids().clickhouse === undefined, {
        what: 'the other processes to end',
      })
      current = await startWeir({ data })
      weir = current
    }
    const overruns = (): number => senders.reduce((sum, sender) => sum + sender.overruns, 0)
    await waitFor(() => overruns() >= sendersCount, { withinMs: 60_000, what: 'sockets that ignored the window' })
    await stopAll()
    expect(senders.map(({ broken }) => broken)).toEqual(senders.map(() => undefined))
    expect(senders.flatMap(({ fates }) => fates).filter((fate) => fate === 'refused').length).toBeGreaterThan(0)
    await waitFor(
      async () => {
        for (const sender of senders) await check(current, sender)
        return true
      },
      { withinMs: 60_000, everyMs: 250, what: 'every acknowledged reading in the table' },
    )
    // What was rejected was kept too, as it came.
    for (const id of senders.flatMap(({ deadLetters }) => deadLetters.slice(-3)))
      await waitFor(async () => (await fetch(`${current.http}/v1/dead-letters/${id}`)).ok, {
        what: `dead letter ${id}`,
      })
    expect((await runWeir(['verify', '--data', data])).code).toBe(0)
    const words = senders.map(
      ({ device, kept, fates, connections, overruns: closed, deadLetters }) =>
        `${device}: ${kept} of ${fates.length} kept, ${connections} connections, ${closed} closed with 4008, ${deadLetters.length} rejected`,
    )
    console.info(words.join('\n'))
    await current.stop()
  }, 300_000)
})
