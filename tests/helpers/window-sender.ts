// A sender over /v1/ingest as the world has them: batches of any size, cut anywhere on their way, pauses, sockets that end in the middle. Now and then it
// ignores the window. Of every reading that it sent it knows what it was told: kept, nothing, or that it was beyond the window.
import type { Random } from './random.ts'
import { pause } from './wait-for.ts'
import { type Address, clientFrame, ingestFrame, opcodes, TestSocket } from './websocket.ts'

/** `unknown` may be in the table, `kept` must be, `refused` must not be. */
export type Fate = 'unknown' | 'kept' | 'refused'

export interface WindowSenderOptions {
  readonly device: string
  readonly random: Random
  /** Asked at each connection: ports change. Undefined: nobody is there now. */
  readonly address: () => Address | undefined
  /** A JSON object: the reading of this number, which its `ts` tells. */
  readonly payload: (index: number) => string
}

interface Message {
  readonly id: number
  /** Numbers of its readings; none: it is of no use, and is to be rejected. */
  readonly indexes: readonly number[]
}

const readingsAMessageMax = 5
const batchesMax = 15
const poisonShare = 0.03

export class WindowSender {
  readonly device: string
  /** By the number of a reading. */
  readonly fates: Fate[] = []
  readonly deadLetters: string[] = []
  kept = 0
  connections = 0
  /** Sockets that were closed because they ignored the window. */
  overruns = 0
  /** What the other side said that breaks the protocol: a test must find this undefined. */
  broken: string | undefined
  private readonly options: WindowSenderOptions
  /** What a lost connection left unsettled, to be sent again. */
  private again: (readonly number[])[] = []
  private isStopped = false
  private readonly running: Promise<void>

  constructor(options: WindowSenderOptions) {
    this.options = options
    this.device = options.device
    this.running = this.run()
  }

  async stop(): Promise<void> {
    this.isStopped = true
    await this.running
  }

  private async run(): Promise<void> {
    const { random, address } = this.options
    while (!this.isStopped) {
      const there = address()
      const talk = there && new Talk(there, this.device, random)
      while (talk && !talk.isOver && talk.window === 0 && !this.isStopped) await pause(5)
      if (talk && !talk.isOver && talk.window > 0) {
        this.connections++
        await this.talk(talk)
      }
      talk?.socket.destroy()
      if (talk) this.conclude(talk)
      await pause(random.between(0, 60))
    }
  }

  private async talk(talk: Talk): Promise<void> {
    const { random } = this.options
    for (let batches = random.between(1, batchesMax); batches > 0 && !this.isStopped && !talk.isOver; ) {
      const room = talk.window - talk.unsettled
      if (room > 0) {
        batches--
        const most = random.next() < 0.15 ? talk.window : random.between(1, 16)
        await this.send(talk, Math.min(room, most), true)
        if (random.next() < 0.1) await talk.deafFor(random.between(10, 300))
      }
      await pause(random.between(0, 30))
      this.hear(talk)
    }
    const ending = this.isStopped ? 0 : random.between(0, 3)
    if (ending === 0) return
    // Beyond the window in one go, with what was never sent before.
    if (ending > 1 && !talk.isOver) {
      talk.isOverrunning = true
      await this.send(talk, talk.window + random.between(1, talk.window * 2), false)
    }
    while (!talk.isOver && talk.unsettled > 0 && !this.isStopped) await pause(5)
  }

  private async send(talk: Talk, messages: number, inPieces: boolean): Promise<void> {
    const { random, payload } = this.options
    const frames: Buffer[] = []
    for (let i = 0; i < messages; i++) {
      const isPoison = inPieces && random.next() < poisonShare
      const indexes = isPoison ? [] : (inPieces && this.again.shift()) || this.fresh(inPieces)
      frames.push(frameOf(talk.say(indexes), indexes.map(payload), random))
    }
    const all = Buffer.concat(frames)
    const cuts = inPieces ? Array.from({ length: random.between(0, 2) }, () => random.between(0, all.length)) : []
    let at = 0
    for (const cut of [...cuts.toSorted((a, b) => a - b), all.length]) {
      if (cut > at) talk.socket.socket.write(all.subarray(at, cut))
      at = cut
      if (cut < all.length) await pause(random.between(0, 3))
    }
    this.hear(talk)
  }

  private fresh(isMany: boolean): number[] {
    const { length } = this.fates
    const count = isMany ? this.options.random.between(1, readingsAMessageMax) : 1
    return Array.from({ length: count }, (_, i) => {
      this.fates.push('unknown')
      return length + i
    })
  }

