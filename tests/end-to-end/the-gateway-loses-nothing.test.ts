// The first promise at the gateway's doors: what was answered or acknowledged is there after kill -9, once, as it was sent.
import { afterAll, describe, expect, it } from 'vitest'
import { allReadings } from '../helpers/ask.ts'
import { createRandom } from '../helpers/random.ts'
import { pause, waitFor } from '../helpers/wait-for.ts'
import { ingestFrame, TestSocket } from '../helpers/websocket.ts'
import { runWeir, startWeir, type WeirProcess } from '../helpers/weir-process.ts'
import { isOnKafka } from '../helpers/which-log.ts'

const rounds = isOnKafka ? 2 : 5
const firstAt = 1_700_000_000_000
const valueAt = (index: number): number => ((index * 7_919) % 1_000_003) / 100
const payloadAt = (index: number): string => `{"ts":${firstAt + index},"v":${valueAt(index)}}`

interface Sender {
  readonly device: string
  /** Indexes that were acknowledged. */
  readonly kept: Set<number>
  sent: number
  stop(): void
}

describe('the gateway loses nothing that it acknowledged', () => {
  const random = createRandom()
  const senders: Sender[] = []
  afterAll(() => {
    for (const sender of senders) sender.stop()
  })

  /** Bodies of ten, one after the other; one whose answer is lost is sent again. */
  const overHttp = (device: string, current: () => WeirProcess): Sender => {
    let isStopped = false
    const stop = (): void => {
      isStopped = true
    }
    const sender = { device, kept: new Set<number>(), sent: 0, stop }
    const run = async (): Promise<void> => {
      while (!isStopped) {
        const from = sender.sent
        const body = `[${Array.from({ length: 10 }, (_, i) => payloadAt(from + i)).join(',')}]`
        try {
          const answer = await fetch(`${current().urls.gateway}/v1/telemetry/${device}`, {
            method: 'POST',
            body,
            headers: { 'content-type': 'application/json' },
            signal: AbortSignal.timeout(30_000),
          })
          const given = (await answer.json()) as { accepted?: number }
          if (answer.status !== 200 || given.accepted !== 10) continue
          for (let i = 0; i < 10; i++) sender.kept.add(from + i)
          sender.sent += 10
        } catch {
          await pause(20)
        }
      }
    }
    void run()
    return sender
  }

  /** A window of messages on a socket; a new one goes on after what the last one knew to be kept. */
  const overSocket = (device: string, current: () => WeirProcess): Sender => {
    let isStopped = false
    const stop = (): void => {
      isStopped = true
    }
    let socket: TestSocket | undefined
    const sender = { device, kept: new Set<number>(), sent: 0, stop }
    const run = async (): Promise<void> => {
      let next = 0
      while (!isStopped) {
        const { hostname, port } = new URL(current().urls.gateway!)
        const begun = next
        const open = new TestSocket({ host: hostname, port: Number(port) }, `/v1/ingest?device=${device}`)
        socket = open
        let sent = 0
        let settled = 0
        while (!isStopped && !open.isClosed) {
          if (open.messages.length > 0) {
            for (; sent - settled < 64; sent++) open.bytes(ingestFrame(sent + 1, 0, '', payloadAt(begun + sent)))
            sender.sent = Math.max(sender.sent, begun + sent)
          }
          await pause(2)
          const upTo = Math.max(0, open.ackedUpTo)
          for (; settled < upTo; settled++) sender.kept.add(begun + settled)
          open.messages.splice(1, Math.max(0, open.messages.length - 2))
        }
        next = begun + settled
        open.destroy()
        await pause(20)
      }
      socket?.destroy()
    }
    void run()
    return sender
  }

  const check = async (
    weir: WeirProcess,
    { device, kept, sent }: Sender,
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
    senders.push(
      overHttp('http-1', () => weir),
      overHttp('http-2', () => weir),
      overSocket('socket-1', () => weir),
      overSocket('socket-2', () => weir),
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
