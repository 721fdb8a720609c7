// What an error of the store makes its caller do, decided once and by code: RetryableError (away, slow, full: the same again later),
// RejectedError (the store looked at it and said no), anything else is a bug and goes on as it is.
import { RetryableError } from '../runtime/errors.ts'

/** The store refused this statement or these rows; the same again would be refused again. */
export class RejectedError extends Error {
  override readonly name = 'RejectedError'
  /** ClickHouse's number, as in `Code: 62.` */
  readonly code: number
  /** ClickHouse's name of it, as in `SYNTAX_ERROR`. */
  readonly type: string
  constructor(code: number, type: string, message: string, cause: unknown) {
    super(message, { cause })
    this.code = code
    this.type = type
  }
}

/** ClickHouse's codes for what passes by itself, or once somebody has made room. */
const retryableCodes = new Set([
  3, // UNEXPECTED_END_OF_FILE
  74, // CANNOT_READ_FROM_FILE_DESCRIPTOR
  75, // CANNOT_WRITE_TO_FILE_DESCRIPTOR
  76, // CANNOT_OPEN_FILE
  159, // TIMEOUT_EXCEEDED
  192, // UNKNOWN_USER: the secret of a server that has just been made anew
  193, // WRONG_PASSWORD
  194, // REQUIRED_PASSWORD
  202, // TOO_MANY_SIMULTANEOUS_QUERIES
  203, // NO_FREE_CONNECTION
  209, // SOCKET_TIMEOUT
  210, // NETWORK_ERROR
  236, // ABORTED: the server is stopping
  241, // MEMORY_LIMIT_EXCEEDED
  242, // TABLE_IS_READ_ONLY
  243, // NOT_ENOUGH_SPACE
  252, // TOO_MANY_PARTS
  319, // UNKNOWN_STATUS_OF_INSERT
  394, // QUERY_WAS_CANCELLED
  425, // SYSTEM_ERROR
  439, // CANNOT_SCHEDULE_TASK
  473, // DEADLOCK_AVOIDED
  499, // S3_ERROR
  516, // AUTHENTICATION_FAILED
  999, // KEEPER_EXCEPTION
])

const retryableErrnos = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOSPC',
  'EMFILE',
  'ENOENT',
  'HPE_INVALID_CONSTANT',
  'ERR_STREAM_PREMATURE_CLOSE',
])

/** Gives back what is to be thrown instead. */
export function classifyError(error: unknown): Error {
  if (error instanceof RetryableError || error instanceof RejectedError) return error
  if (!(error instanceof Error)) return new Error(`The store threw ${String(error)}`)
  const code = clickHouseCode(error)
  if (code !== undefined) {
    const type = String((error as { type?: unknown }).type ?? '')
    const message = `${type === '' ? `Code ${code}` : type} (${code}): ${firstLine(error.message)}`
    if (retryableCodes.has(code)) return new RetryableError(`The store said ${message}`, { cause: error })
    return new RejectedError(code, type, message, error)
  }
  const errno = (error as NodeJS.ErrnoException).code
  if (errno !== undefined && retryableErrnos.has(errno)) {
    const what = errno === 'ENOSPC' ? 'The disk is full' : "The store can't be reached"
    return new RetryableError(`${what}: ${error.message}`, { cause: error })
  }
  // The client gives these no code.
  if (
    error.message === 'Timeout error.' ||
    error.message === 'The user aborted a request.' ||
    error.message === 'aborted'
  ) {
    return new RetryableError(`The store did not answer: ${error.message}`, { cause: error })
  }
  return error
}

/** ClickHouse's code in an error of the client, in a classified one, or in the text of an answer that the client could not take apart. */
export function clickHouseCode(error: unknown): number | undefined {
  for (let each: unknown = error; each instanceof Error; each = each.cause) {
    const { code } = each as { code?: unknown }
    if (typeof code === 'number') return code
    if (typeof code === 'string' && /^\d+$/.test(code)) return Number(code)
    const inText = /^Code: (\d+)\./.exec(each.message)?.[1]
    if (inText !== undefined) return Number(inText)
  }
  return undefined
}

function firstLine(text: string): string {
  const line = text.split('\n', 1)[0]!
  return line.length > 500 ? `${line.slice(0, 500)}…` : line
}
