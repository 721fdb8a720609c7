// `POST /v1/telemetry/{device}`: everything that a head can tell is checked before a byte of the body is kept; the answer comes when what was sent is
// durable, all answers of one commit together.
import type { DeviceCredential } from '../domain/authority.ts'
import { isDeviceName } from '../domain/reading.ts'
import { foreignHost, foreignOrigin } from '../runtime/access/request-origin.ts'
import { RequestError } from '../runtime/errors.ts'
import type { HttpExchange } from '../runtime/web-server.ts'
import type { CodecName } from './codecs/codec.ts'
import { foreignDevice, wrongToken } from './device-auth.ts'
import { Body } from './gateway-body.ts'
import type { GatewayHost } from './gateway-host.ts'
import { contentTypes } from './gateway-payloads.ts'
import { invalidDeviceName, invalidParameter, problemAnswer, rateLimited, unavailable } from './gateway-problems.ts'
import { ingestLimits as limits } from './limits.ts'

/** Accepted, not durable yet. */
interface Waiting {
  readonly exchange: HttpExchange
  readonly cycle: number
  readonly accepted: number
  readonly deadLettered: number
  readonly deadLetterId: string
  readonly since: number
}

const json = { 'content-type': 'application/json; charset=utf-8' }
const telemetryPath = /^\/v1\/telemetry\/([^/]*)$/

export class TelemetryRequests {
  private readonly host: GatewayHost
  private readonly bodiesBytesMax: number
  /** In order of arrival, so in order of cycles. */
  private waiting: Waiting[] = []
  private readonly bodies = new Set<Body>()
  private bodiesBytes = 0

  constructor(host: GatewayHost, memoryBytesMax: number) {
    this.host = host
    this.bodiesBytesMax = Math.max(limits.bodyBytesMax, memoryBytesMax * limits.bodiesShareMax)
  }

  get nowMs(): number {
    return this.host.nowMs
  }

  /** Requests that have no answer yet. */
  get count(): number {
    return this.waiting.length + this.bodies.size
  }

  /** Of bodies that are not whole. */
  get bytes(): number {
    return this.bodiesBytes
  }

  onRequest(exchange: HttpExchange): void {
    if (!exchange.isLengthPlain()) {
      this.refuse(exchange, ambiguousLength())
      return
    }
    const known = telemetryPath.exec(exchange.path)
    const { auth, rates, origins } = this.host
    const host = exchange.header('host')
    const foreign = foreignHost(host, origins) ?? foreignOrigin(exchange.header('origin'), host, origins)
    if (foreign !== undefined || !known) {
      this.refuse(exchange, foreign ?? unknownRoute(exchange))
      return
    }
    const credential = auth.byHeader(exchange.header('authorization'))
    if (credential instanceof RequestError) {
      this.refuse(exchange, credential)
      return
    }
    const device = decoded(known[1]!)
    const problem = this.problemOfHead(exchange, device, credential)
    if (problem !== undefined) {
      this.refuse(exchange, problem)
      return
    }
    const waitMs = rates?.of(credential.tenant, device).waitMs() ?? 0
    if (waitMs > 0) {
      this.refuseForRate(exchange, waitMs)
      return
    }
    const codec = codecOf(exchange.header('content-type'))
    if (codec === undefined) {
      this.refuse(exchange, unsupportedType(exchange.header('content-type')))
      return
    }
    const announced = Number(exchange.header('content-length') || 0)
    if (announced > limits.bodyBytesMax) {
      this.refuse(exchange, bodyTooLarge())
      return
    }
    this.receive(new Body(this, { exchange, credential, device, codec, since: this.host.nowMs }))
  }

  /** A cycle is durable: everybody whose readings it holds is answered. */
  onDurable(durableCycle: number): void {
    const { waiting } = this
    let settled = 0
    while (settled < waiting.length && waiting[settled]!.cycle <= durableCycle) this.answer(waiting[settled++]!)
    if (settled > 0) this.waiting = settled === waiting.length ? [] : waiting.slice(settled)
  }

  onTick(nowMs: number): void {
    for (const body of this.bodies) if (nowMs - body.since > limits.bodyStepWithinMs) this.fail(body, bodyTooSlow())
    let late = 0
    const { waiting } = this
    while (late < waiting.length && nowMs - waiting[late]!.since > limits.durableWithinMs) {
      waiting[late++]!.exchange.answer(problemAnswer(unavailable.notDurable()))
    }
    if (late > 0) this.waiting = waiting.slice(late)
  }

  /** What is half sent is not waited for. */
  beginDrain(): void {
    for (const body of this.bodies) this.fail(body, unavailable.stopping())
  }

  /** Something of a body came: the room that it takes is counted over all of them. */
  hold(body: Body, bytes: number): boolean {
    if (body.bytes + bytes > limits.bodyBytesMax) this.fail(body, bodyTooLarge())
    else if (this.bodiesBytes + bytes > this.bodiesBytesMax) this.fail(body, unavailable.memoryUsed())
    else {
      this.bodiesBytes += bytes
      return true
    }
    return false
  }

  whole(body: Body, bytes: Buffer): void {
    this.release(body)
    const { accepter, nowMs, auth, rates } = this.host
    const { credential, device } = body
    // The log, or the memory, may have run out while the body came; the token may have been revoked.
    const refusal = auth.stands(credential) ? this.host.refusal() : wrongToken()
    if (refusal !== undefined) {
      this.refuse(body.exchange, refusal)
      return
    }
    const bucket = rates?.of(credential.tenant, device)
    const waitMs = bucket?.waitMs() ?? 0
    if (waitMs > 0) {
      this.refuseForRate(body.exchange, waitMs)
      return
    }
    const route = accepter.route(credential.tenant, device, body.codec, `/v1/telemetry/${device}`)
    const cycle = accepter.accept(route, bytes, 0, bytes.length)
    bucket?.spend(accepter.lastAccepted + accepter.lastDeadLettered)
    this.waiting.push({
      exchange: body.exchange,
      cycle,
      accepted: accepter.lastAccepted,
      deadLettered: accepter.lastDeadLettered,
      deadLetterId: accepter.lastDeadLetterId,
      since: nowMs,
    })
  }

