// A viewer as the world has them: it stops reading for a while, loses its connection, comes back with its cursor over another transport, and goes on
// for as long as it is let. It keeps what it was told, how often, and the gaps that were declared to it; and it knows what a stream may never do:
// tell a late reading as a new one, let a series go back, hurry.
import { request } from 'node:http'
import { decodeColumns } from './columns.ts'
import type { Random } from './random.ts'
import { pause } from './wait-for.ts'
import { TestSocket } from './websocket.ts'

export interface RoamingOptions {
  /** Asked at each connection: ports may change. Undefined: nobody is there now. */
  readonly addresses: () => { readonly http: string; readonly live: string } | undefined
  /** `device=…&mode=every` */
  readonly query: string
  /** An instant, or undefined: from now on. */
  readonly since: string | undefined
  readonly random: Random
  /** At the first `caught-up`. */
  readonly onStarted: () => void
  /** Least and most time that it stays before it goes away by itself. */
  readonly staysMs?: readonly [number, number]
}

export interface ToldItem {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly value?: number
  readonly text?: string
}

interface Told {
  value: number | string
  times: number
}

export interface Shown {
  readonly observedAt: number
  readonly value: number | string
}

/** What one connection was told, in its order. */
class Heard {
  readonly openedAt = performance.now()
  /** By series: the newest. */
  readonly newest = new Map<string, Shown>()
  readonly anomalies = new Set<string>()
  isLive = false
  /** Frames of readings since it caught up. */
  frames = 0
}

/** Twenty a second, and what timers and the first ones take. */
function framesAllowed(sinceMs: number): number {
  return 22 * (sinceMs / 1_000) + 5
}

type Transport = 'json' | 'columns' | 'stream'
interface Connection {
  readonly isOpen: () => boolean
  setPaused(isPaused: boolean): void
  end(): void
}

export class RoamingViewer {
  /** By device, metric and instant. */
  readonly told = new Map<string, Told>()
  /** By series: the newest as a page would show it. */
  readonly shown = new Map<string, Shown>()
  readonly anomalies = new Set<string>()
  revisions = 0
  readonly gaps: Record<string, unknown>[] = []
  /** How its connections ended, as far as it was told. */
  readonly endings: string[] = []
  connections = 0
  /** Where it began each time, for a test that failed. */
  readonly journey: string[] = []
  cursor: string | undefined
  /** What came that is no frame of the protocol. */
  broken: string | undefined
  private readonly options: RoamingOptions
  private isStarted = false
  private isStopped = false
  private isSettling = false
  private heard = new Heard()
  private readonly isLatest: boolean
  private running: Promise<void>

  constructor(options: RoamingOptions) {
    this.options = options
    this.isLatest = !options.query.includes('mode=every')
    this.running = this.roam()
  }

  /** From now on it stays and reads. */
  settle(): void {
    this.isSettling = true
  }

  async stop(): Promise<void> {
    this.isStopped = true
    await this.running
  }

  private async roam(): Promise<void> {
    const { random, staysMs = [200, 3_000] } = this.options
    const transports: readonly Transport[] = ['json', 'columns', 'stream']
    while (!this.isStopped) {
      const connection = this.connect(transports[random.between(0, 2)]!)
      if (connection === undefined) {
        await pause(50)
        continue
      }
      this.connections++
      const leaveAt = performance.now() + random.between(...staysMs)
      let pauseAt = performance.now() + random.between(100, 2_000)
      while (connection.isOpen() && !this.isStopped && (this.isSettling || performance.now() < leaveAt)) {
        await pause(20)
        if (this.isSettling || performance.now() < pauseAt) continue
        connection.setPaused(true)
        await pause(random.between(10, 1_000))
        connection.setPaused(false)
        pauseAt = performance.now() + random.between(100, 2_000)
      }
      connection.end()
      await pause(random.between(0, 200))
    }
  }

  private connect(transport: Transport): Connection | undefined {
    const addresses = this.options.addresses()
    if (addresses === undefined) return undefined
    const { query, since } = this.options
    const from = this.cursor ?? since
    this.heard = new Heard()
    this.journey.push(`${transport} ${from?.slice(0, 120)} ${new Date().toISOString().slice(14, 23)}`)
    const path = `/v1/live?${query}${from === undefined ? '' : `&since=${encodeURIComponent(from)}`}`
    if (transport !== 'stream') return this.socket(addresses.live, path, transport)
    // As a browser's EventSource does: the address stays, the header leads.
    if (this.cursor === undefined || this.options.random.next() < 0.5) return this.stream(addresses.http, path)
    const first = `/v1/live?${query}${since === undefined ? '' : `&since=${encodeURIComponent(since)}`}`
    return this.stream(addresses.http, first, { 'last-event-id': this.cursor })
  }

