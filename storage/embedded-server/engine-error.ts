// An error as ClickHouse says it over HTTP: a code, a name, a sentence, and the status that goes with the code.

export class EngineError extends Error {
  override readonly name = 'EngineError'
  readonly code: number
  constructor(code: number, type: string, message: string) {
    super(`Code: ${code}. DB::Exception: ${message}. (${type})`)
    this.code = code
  }
}

/** What ClickHouse's interface does and ours does not: refused, never ignored. */
export function notSupported(what: string): EngineError {
  return new EngineError(48, 'NOT_IMPLEMENTED', `${what} is not supported by the embedded server`)
}

/** From whatever chdb, or an abort, throws. */
export function engineErrorFrom(error: unknown): Error {
  if (error instanceof EngineError) return error
  const message = error instanceof Error ? error.message : String(error)
  const match = /Code:\s*(\d+)\.\s*(?:DB::Exception:\s*)?([\s\S]*)$/.exec(message)
  if (match) {
    const known = new EngineError(Number(match[1]), '', '')
    known.message = `Code: ${match[1]}. DB::Exception: ${match[2]!.trim()}`
    return known
  }
  if (error instanceof Error && error.name === 'AbortError') {
    return new EngineError(394, 'QUERY_WAS_CANCELLED', 'The client went away')
  }
  const errno = (error as NodeJS.ErrnoException | undefined)?.code
  if (errno === 'ENOSPC' || errno === 'EDQUOT') return new EngineError(243, 'NOT_ENOUGH_SPACE', message)
  if (errno?.startsWith('Z_')) return new EngineError(354, 'ZLIB_INFLATE_FAILED', `The body is not gzip: ${message}`)
  if (errno === 'ECONNRESET' || errno === 'ERR_STREAM_PREMATURE_CLOSE') {
    return new EngineError(394, 'QUERY_WAS_CANCELLED', 'The client went away')
  }
  return new EngineError(1002, 'UNKNOWN_EXCEPTION', message)
}

/** `exceptionCodeToHTTPStatus` of ClickHouse's HTTPHandler, for the codes that can occur here. */
const statuses: readonly (readonly [number, readonly number[]])[] = [
  [
    400,
    [
      6, 15, 25, 26, 27, 36, 38, 41, 42, 43, 44, 50, 53, 62, 69, 70, 72, 73, 117, 130, 131, 248, 354, 376, 427, 456,
      457,
    ],
  ],
  [401, [194]],
  [403, [164, 192, 193, 291, 497, 516]],
  [404, [46, 47, 56, 60, 63, 81, 115]],
  [408, [159]],
  [413, [464]],
  [501, [48]],
  [503, [202, 209, 236, 439]],
]
const statusByCode = new Map(statuses.flatMap(([status, codes]) => codes.map((code) => [code, status] as const)))

export function statusOfCode(code: number): number {
  return statusByCode.get(code) ?? 500
}