  /** Whatever became of it: it holds nothing any more. */
  release(body: Body): void {
    this.bodies.delete(body)
    this.bodiesBytes -= body.bytes
    body.clear()
  }

  private receive(body: Body): void {
    this.bodies.add(body)
    body.exchange.onAborted(() => this.release(body))
    body.exchange.receive((bytes, isLast) => body.onBytes(bytes, isLast))
  }

  private fail(body: Body, problem: RequestError): void {
    this.release(body)
    this.refuse(body.exchange, problem)
  }

  private problemOfHead(
    exchange: HttpExchange,
    device: string,
    credential: DeviceCredential,
  ): RequestError | undefined {
    if (exchange.method !== 'POST') return wrongMethod(exchange)
    if (!isDeviceName(device)) return invalidDeviceName()
    const foreign = foreignDevice(credential, device)
    if (foreign !== undefined) return foreign
    const stray = new URLSearchParams(exchange.query).keys().next().value
    if (stray !== undefined) return invalidParameter(stray, 'is not a parameter of this route, which has none')
    const encoding = exchange.header('content-encoding')
    if (encoding !== '' && encoding.toLowerCase() !== 'identity') return unsupportedEncoding(encoding)
    if (this.count >= limits.requestsInFlightMax) return unavailable.memoryUsed()
    return this.host.refusal()
  }

  private refuseForRate(exchange: HttpExchange, waitMs: number): void {
    const { problem, headers } = rateLimited(waitMs)
    this.refuse(exchange, problem, headers)
  }

  private refuse(exchange: HttpExchange, problem: RequestError, more?: Readonly<Record<string, string>>): void {
    if (exchange.isOver) return
    this.host.events.requestRefused(problem.slug, { peer: exchange.peer, path: exchange.path.slice(0, 200) })
    const headers = { ...(problem.status === 405 && { allow: 'POST' }), ...more }
    // Whatever of a body is still to come is not read.
    exchange.answer(problemAnswer(problem, { headers, close: true }))
  }

  private answer({ exchange, accepted, deadLettered, deadLetterId }: Waiting): void {
    if (accepted > 0 || deadLettered === 0) {
      exchange.answer({ status: 200, headers: json, body: `{"accepted":${accepted},"deadLettered":${deadLettered}}` })
    } else exchange.answer(problemAnswer(nothingUsable(deadLettered, deadLetterId), { deadLetter: deadLetterId }))
  }
}

function codecOf(contentType: string): CodecName | undefined {
  if (contentType === '') return 'json'
  return contentTypes.get(contentType.split(';', 1)[0]!.trim().toLowerCase())
}

function decoded(name: string): string {
  try {
    return decodeURIComponent(name)
  } catch {
    return ''
  }
}

function unknownRoute({ path }: HttpExchange): RequestError {
  if (path === '/v1/ingest' || path === '/mqtt') {
    const detail = `${path} is a WebSocket: open it with ws://, with the headers of an upgrade.`
    return new RequestError(426, 'upgrade-required', 'A WebSocket is opened here', detail)
  }
  const detail = 'There is POST /v1/telemetry/{device} here, and the WebSockets /v1/ingest and /mqtt.'
  return new RequestError(404, 'unknown-route', 'No such route', detail)
}

function wrongMethod({ method, path }: HttpExchange): RequestError {
  const detail = `${method} is not possible on ${path.slice(0, 200)}; POST is.`
  return new RequestError(405, 'method-not-allowed', 'Not with this method', detail)
}

function unsupportedType(given: string): RequestError {
  const known = [...contentTypes.keys()].join(', ')
  const detail = `The content type ${JSON.stringify(given.slice(0, 100))} is not one of ${known}: set the header Content-Type.`
  return new RequestError(415, 'unsupported-content-type', 'Not in this format', detail)
}

function unsupportedEncoding(encoding: string): RequestError {
  const detail = `The content encoding ${JSON.stringify(encoding.slice(0, 100))} is not understood: send the body as it is.`
  return new RequestError(415, 'unsupported-content-encoding', 'Not encoded like this', detail)
}

function ambiguousLength(): RequestError {
  const detail =
    'The length of the body has to be said once: by one Content-Length, or by one Transfer-Encoding, which is chunked.'
  return new RequestError(400, 'ambiguous-length', 'It is not clear where the body ends', detail)
}

function bodyTooLarge(): RequestError {
  const detail = `A body may have ${limits.bodyBytesMax} bytes: send it in parts.`
  return new RequestError(413, 'body-too-large', 'The body is too large', detail)
}

function bodyTooSlow(): RequestError {
  const detail = `Less than ${limits.bodyStepBytes} bytes of the body came within ${limits.bodyStepWithinMs / 1000} s.`
  return new RequestError(408, 'body-too-slow', 'The body came too slowly', detail)
}

function nothingUsable(deadLettered: number, id: string): RequestError {
  const where = `GET /v1/dead-letters/${id} on the API’s port (WEIR_HTTP_PORT)`
  const detail = `None of ${deadLettered} could be used. The body is kept: ${where} says why.`
  return new RequestError(422, 'nothing-usable', 'Nothing of it could be used', detail)
}