  private socket(live: string, path: string, transport: Transport): Connection {
    const { hostname, port } = new URL(live)
    const protocol = transport === 'columns' ? 'weir.columns' : 'weir.json'
    let isEnded = false
    const socket = new TestSocket({ host: hostname, port: Number(port) }, path, { protocol })
    socket.onMessage = (message) => !isEnded && this.take(String(message.type), message.cursor, message)
    socket.onBinary = (bytes) => {
      if (isEnded) return
      const { cursor, items } = decodeColumns(bytes)
      this.take('readings', cursor, { items })
    }
    return {
      isOpen: () => !socket.isClosed && socket.closeCode === undefined,
      setPaused: (isPaused) => (isPaused ? socket.socket.pause() : socket.socket.resume()),
      end: () => {
        isEnded = true
        if (socket.closeCode !== undefined) this.endings.push(`${socket.closeCode} ${socket.closeReason}`)
        socket.destroy()
      },
    }
  }

  private stream(http: string, path: string, headers: Readonly<Record<string, string>> = {}): Connection {
    let isOpen = true
    let isEnded = false
    let text = ''
    let pausing: ((isPaused: boolean) => void) | undefined
    const asked = request(`${http}${path}`, { agent: false, headers }, (answer) => {
      if (answer.statusCode !== 200) {
        isOpen = answer.statusCode === 503 ? false : this.breaks(`the stream answered ${answer.statusCode}`)
        answer.resume()
        return
      }
      pausing = (isPaused) => (isPaused ? answer.pause() : answer.resume())
      answer.setEncoding('utf8').on('data', (part: string) => {
        const blocks = (text + part).split('\n\n')
        text = blocks.pop()!
        for (const block of blocks) {
          const match = /^event: (.*)\n(?:id: (.*)\n)?data: (.*)$/.exec(block)
          if (match && !isEnded) this.take(match[1]!, match[2], JSON.parse(match[3]!) as Record<string, unknown>)
        }
      })
      answer.on('close', () => {
        isOpen = false
      })
      answer.on('error', () => {})
    })
    asked.on('error', () => {
      isOpen = false
    })
    asked.end()
    return {
      isOpen: () => isOpen,
      setPaused: (isPaused) => pausing?.(isPaused),
      end: () => {
        isEnded = true
        asked.destroy()
      },
    }
  }

  private take(type: string, cursor: unknown, data: Record<string, unknown>): void {
    if (type === 'readings') {
      this.countFrame()
      for (const item of data.items as ToldItem[]) this.hear(item, false)
    } else if (type === 'revision') {
      this.revisions++
      this.hear(data as unknown as ToldItem, true)
      if (!(Number(data.from) <= Number(data.observedAt) && Number(data.observedAt) < Number(data.to)))
        this.breaks(`a revision whose range leaves it out: ${JSON.stringify(data)}`)
    } else if (type === 'gap') this.gaps.push(data)
    else if (type === 'anomaly') this.hearAnomaly(String((data.anomaly as { id?: string } | undefined)?.id ?? data.id))
    else if (type === 'bye') this.endings.push(String(data.reason))
    else if (type === 'caught-up') {
      if (!this.isStarted) this.options.onStarted()
      this.isStarted = true
      this.heard.isLive = true
    } else this.breaks(`a frame of type ${type}`)
    if (typeof cursor === 'string' && cursor !== '') this.cursor = cursor
  }

  private hear({ device, metric, observedAt, value, text }: ToldItem, isRevision: boolean): void {
    const series = `${device} ${metric}`
    const key = `${series} ${observedAt}`
    const known = this.told.get(key)
    const said = value ?? text!
    if (known) {
      known.times++
      known.value = said
    } else this.told.set(key, { value: said, times: 1 })
    const before = this.heard.newest.get(series)
    const isOlder =
      before !== undefined &&
      (observedAt < before.observedAt || (observedAt === before.observedAt && said !== before.value))
    if (isOlder && !isRevision)
      this.breaks(`${key} came as new behind ${JSON.stringify(before)}; ${this.journey.at(-1)}`)
    if (!before || observedAt >= before.observedAt) this.heard.newest.set(series, { observedAt, value: said })
    const shown = this.shown.get(series)
    if (this.isLatest && !isRevision && shown && observedAt < shown.observedAt)
      this.breaks(
        `${series} went back from ${shown.observedAt} to ${observedAt}; ${this.journey.slice(-3).join(' | ')}`,
      )
    if (!shown || observedAt >= shown.observedAt) this.shown.set(series, { observedAt, value: said })
  }

  private countFrame(): void {
    const { heard } = this
    if (!this.isLatest || !heard.isLive) return
    heard.frames++
    const tookMs = performance.now() - heard.openedAt
    if (heard.frames > framesAllowed(tookMs)) this.breaks(`${heard.frames} frames in ${Math.round(tookMs)} ms`)
  }

  private hearAnomaly(id: string): void {
    if (this.heard.anomalies.has(id)) this.breaks(`the anomaly ${id} came twice on one connection`)
    this.heard.anomalies.add(id)
    this.anomalies.add(id)
  }

  private breaks(what: string): false {
    this.broken ??= what
    return false
  }
}
