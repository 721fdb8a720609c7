// One WebSocket of /v1/live: the subscription of its address, and those that its frames ask for, in one bounded queue. Frames are those of the
// server-sent events, as JSON text or, where asked for, readings as columns. docs/live.md is its protocol.
import { z } from 'zod'
import type { ViewerSession } from '../../runtime/access/viewer-access.ts'
import { LimitError, RequestError } from '../../runtime/errors.ts'
import type { ServerSocket, SocketHandler } from '../../runtime/web-server.ts'
import { filterNamesMax } from '../parameters.ts'
import type { LiveFrame } from './frame.ts'
import type { ByeReason, Outbox, ViewerTransport } from './outbox.ts'
import { type Asked, tooManyViewers } from './subscription.ts'
import type { Viewer } from './viewer.ts'

/** What sockets ask of the server that holds them. */
export interface LiveSocketHost {
  readonly nowMs: () => number
  connect(transport: ViewerTransport, session: ViewerSession | undefined): Outbox
  /** Throws a RequestError for what is not usable. */
  parse(parameters: Readonly<Record<string, string | string[]>>): Asked
  /** Throws a LimitError when there is no room. */
  open(asked: Asked, outbox: Outbox, id: string): Viewer
  closed(socket: LiveSocket): void
  onClose(code: number): void
}

export const socketLimits = {
  /** Subscriptions of one socket. */
  subscriptionsMax: 32,
  idLengthMax: 128,
  messageBytesMax: 64 * 1024,
  /** Names in a message, well above those that there are: looking at each of thousands would hold everybody up. */
  fieldsMax: 32,
  /** Frames of a client in a window of time. */
  framesMax: 200,
  framesWindowMs: 10_000,
  /** Of these, subscriptions that may begin: each is a question to the log, or the table, and to every series. */
  beginningsMax: 64,
  /** Sent and not yet taken; above it the outbox keeps what comes. */
  unsentBytesMax: 64 * 1024,
  /** The same where errors are owed, which go past the outbox: who asks on and reads nothing is let go. */
  unsentErrorBytesMax: 1024 * 1024,
} as const

/** Why we close: docs/live.md explains each. */
export const closeCodes = {
  stopping: 1001,
  size: 1009,
  failed: 1011,
  malformed: 4000,
  slow: 4013,
  flood: 4029,
  'session-over': 4401,
} as const

const idSchema = z.union([z.string().min(1).max(socketLimits.idLengthMax), z.number().int()])
const texts = z.union([z.string(), z.number(), z.boolean()])
const frameSchema = z.discriminatedUnion('type', [
  z.looseObject({ type: z.literal('subscribe'), id: idSchema }),
  z.strictObject({ type: z.literal('unsubscribe'), id: idSchema }),
])
const parameterSchema = z.union([texts.transform(String), z.array(z.string())])

export class LiveSocket implements SocketHandler, ViewerTransport {
  private readonly host: LiveSocketHost
  private readonly asked: Asked | undefined
  private readonly wantsColumns: boolean
  private readonly outbox: Outbox
  /** By the JSON of the id. */
  private readonly viewers = new Map<string, Viewer>()
  private socket: ServerSocket | undefined
  private framesInWindow = 0
  private beginningsInWindow = 0
  private windowEndsMs = 0

  /** `asked`: what the address subscribes to; `session`: what its authority rests on, when it is one. */
  constructor(host: LiveSocketHost, asked: Asked | undefined, wantsColumns: boolean, session?: ViewerSession) {
    this.host = host
    this.asked = asked
    this.wantsColumns = wantsColumns
    this.outbox = host.connect(this, session)
  }

  opened(socket: ServerSocket): void {
    this.socket = socket
    if (this.asked === undefined) return
    try {
      this.host.open(this.asked, this.outbox, '')
    } catch (error) {
      if (!(error instanceof LimitError)) throw error
      // The last place was taken between the upgrade and here.
      this.close('failed')
    }
  }

  drained(): void {
    if (this.isWritable()) this.outbox.onWritable()
  }

  ended(): void {
    this.socket = undefined
    this.outbox.leave()
    this.host.closed(this)
  }

  /** In order: each viewer gets its `bye`. */
  finish(reason: ByeReason): void {
    if (this.outbox.viewerCount > 0) this.outbox.bye(reason)
    else this.end(reason)
  }

  // --- frames of the client ---

  message(bytes: Uint8Array, isBinary: boolean): void {
    if (this.socket === undefined || this.outbox.isGone) return
    if (bytes.length > socketLimits.messageBytesMax) this.close('size')
    else if (!this.isWithinRate()) this.close('flood')
    else this.take(isBinary ? undefined : parseFrame(bytes))
  }

  private take(frame: z.infer<typeof frameSchema> | undefined): void {
    if (frame === undefined) {
      this.close('malformed')
      return
    }
    const id = JSON.stringify(frame.id)
    if (frame.type === 'subscribe') this.subscribe(id, frame)
    else this.unsubscribe(id)
  }

