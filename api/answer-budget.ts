// What answers may hold in memory: how many are being made at once, and how many bytes of them wait for peers that read slowly, or that sent
// many requests down one connection before they read anything. Past it a caller is told to come again, and the process stays as it is.
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { RequestError } from '../runtime/errors.ts'
import type { ApiApp } from './context.ts'
import { asProblem } from './problems.ts'

export interface AnswerLimits {
  /** Questions that are being answered at once. */
  readonly answersMax: number
  /** Bytes of answers that were made and not yet taken; one answer of any size always goes out. */
  readonly waitingBytesMax: number
}

const answerLimits: AnswerLimits = { answersMax: 128, waitingBytesMax: 64 * 1024 * 1024 }

/** A peer that takes nothing, and sends nothing, for this long is gone. Longer than any question may take. */
export const connectionIdleMsMax = 60_000
export const connectionsMax = 4_096

/** Live viewers have limits of their own; what operators ask is always answered. */
const isCounted = (route: string | undefined): boolean => route?.startsWith('/v1/') === true && route !== '/v1/live'

export function boundAnswers(app: ApiApp, limits: AnswerLimits = answerLimits): void {
  const waiting = new Map<ServerResponse, number>()
  const bySocket = new WeakMap<Socket, Set<ServerResponse>>()
  let waitingBytes = 0

  function settle(raw: ServerResponse): void {
    waitingBytes -= waiting.get(raw) ?? 0
    waiting.delete(raw)
  }

  /** Responses behind the first of a connection have no socket yet, and never hear that it closed: so the socket is asked, once. */
  function together(socket: Socket): Set<ServerResponse> {
    const known = bySocket.get(socket)
    if (known) return known
    const responses = new Set<ServerResponse>()
    bySocket.set(socket, responses)
    socket.once('close', () => {
      for (const each of responses) settle(each)
    })
    return responses
  }

  app.addHook('onRequest', async (request, reply) => {
    if (!isCounted(request.routeOptions.url)) return
    if (waiting.size >= limits.answersMax) {
      throw busy(`${limits.answersMax} questions are being answered already, the most there may be at once.`)
    }
    const { raw } = reply
    const responses = together(request.raw.socket)
    const end = (): void => {
      responses.delete(raw)
      settle(raw)
    }
    responses.add(raw)
    waiting.set(raw, 0)
    raw.once('finish', end)
    raw.once('close', end)
  })

  app.addHook('onSend', async (_request, reply, payload) => {
    const { raw } = reply
    const bytes = typeof payload === 'string' || Buffer.isBuffer(payload) ? payload.length : 0
    const before = waiting.get(raw)
    if (before === undefined) return payload
    if (waitingBytes > 0 && waitingBytes + bytes > limits.waitingBytesMax) {
      return JSON.stringify(asProblem(reply, busy('Too many answers wait for those who asked to read them.')))
    }
    waiting.set(raw, before + bytes)
    waitingBytes += bytes
    return payload
  })
}

function busy(detail: string): RequestError {
  return new RequestError(503, 'busy', 'Too much is asked at once', `${detail} Try again in a moment.`)
}
