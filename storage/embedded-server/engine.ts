// The only file that knows chdb: the engine on one data directory, with lanes so that neither a slow query nor a crowd of them holds up an
// insert or a cancellation. One chdb session runs one query at a time, so each running statement has a session to itself; idle sessions are
// kept by their settings, because settings and `readonly` belong to a session and the last can't be taken back.
import { randomUUID } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { type ChdbQueryStream, drainPending, Session } from 'chdb'
import { StartError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { EngineError, engineErrorFrom, notSupported } from './engine-error.ts'
import { Lane } from './lane.ts'

export type LaneName = 'query' | 'insert'

export interface Statement {
  readonly sql: string
  readonly format: string
  readonly lane: LaneName
  /** In the order in which they are to be set; `readonly` goes last by itself. */
  readonly settings: ReadonlyMap<string, string>
  /** As in `param_x`: escaped as in TSV. */
  readonly parameters: ReadonlyMap<string, string>
  readonly database: string | undefined
  /** The statement changes its session (SET, USE, a temporary table): nobody else may have it after. */
  readonly leavesTraces: boolean
  /** Ends the statement: it is killed in the engine. */
  readonly signal: AbortSignal
}

export interface Statistics {
  readonly elapsedSeconds: number
  readonly resultRows: number
  readonly resultBytes: number
}

export interface Answer extends Statistics {
  readonly bytes: Uint8Array
}

export interface EngineOptions {
  readonly directory: string
  readonly logger: Logger
  readonly memoryBytesMax: number
  readonly queriesMax?: number
  readonly queriesWaitingMax?: number
  /** More words for the engine's command line. */
  readonly engineArguments?: readonly string[]
}

const insertsMax = 2
const insertsWaitingMax = 16
const sessionsIdleMax = 16
/** Parameters are set by a statement of the session's, which has the engine's limit on its length, escapes and all. */
const parametersBytesMax = 262_144
/** Sessions that wait to be let go: chdb does so only when no statement is running that ran then. */
const sessionsClosingMax = 512
const lockWaitMs = 8_000
const killRepeatMs = 100

interface PooledSession {
  readonly session: Session
  readonly signature: string
  /** `log_comment` of everything that it runs: how a KILL finds it. */
  readonly token: string
}

export class Engine {
  private readonly lanes: Record<LaneName, Lane>
  private readonly idle: PooledSession[] = []
  private readonly running = new Set<Promise<unknown>>()
  /** Of each statement that waits or runs. */
  private readonly endings = new Set<AbortController>()
  private isStopping = false
  private control: Session | undefined
  private controlTail: Promise<unknown> = Promise.resolve()
  private closingCount = 0
  private readonly options: EngineOptions

  constructor(options: EngineOptions) {
    this.options = options
    this.lanes = {
      query: new Lane('queries', options.queriesMax ?? 4, options.queriesWaitingMax ?? 64),
      insert: new Lane('inserts', insertsMax, insertsWaitingMax),
    }
  }

  /** Waits for a directory that another process is still letting go of. */
  async open(): Promise<void> {
    const deadline = performance.now() + lockWaitMs
    for (let attempt = 0; ; attempt++) {
      try {
        this.control = new Session(this.options.directory, {
          connectionArgs: [
            `--max_server_memory_usage=${this.options.memoryBytesMax}`,
            `--mark_cache_size=${128 * 1024 ** 2}`,
            `--index_mark_cache_size=${32 * 1024 ** 2}`,
            ...(this.options.engineArguments ?? []),
          ],
        })
        break
      } catch (error) {
        if (performance.now() > deadline) {
          throw new StartError(
            `The store's directory ${this.options.directory} can't be opened: ${(error as Error).message}. ` +
              'If another process uses it, end that one or choose another data directory.',
          )
        }
        if (attempt === 0)
          this.options.logger.info({ directory: this.options.directory }, 'waiting for the store directory')
        await delay(200)
      }
    }
    await this.control.queryAsync('SELECT 1')
  }

  /** Runs to the end and gives the whole answer. */
  async run(statement: Statement): Promise<Answer> {
    return this.inLane(statement, async (session) => {
      const result = await session.queryAsync(statement.sql, { format: statement.format })
      return {
        bytes: result.bytes(),
        elapsedSeconds: result.elapsed,
        // chdb calls them read, and counts those of the answer.
        resultRows: result.rowsRead,
        resultBytes: result.bytesRead,
      }
    })
  }

  /** Gives the answer block by block, for formats of which blocks can be joined; waits while `take` does. */
  async stream(statement: Statement, take: (bytes: Uint8Array, signal: AbortSignal) => Promise<void>): Promise<void> {
    return this.inLane(statement, async (session, signal) => {
      const chunks: ChdbQueryStream = session.queryStream(statement.sql, { format: statement.format })
      for await (const chunk of chunks) await take(chunk.raw(), signal)
    })
  }

  /** A short question of our own; never waits behind people's. */
  async ask(sql: string, format = 'JSONCompactEachRow'): Promise<string> {
    const asked = this.controlTail.then(() => this.control!.queryAsync(sql, { format }))
    this.controlTail = asked.catch(() => {})
    try {
      return (await asked).text()
    } catch (error) {
      throw engineErrorFrom(error)
    }
  }

  /** Kills what still runs, waits for it to end, and lets go of the directory. */
  async close(): Promise<void> {
    this.isStopping = true
    while (this.endings.size > 0) {
      for (const ending of this.endings) ending.abort(stoppingError())
      await delay(5)
    }
    await this.controlTail
    for (const each of this.idle.splice(0)) each.session.close()
    this.control?.close()
    this.control = undefined
    await drainPending()
  }

  /** Statements that run or wait. */
  get statementCount(): number {
    return this.endings.size
  }

  private async inLane<Result>(
    statement: Statement,
    work: (session: Session, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    if (this.isStopping) throw stoppingError()
    // Not AbortSignal.any: what it makes is held weakly, and Node 20 collects it with its listeners while the statement runs.
    const ending = new AbortController()
    const end = (): void => ending.abort(statement.signal.reason)
    if (statement.signal.aborted) end()
    statement.signal.addEventListener('abort', end, { once: true })
    this.endings.add(ending)
    try {
      // ClickHouse's own name for it.
      const waitMsMax = Number(statement.settings.get('queue_max_wait_ms') ?? 0)
      const release = await this.lanes[statement.lane].enter(ending.signal, waitMsMax)
      const done = this.inSession(statement, ending.signal, work)
      this.running.add(done)
      try {
        return await done
      } finally {
        this.running.delete(done)
        release()
      }
    } finally {
      this.endings.delete(ending)
      statement.signal.removeEventListener('abort', end)
    }
  }

  private async inSession<Result>(
    statement: Statement,
    signal: AbortSignal,
    work: (session: Session, signal: AbortSignal) => Promise<Result>,
  ): Promise<Result> {
    const pooled = await this.acquire(statement)
    let isReusable = !statement.leavesTraces
    let ended: Promise<unknown> | undefined
    const kill = (): void => {
      isReusable = false
      ended = this.kill(pooled.token, () => isDone)
    }
    let isDone = false
    try {
      if (statement.parameters.size > 0) await pooled.session.queryAsync(parametersSql(statement.parameters))
      signal.throwIfAborted()
      signal.addEventListener('abort', kill, { once: true })
      return await work(pooled.session, signal)
    } catch (error) {
      throw engineErrorFrom(error)
    } finally {
      isDone = true
      signal.removeEventListener('abort', kill)
      // A kill that is still on its way must not meet the next statement of this session.
      await ended
      this.giveBack(pooled, isReusable)
    }
  }

  /** Until it has ended: the engine may not have begun it when the first KILL comes. Never SYNC, which hangs. */
  private async kill(token: string, isDone: () => boolean): Promise<void> {
    while (!isDone()) {
      await this.ask(`KILL QUERY WHERE Settings['log_comment'] = '${token}' ASYNC`).catch((error: Error) =>
        this.options.logger.warn({ error: error.message }, 'a statement could not be cancelled'),
      )
      if (!isDone()) await delay(killRepeatMs)
    }
  }

  private async acquire(statement: Statement): Promise<PooledSession> {
    const signature = JSON.stringify([statement.database ?? '', [...statement.settings].sort()])
    const at = this.idle.findIndex((each) => each.signature === signature)
    if (at >= 0 && !statement.leavesTraces) return this.idle.splice(at, 1)[0]!
    if (this.closingCount >= sessionsClosingMax) {
      throw new EngineError(202, 'TOO_MANY_SIMULTANEOUS_QUERIES', 'Too many sessions are waiting to be closed')
    }
    const token = randomUUID()
    const session = new Session(this.options.directory)
    const pooled = { session, signature, token }
    try {
      await session.queryAsync(settingsSql(statement.settings, token))
      if (statement.database !== undefined) await session.queryAsync(`USE ${quoteName(statement.database)}`)
      // After USE, which readonly refuses.
      const readonly = statement.settings.get('readonly')
      if (readonly !== undefined) await session.queryAsync(`SET readonly = ${quoteText(readonly)}`)
    } catch (error) {
      this.closeSession(session)
      throw engineErrorFrom(error)
    }
    return pooled
  }

  private giveBack(pooled: PooledSession, isReusable: boolean): void {
    if (isReusable && !this.isStopping) this.idle.push(pooled)
    else this.closeSession(pooled.session)
    if (this.idle.length > sessionsIdleMax) this.closeSession(this.idle.shift()!.session)
  }

  private closeSession(session: Session): void {
    this.closingCount++
    session.close()
    void Promise.allSettled([...this.running]).then(() => this.closingCount--)
  }
}

function stoppingError(): EngineError {
  return new EngineError(236, 'ABORTED', 'The server is stopping')
}

function settingsSql(settings: ReadonlyMap<string, string>, token: string): string {
  const parts: string[] = []
  for (const [name, value] of settings) {
    if (name !== 'readonly' && name !== 'log_comment') parts.push(`${quoteName(name)} = ${quoteText(value)}`)
  }
  return `SET ${[...parts, `log_comment = ${quoteText(token)}`].join(', ')}`
}

function parametersSql(parameters: ReadonlyMap<string, string>): string {
  const sql = `SET ${[...parameters].map(([name, value]) => `param_${name} = ${quoteText(value)}`).join(', ')}`
  if (Buffer.byteLength(sql) > parametersBytesMax) {
    throw notSupported(`More than ${parametersBytesMax} bytes of parameters (a quote or backslash counts twice)`)
  }
  return sql
}

export function quoteText(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&').replaceAll('\0', '\\0')}'`
}

export function quoteName(name: string): string {
  return `\`${name.replace(/[\\`]/g, '\\$&')}\``
}
