// The accepter over a log whose appends the test decides on, for the tests of accept.ts.
import { expect } from 'vitest'
import type { EventLog, LogState, LogTopic } from '../domain/event-log.ts'
import { RowCursor } from '../domain/row-format.ts'
import { createInstruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'
import { type Accepter, createAccepter } from './accept.ts'

export const startedAt = 1_800_000_000_000_000

interface Append {
  readonly topic: LogTopic
  readonly partition: number
  readonly rows: Buffer
  readonly count: number
  readonly receivedAt: number
  resolve(): void
  reject(error: unknown): void
}

/** Appends wait for the test's word, or pass at once. */
export class ScriptedLog implements Pick<EventLog, 'partitions' | 'append' | 'receivedAtMax' | 'state' | 'onState'> {
  readonly partitions: number
  readonly appends: Append[] = []
  /** Asked for each append: undefined waits for the test. */
  answer: (append: Append, place: number) => 'durable' | Error | undefined = () => 'durable'
  receivedAtHighest = 0

  constructor(partitions = 4) {
    this.partitions = partitions
  }

  append(topic: LogTopic, partition: number, rows: Uint8Array, count: number, receivedAt: number): Promise<number> {
    return new Promise((resolve, reject) => {
      if (topic === 'readings') expect(receivedAt).toBe(lastReceivedAt(rows))
      const place = this.appends.length
      const append = {
        topic,
        partition,
        rows: Buffer.from(rows),
        count,
        receivedAt,
        reject,
        // The rows belong to the log until now: they must still be what they were.
        resolve: () => {
          expect(Buffer.compare(Buffer.from(rows), append.rows)).toBe(0)
          resolve(place)
        },
      }
      this.appends.push(append)
      const answer = this.answer(append, place)
      if (answer === 'durable') append.resolve()
      else if (answer) reject(answer)
    })
  }

  private standing: LogState = { state: 'ok' }
  private readonly listeners: ((state: LogState) => void)[] = []

  state(): LogState {
    return this.standing
  }

  onState(listener: (state: LogState) => void): void {
    this.listeners.push(listener)
  }

  turn(state: LogState): void {
    this.standing = state
    for (const listener of this.listeners) listener(state)
  }

  receivedAtMax(): number {
    return this.receivedAtHighest
  }
}

const opened: Accepter[] = []

export function startAccepter({ log = new ScriptedLog(), nowMicros = (): number => startedAt } = {}) {
  const said: string[] = []
  const logger: Logger = {
    error: (_, message) => said.push(`error ${message}`),
    warn: (_, message) => said.push(`warn ${message}`),
    info: (_, message) => said.push(`info ${message}`),
    debug: () => {},
    child: () => logger,
  }
  const instruments = createInstruments('test')
  const accepter = createAccepter({ log: log as unknown as EventLog, clock: { nowMicros }, logger, instruments })
  opened.push(accepter)
  const route = accepter.route('default', 'd1', 'json', 'devices/d1/telemetry')
  const accept = (payload: string | Buffer, to = route): number => {
    const bytes = Buffer.concat([Buffer.from('before'), Buffer.from(payload as string), Buffer.from('after')])
    const cycle = accepter.accept(to, bytes, 6, bytes.length - 5)
    // The socket's buffer is used again at once.
    bytes.fill(0)
    return cycle
  }
  const settled = () => accepter.drain(AbortSignal.timeout(60_000))
  return { accepter, log, route, accept, said, settled, instruments }
}

export async function closeAccepters(): Promise<void> {
  for (const accepter of opened.splice(0)) await accepter.close()
}

function lastReceivedAt(rows: Uint8Array): number {
  const cursor = new RowCursor(rows)
  while (cursor.next());
  return cursor.receivedAt
}

export function readingsOf(log: Pick<ScriptedLog, 'appends'>) {
  return log.appends
    .filter(({ topic }) => topic === 'readings')
    .flatMap(({ rows, partition }) => {
      const readings: {
        device: string
        metric: string
        observedAt: number
        receivedAt: number
        value: unknown
        partition: number
      }[] = []
      const cursor = new RowCursor(rows)
      while (cursor.next()) {
        readings.push({
          device: cursor.device(),
          metric: cursor.metric(),
          observedAt: cursor.observedAt,
          receivedAt: cursor.receivedAt,
          value: cursor.isText() ? cursor.text() : cursor.value,
          partition,
        })
      }
      return readings
    })
}

/** The texts of each dead letter, in order of the columns; the instant left out. */
export function deadLettersOf(log: ScriptedLog) {
  return log.appends
    .filter(({ topic }) => topic === 'dead-letters')
    .flatMap(({ rows, count }) => {
      const letters = readDeadLetters(rows)
      expect(letters.length).toBe(count)
      return letters
    })
}

export function readDeadLetters(rows: Buffer) {
  const letters = []
  let at = 0
  const text = (): Buffer => {
    let length = 0
    for (let shift = 0; ; shift += 7) {
      const byte = rows[at++]!
      length |= (byte & 127) << shift
      if (byte < 128) break
    }
    at += length
    return rows.subarray(at - length, at)
  }
  while (at < rows.length) {
    const [tenant, device, id, reason, detail, metric, codec, origin] = Array.from({ length: 8 }, () =>
      text().toString(),
    )
    const receivedAt = Number(rows.readBigInt64LE(at))
    at += 8
    letters.push({ tenant, device, id, reason, detail, metric, codec, origin, receivedAt, payload: text() })
  }
  return letters
}