  private hear(talk: Talk): void {
    this.broken ??= talk.broken
    for (const index of talk.keptIndexes.splice(0)) {
      if (this.fates[index] !== 'kept') this.kept++
      this.fates[index] = 'kept'
    }
    this.deadLetters.push(...talk.deadLetters.splice(0))
  }

  private conclude(talk: Talk): void {
    this.hear(talk)
    const unsettled = talk.sent.slice(talk.settled).map(({ indexes }) => indexes)
    let candidates = unsettled
    if (talk.socket.closeCode === 4008 && talk.isOverrunning) {
      this.overruns++
      // What it was told before the close is all that was settled: exactly the window may have been taken beyond it.
      for (const index of unsettled.slice(talk.window).flat()) this.fates[index] = 'refused'
      candidates = unsettled.slice(0, talk.window)
    } else if (talk.socket.closeCode !== undefined && talk.socket.closeCode !== 1001)
      this.broken ??= `closed with ${talk.socket.closeCode} ${talk.socket.closeReason}`
    if (this.options.random.next() < 0.5) this.again = [...candidates.filter(({ length }) => length > 0), ...this.again]
  }
}

/** One socket. */
class Talk {
  readonly socket: TestSocket
  readonly sent: Message[] = []
  /** Of `sent`, from its beginning: acknowledged or rejected. */
  settled = 0
  /** 0: it has not said hello. */
  window = 0
  isOverrunning = false
  broken: string | undefined
  readonly keptIndexes: number[] = []
  readonly deadLetters: string[] = []
  private readonly random: Random
  private nextId: number

  constructor(address: Address, device: string, random: Random) {
    this.random = random
    this.nextId = random.between(0, 1_000)
    this.socket = new TestSocket(address, `/v1/ingest?device=${device}`)
    this.socket.onMessage = (message) => this.hear(message)
  }

  get isOver(): boolean {
    return this.socket.isClosed || this.socket.closeCode !== undefined
  }

  get unsettled(): number {
    return this.sent.length - this.settled
  }

  /** Notes a message, and returns its id. */
  say(indexes: readonly number[]): number {
    const id = this.nextId
    // Ascending is all that they have to be.
    this.nextId += this.random.next() < 0.1 ? this.random.between(2, 1_000) : 1
    this.sent.push({ id, indexes })
    return id
  }

  /** Reads nothing for so long. */
  async deafFor(ms: number): Promise<void> {
    this.socket.socket.pause()
    await pause(ms)
    this.socket.socket.resume()
  }

  private hear({ type, window, upTo, id, deadLetter }: Record<string, unknown>): void {
    if (type === 'hello') this.window = Number(window)
    else if (type === 'ack') this.acknowledge(Number(upTo))
    else if (type === 'reject') this.reject(Number(id), deadLetter)
    else this.broken ??= `a frame of type ${type}`
  }

  private acknowledge(upTo: number): void {
    const before = this.settled
    for (let next = this.sent[before]; next && next.id <= upTo; next = this.sent[this.settled]) {
      if (next.indexes.length === 0) this.broken ??= `${next.id} is of no use and was acknowledged`
      this.keptIndexes.push(...next.indexes)
      this.settled++
    }
    if (this.settled === before || this.sent[this.settled - 1]!.id !== upTo)
      this.broken ??= `an acknowledgement up to ${upTo}, which was not next`
  }

  private reject(id: number, deadLetter: unknown): void {
    const next = this.sent[this.settled]
    if (next?.id !== id || next.indexes.length > 0) this.broken ??= `${id} was rejected, and should not have been`
    if (typeof deadLetter === 'string') this.deadLetters.push(deadLetter)
    else this.broken ??= `${id} was rejected without a dead letter`
    this.settled++
  }
}

/** As JSON text, JSON in a binary frame, or NDJSON in one. */
function frameOf(id: number, payloads: readonly string[], random: Random): Buffer {
  const form = random.between(0, 2)
  if (payloads.length === 0) return clientFrame(opcodes.binary, ingestFrame(id, 0, '', '{"v": '))
  if (form === 2) return clientFrame(opcodes.binary, ingestFrame(id, 1, '', payloads.join('\n')))
  const json = payloads.length === 1 ? payloads[0]! : `[${payloads.join(',')}]`
  if (form === 1) return clientFrame(opcodes.binary, ingestFrame(id, 0, '', json))
  return clientFrame(opcodes.text, Buffer.from(`{"id":${id},"payload":${json}}`))
}
