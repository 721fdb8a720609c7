// Puts a payload that became a dead letter back: through the gateway's own door, as any device would send it, so that it is checked, kept and
// acknowledged like everything else. This process only reads the log.
import { contentTypeOfCodec } from '../domain/payload-codecs.ts'
import { RequestError } from '../runtime/errors.ts'
import { linkSignals } from '../runtime/linked-signal.ts'

export interface PutBack {
  readonly accepted: number
  readonly deadLettered: number
}

const answerMsMax = 15_000

/** Throws a RequestError when nothing of it could be used (it is a new dead letter then), or it is not known to be kept. */
export async function putBack(
  gateway: { readonly url: string | undefined; readonly token: string | undefined },
  { device, codec, payload }: { readonly device: string; readonly codec: string; readonly payload: Uint8Array },
  signal: AbortSignal,
): Promise<PutBack> {
  const contentType = contentTypeOfCodec[codec]
  if (contentType === undefined) throw withoutCodec(codec)
  if (gateway.url === undefined) throw away('No gateway is known here: it runs with the role ingest.')
  let answer: Response
  let text: string
  const patience = linkSignals([signal], answerMsMax)
  try {
    answer = await fetch(`${gateway.url}/v1/telemetry/${encodeURIComponent(device)}`, {
      method: 'POST',
      headers: { 'content-type': contentType, ...(gateway.token && { authorization: `Bearer ${gateway.token}` }) },
      body: payload as Uint8Array<ArrayBuffer>,
      signal: patience.signal,
    })
    text = await answer.text()
  } catch (error) {
    throw away(`The gateway does not answer: ${(error as Error).message}.`)
  } finally {
    patience.release()
  }
  if (answer.status === 200 && isOfType(answer, 'application/json')) return JSON.parse(text) as PutBack
  // A proxy, or something else altogether.
  if (!isOfType(answer, 'application/problem+json'))
    throw away(`What answers at ${gateway.url} is no gateway of Weir (${answer.status}).`)
  const problem = JSON.parse(text) as { title: string; detail: string; type: string; deadLetter?: string }
  // A gateway that does not know us (its admin token, or its name, is another), or asks to wait: no fault of what is put back.
  if ([401, 403, 421, 429, 503].includes(answer.status)) throw away(problem.detail)
  if (answer.status === 415) throw withoutCodec(codec)
  // The gateway sends its peers to another port, which is this one.
  const detail =
    problem.deadLetter === undefined
      ? problem.detail
      : `None of it could be used. It is kept once more: GET /v1/dead-letters/${problem.deadLetter} says why.`
  throw new RequestError(answer.status, problem.type.replace('/problems/', ''), problem.title, detail)
}

function isOfType({ headers }: Response, mediaType: string): boolean {
  return headers.get('content-type')?.startsWith(mediaType) === true
}

function withoutCodec(codec: string): RequestError {
  const detail = `There is no codec for ${JSON.stringify(codec.slice(0, 64))}: say what it is to be read as, mended where it is no such payload.`
  return new RequestError(422, 'unsupported-codec', 'No codec for it', detail)
}

/** The store has nothing to do with it, so this is no RetryableError, which says that the table is away. */
function away(why: string): RequestError {
  return new RequestError(503, 'gateway-away', 'It cannot be put back at the moment', `${why} Try again in a moment.`)
}
