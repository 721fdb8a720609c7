// A server of viewers in a process of its own, fed in memory as fast as its viewers take it: the product's hub and live port, or the plain loop that
// everyone writes first, on `ws` (which the MQTT client brings along; nothing else here uses it). Twenty readings a tick, one a series.
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import { AnomalyFeed } from '../api/live/anomaly-feed.ts'
import { LiveHub } from '../api/live/hub.ts'
import { LastValues } from '../api/live/last-values.ts'
import { LiveServer } from '../api/live/live-server.ts'
import type { Chunk, EventLog } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { createViewerAccess } from '../runtime/access/viewer-access.ts'
import { systemClock } from '../runtime/clock.ts'
import { createInstruments } from '../runtime/instruments.ts'
import { silentLogger } from '../runtime/logger.ts'

export interface LiveSideReport {
  readonly ticks: number
  readonly seconds: number
  readonly cpuUs: number
}

interface Side {
  readonly url: string
  /** One tick to every viewer. */
  tick(number: number): void
  /** Everything was taken. */
  isIdle(): boolean
}

const updates = 20
const device = (i: number): string => `pump-${i}`

/** The little of it that is used here. */
interface PlainSocket {
  send(text: string): void
  readonly bufferedAmount: number
}

async function plainSide(): Promise<Side> {
  const { WebSocketServer } = createRequire(import.meta.url)('ws') as {
    WebSocketServer: new (options: {
      host: string
      port: number
      perMessageDeflate: boolean
    }) => {
      readonly clients: Set<PlainSocket>
      once(event: 'listening', listener: () => void): void
      address(): AddressInfo
    }
  }
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false })
  await new Promise<void>((done) => server.once('listening', done))
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    tick(number) {
      for (let i = 0; i < updates; i++) {
        const text = JSON.stringify({ device: device(i), metric: 'rpm', observedAt: number, value: number + i / 10 })
        for (const client of server.clients) client.send(text)
      }
    },
    isIdle: () => [...server.clients].every(({ bufferedAmount }) => bufferedAmount === 0),
  }
}

async function weirSide(): Promise<Side> {
  const log = { partitions: 1, end: async () => new Map(), receivedAtMax: () => 0 } as unknown as EventLog
  const lastValues = new LastValues()
  const none = async () => []
  const hub = new LiveHub({
    ...{ log, lastValues, clock: systemClock, logger: silentLogger },
    ...{ history: none, received: none },
  })
  hub.startAt(new Map([[0, 0]]))
  const server = new LiveServer({
    ...{ host: '127.0.0.1', port: 0, hub, partitions: 1, clock: systemClock, instruments: createInstruments('bench') },
    anomalies: new AnomalyFeed({ log, clock: systemClock, logger: silentLogger, stored: async () => [] }),
    access: createViewerAccess({ config: { host: '127.0.0.1' }, clock: systemClock }),
  })
  await server.listen()
  const prefixes = Array.from({ length: updates }, (_, i) => encodeRowPrefix('default', device(i), 'rpm'))
  return {
    url: `ws://127.0.0.1:${server.address().port}`,
    tick(number) {
      const rows = new RowWriter(4_096)
      for (const [i, prefix] of prefixes.entries()) rows.number(prefix, number, number + i / 10, number * updates + i)
      const { receivedAt } = rows
      const chunk: Chunk = {
        ...{ topic: 'readings', partition: 0, offset: number, count: updates, receivedAt },
        rows: rows.rows(),
      }
      lastValues.apply(chunk.rows)
      hub.accept([chunk])
    },
    isIdle: () => hub.queuedBytes === 0,
  }
}

async function run(side: Side, from: number, seconds: number): Promise<LiveSideReport & { next: number }> {
  const before = process.cpuUsage()
  const startAt = performance.now()
  let number = from
  while (performance.now() - startAt < seconds * 1000) {
    side.tick(number++)
    do await turn()
    while (!side.isIdle())
  }
  const { user, system } = process.cpuUsage(before)
  return { ticks: number - from, seconds: (performance.now() - startAt) / 1000, cpuUs: user + system, next: number }
}

const side = process.argv[2] === 'weir' ? await weirSide() : await plainSide()
let next = 0
process.on('message', async ({ seconds }: { seconds: number }) => {
  const report = await run(side, next, seconds)
  next = report.next
  process.send?.(report)
})
process.send?.({ url: side.url })
