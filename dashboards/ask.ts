// The questions that pages ask, all of them to the public API: whatever a page shows, a program can get too. An answer that can't be had is a
// value, because the rest of the page still has something to show.
import type {
  AnomaliesAnswer,
  AnomalyCountsAnswer,
  DeadLetterDetailAnswer,
  DeadLetterReasonsAnswer,
  DeadLettersAnswer,
  DeviceDetailAnswer,
  DevicesAnswer,
  LatestAnswer,
  PipelineAnswer,
  Problem,
  PutBackAnswer,
  ReadingsAnswer,
  ReadyAnswer,
  SeriesAnswer,
} from '../api/wire.ts'

/** The JSON of a GET of the public API, or of a POST where there is a body. An error answer may come as a throw or as its problem+json. */
export type Ask = (path: string, body?: Uint8Array) => Promise<unknown>

export type Answered<T> = { readonly ok: true; readonly value: T } | NotAnswered
/** `status` 0: the API itself could not be asked. */
export interface NotAnswered {
  readonly ok: false
  readonly status: number
  readonly detail: string
}

/** A page is worth more without its history than late: the store may hang, and what is live still works. */
const answerMsMax = 4_000
/** To put something back is worth waiting for: only an answer says what became of it. */
const putBackMsMax = 20_000

type Parameters = Readonly<Record<string, string | number | readonly string[] | undefined>>

export interface Questions {
  pipeline(): Promise<Answered<PipelineAnswer>>
  devices(parameters: Parameters): Promise<Answered<DevicesAnswer>>
  device(name: string): Promise<Answered<DeviceDetailAnswer>>
  latest(parameters: Parameters): Promise<Answered<LatestAnswer>>
  readings(parameters: Parameters): Promise<Answered<ReadingsAnswer>>
  series(parameters: Parameters): Promise<Answered<SeriesAnswer>>
  anomalies(parameters: Parameters): Promise<Answered<AnomaliesAnswer>>
  anomalyCounts(parameters: Parameters): Promise<Answered<AnomalyCountsAnswer>>
  ready(): Promise<Answered<ReadyAnswer>>
  deadLetters(parameters: Parameters): Promise<Answered<DeadLettersAnswer>>
  deadLetterReasons(): Promise<Answered<DeadLetterReasonsAnswer>>
  deadLetter(id: string): Promise<Answered<DeadLetterDetailAnswer>>
  /** An empty payload puts back what was kept; `codec`: read as another than it was sent as. */
  putBack(id: string, payload: Uint8Array, codec: string | undefined): Promise<Answered<PutBackAnswer>>
}

export function questionsTo(ask: Ask): Questions {
  const get = <T>(path: string, parameters: Parameters = {}): Promise<Answered<T>> => answer(ask, path, parameters)
  return {
    pipeline: () => get('/v1/pipeline'),
    devices: (parameters) => get('/v1/devices', parameters),
    device: (name) => get(`/v1/devices/${encodeURIComponent(name)}`),
    latest: (parameters) => get('/v1/latest', parameters),
    readings: (parameters) => get('/v1/readings', parameters),
    series: (parameters) => get('/v1/series', parameters),
    anomalies: (parameters) => get('/v1/anomalies', parameters),
    anomalyCounts: (parameters) => get('/v1/anomalies/counts', parameters),
    ready: () => get('/readyz'),
    deadLetters: (parameters) => get('/v1/dead-letters', parameters),
    deadLetterReasons: () => get('/v1/dead-letters/reasons'),
    deadLetter: (id) => get(`/v1/dead-letters/${encodeURIComponent(id)}`),
    putBack: (id, payload, codec) =>
      answer(
        (path) => ask(path, payload),
        `/v1/dead-letters/${encodeURIComponent(id)}/replay`,
        { codec },
        putBackMsMax,
      ),
  }
}

async function answer<T>(ask: Ask, path: string, parameters: Parameters, withinMs = answerMsMax): Promise<Answered<T>> {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(parameters)) {
    if (value === undefined) continue
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, String(each))
  }
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, fail) => {
    const error = Object.assign(new Error(`no answer within ${withinMs / 1_000} s`), { status: 503 })
    timer = setTimeout(() => fail(error), withinMs)
  })
  try {
    const value = await Promise.race([ask(query.size > 0 ? `${path}?${query}` : path), late])
    return isProblem(value)
      ? { ok: false, status: value.status, detail: value.detail }
      : { ok: true, value: value as T }
  } catch (error) {
    const { status, detail, message } = error as { status?: unknown; detail?: unknown; message?: unknown }
    return { ok: false, status: typeof status === 'number' ? status : 0, detail: String(detail ?? message ?? error) }
  } finally {
    clearTimeout(timer)
  }
}

function isProblem(value: unknown): value is Problem {
  const { type, status } = (value ?? {}) as Partial<Problem>
  return typeof status === 'number' && status >= 400 && typeof type === 'string'
}