  private subscribe(id: string, { type: _type, id: _id, ...given }: Readonly<Record<string, unknown>>): void {
    this.forgetGone()
    try {
      if (this.viewers.has(id))
        throw refusal('id-in-use', `There is a subscription ${id} on this socket: unsubscribe it first.`)
      if (this.viewers.size >= socketLimits.subscriptionsMax) {
        const { subscriptionsMax } = socketLimits
        throw refusal(
          'subscriptions-max',
          `This socket holds ${subscriptionsMax} subscriptions, the most that one may.`,
        )
      }
      this.requireRate()
      const asked = this.host.parse(parametersOf(given))
      this.viewers.set(id, this.host.open(asked, this.outbox, id))
    } catch (error) {
      if (error instanceof LimitError) this.refuse(id, tooManyViewers(error.message))
      else if (error instanceof RequestError) this.refuse(id, error)
      else throw error
    }
  }

  private unsubscribe(id: string): void {
    const viewer = this.viewers.get(id)
    if (viewer === undefined || viewer.gone.aborted) {
      this.refuse(id, refusal('unknown-subscription', `There is no subscription ${id} on this socket.`))
      return
    }
    this.viewers.delete(id)
    viewer.unsubscribe()
  }

  private refuse(id: string, { slug, title, message, status, errors }: RequestError): void {
    if ((this.socket?.bufferedBytes ?? 0) > socketLimits.unsentErrorBytesMax) {
      this.close('slow')
      return
    }
    const problem = { type: 'error', problem: `/problems/${slug}`, title, status, detail: message, errors }
    this.socket?.send(`{"id":${id},${JSON.stringify(problem).slice(1)}`, false)
  }

  private forgetGone(): void {
    for (const [id, viewer] of this.viewers) if (viewer.gone.aborted) this.viewers.delete(id)
  }

  private isWithinRate(): boolean {
    const now = this.host.nowMs()
    if (now >= this.windowEndsMs) {
      this.windowEndsMs = now + socketLimits.framesWindowMs
      this.framesInWindow = 0
      this.beginningsInWindow = 0
    }
    return ++this.framesInWindow <= socketLimits.framesMax
  }

  /** Throws a RequestError when too many subscriptions were begun in this window. */
  private requireRate(): void {
    const { beginningsMax, framesWindowMs } = socketLimits
    if (++this.beginningsInWindow <= beginningsMax) return
    const waitS = Math.ceil((this.windowEndsMs - this.host.nowMs()) / 1_000)
    const detail =
      `This socket began ${beginningsMax} subscriptions within ${framesWindowMs / 1_000} s, the most that one may. ` +
      `Those that it has go on; ask again in ${Math.max(1, waitS)} s.`
    throw new RequestError(429, 'subscription-rate', 'Too many subscriptions in too short a time', detail)
  }

  // --- frames to the client ---

  sizeOf(frame: LiveFrame, viewer: Viewer): number {
    return frame.socketBytes(viewer.id, this.wantsColumns).bytes.length
  }

  write(frame: LiveFrame, viewer: Viewer): boolean {
    const { socket } = this
    if (socket === undefined) return true
    const { bytes, isBinary } = frame.socketBytes(viewer.id, this.wantsColumns)
    socket.send(bytes, isBinary)
    return this.isWritable()
  }

  together(write: () => void): void {
    if (this.socket) this.socket.cork(write)
    else write()
  }

  end(reason: ByeReason): void {
    this.close(reason === 'unsubscribed' ? 'failed' : reason)
  }

  private isWritable(): boolean {
    return (this.socket?.bufferedBytes ?? 0) < socketLimits.unsentBytesMax
  }

  private close(cause: keyof typeof closeCodes): void {
    const { socket } = this
    if (socket === undefined) return
    this.host.onClose(closeCodes[cause])
    socket.end(closeCodes[cause], cause)
  }
}

function parseFrame(bytes: Uint8Array): z.infer<typeof frameSchema> | undefined {
  let given: unknown
  try {
    given = JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
  if (typeof given !== 'object' || given === null || Object.keys(given).length > socketLimits.fieldsMax)
    return undefined
  const parsed = frameSchema.safeParse(given)
  return parsed.success ? parsed.data : undefined
}

/** As they would stand in an address. */
function parametersOf(given: Readonly<Record<string, unknown>>): Record<string, string | string[]> {
  const parameters: Record<string, string | string[]> = {}
  for (const [name, value] of Object.entries(given)) {
    const isLong = Array.isArray(value) && value.length > filterNamesMax
    const parsed = isLong ? undefined : parameterSchema.safeParse(value)
    if (!parsed?.success) {
      const message = `must be a text, a number, true, false, or a list of up to ${filterNamesMax} texts`
      throw new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `${name.slice(0, 60)} ${message}`, [
        { path: name.slice(0, 60), message },
      ])
    }
    parameters[name] = parsed.data
  }
  return parameters
}

function refusal(slug: string, message: string): RequestError {
  return new RequestError(409, slug, 'This can’t be done on this socket', message)
}
