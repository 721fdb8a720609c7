// The log, for viewers that catch up: some chunks at a time, out of the ring of the newest while it reaches back. A viewer that takes its time holds what
// it was handed, not what was read: the rest is read again.
import type { Chunk, EventLog } from '../../domain/event-log.ts'
import type { ChunkRing } from './chunk-ring.ts'
import type { LiveCursor } from './cursor.ts'
import { slowMs } from './table-pages.ts'

export interface LogPagesOptions {
  readonly log: Pick<EventLog, 'tail'>
  readonly ring: ChunkRing
}

/** Where a viewer stands; whoever is handed chunks moves it on. */
interface Place {
  readonly cursor: LiveCursor
}

/** Chunks that a viewer takes at once; larger ones by themselves. */
const chunkBytesAtOnce = 128 * 1024

export class LogPages {
  private readonly options: LogPagesOptions
  private turns: Promise<void> = Promise.resolve()

  constructor(options: LogPagesOptions) {
    this.options = options
  }

  /** From the ring while it reaches back, else from the log. */
  async *chunks(frames: Place, signal: AbortSignal): AsyncGenerator<readonly Chunk[]> {
    const { ring } = this.options
    let number = ring.reach(frames.cursor.position)
    while (number !== undefined && !signal.aborted) {
      const chunks: Chunk[] = []
      let bytes = 0
      let next = ring.at(number)
      if (next === undefined || next === 'gone') break
      while (next !== undefined && next !== 'gone' && bytes < chunkBytesAtOnce) {
        chunks.push(next)
        bytes += next.rows.length
        next = ring.at(++number)
      }
      // Memory never waits, and the event loop would wait for all of it, once a viewer.
      if (next !== undefined && next !== 'gone') await this.turn()
      yield chunks
    }
    while (!signal.aborted && (yield* this.logFrom(frames, signal)) === 'let-go');
  }

  /** A viewer that takes its time holds nothing of the log but what it was handed: the rest is read again. */
  private async *logFrom(frames: Place, signal: AbortSignal): AsyncGenerator<readonly Chunk[], 'let-go' | undefined> {
    const tail = this.options.log.tail('readings', frames.cursor.position, signal)[Symbol.asyncIterator]()
    let isLetGo = false
    try {
      for (;;) {
        const read = await tail.next()
        if (read.done) return undefined
        let rest = read.value
        const letGo = (): void => {
          isLetGo = true
          rest = []
          void tail.return?.().catch(() => {})
        }
        while (rest.length > 0) {
          const some = upToBytes(rest, chunkBytesAtOnce)
          rest = rest.slice(some.length)
          const timer = setTimeout(letGo, slowMs)
          try {
            yield some
          } finally {
            clearTimeout(timer)
          }
          if (isLetGo) return 'let-go'
          if (rest.length > 0) await this.turn()
        }
      }
    } finally {
      await tail.return?.()
    }
  }

  /** Of all viewers that are far behind, one goes on in each turn of the event loop. */
  private turn(): Promise<void> {
    this.turns = this.turns.then(() => new Promise((go) => setImmediate(go)))
    return this.turns
  }
}

/** The first of these chunks, at least one, that have about so many bytes together. */
function upToBytes(chunks: readonly Chunk[], bytesMax: number): readonly Chunk[] {
  let [end, bytes] = [0, 0]
  while (end < chunks.length && bytes < bytesMax) bytes += chunks[end++]!.rows.length
  return chunks.slice(0, end)
}
