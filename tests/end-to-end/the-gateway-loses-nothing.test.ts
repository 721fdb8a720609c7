// The first promise at the gateway's doors: what was answered or acknowledged is there after kill -9, once, as it was sent.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import {
  type GatewaySender,
  type GatewaySenderOptions,
  sendOverHttp,
  sendOverSocket,
} from '../helpers/gateway-senders.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

const rounds = isOnKafka ? 2 : 5
const firstAt = 1_700_000_000_000
const valueAt = (index: number): number => ((index * 7_919) % 1_000_003) / 100
const payloadAt = (index: number): string => `{"ts":${firstAt + index},"v":${valueAt(index)}}`

describe('the gateway loses nothing that it acknowledged', () => {
  const random = createRandom()
  const senders: GatewaySender[] = []
  afterAll(() => {
    for (const sender of senders) sender.stop()
  })

  const check = async (
    weir: WeirProcess,
    { device, kept, sent }: GatewaySender,
    indexes: readonly number[],
  ): Promise<void> => {
    let last = -1
    const found = new Set<number>()
    for await (const { observedAt, value } of allReadings(weir.http, { device, metric: 'v', from: String(firstAt) })) {
      const index = observedAt - firstAt
      if (index <= last) throw new Error(`${device}: reading ${index} after ${last}`)
      if (value !== valueAt(index)) throw new Error(`${device}: reading ${index} is ${value}`)
      found.add(index)
      last = index
    }
    const missing = indexes.filter((index) => !found.has(index))
    if (missing.length > 0) throw new Error(`${device}: ${missing.length} of ${kept.size} are missing (${sent} sent)`)
  }

  it(`over HTTP and WebSocket, ${rounds} times (seed ${random.seed})`, async () => {
    let weir = await startWeir()
    const { data } = weir
    const to = (device: string): GatewaySenderOptions => ({ device, url: () => weir.urls.gateway!, payload: payloadAt })
    senders.push(
      sendOverHttp(to('http-1')),
      sendOverHttp(to('http-2')),
      sendOverSocket(to('socket-1')),
      sendOverSocket(to('socket-2')),
    )
    for (let round = 0; round < rounds; round++) {
      const before = senders.map(({ kept }) => kept.size)
      await waitFor(() => senders.every(({ kept }, i) => kept.size > before[i]! + 100))
      await pause(random.between(50, 600))
      await weir.kill(round % 2 === 0 ? 'ingest' : 'all')
      await waitFor(() => weir.pids().serve === undefined && weir.pids().clickhouse === undefined)
      // From here on nothing is acknowledged by the one that was killed.
      const acknowledged = senders.map(({ kept }) => [...kept])
      weir = await startWeir({ data })
      await waitFor(
        async () => {
          for (const [i, sender] of senders.entries()) await check(weir, sender, acknowledged[i]!)
          return true
        },
        { everyMs: 200, what: `all that was acknowledged before kill ${round}` },
      )
    }
    for (const sender of senders) sender.stop()
    expect((await runWeir(['verify', '--data', data])).code).toBe(0)
    await weir.stop()
  })
})
