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

/** ClickHouse's codes for what passes by itself, or once somebody has made room or put something right; the same again is then taken. */
export const retryableCodes: ReadonlyMap<number, string> = new Map([
  [3, 'UNEXPECTED_END_OF_FILE'],
  [32, 'ATTEMPT_TO_READ_AFTER_EOF'],
  [74, 'CANNOT_READ_FROM_FILE_DESCRIPTOR'],
  [75, 'CANNOT_WRITE_TO_FILE_DESCRIPTOR'],
  [76, 'CANNOT_OPEN_FILE'],
  [159, 'TIMEOUT_EXCEEDED'],
  // The secret of an embedded server that has just been made anew; elsewhere a person puts it right, and the log waits.
  [192, 'UNKNOWN_USER'],
  [193, 'WRONG_PASSWORD'],
  [194, 'REQUIRED_PASSWORD'],
  [198, 'DNS_ERROR'],
  [201, 'QUOTA_EXCEEDED'],
  [202, 'TOO_MANY_SIMULTANEOUS_QUERIES'],
  [203, 'NO_FREE_CONNECTION'],
  [209, 'SOCKET_TIMEOUT'],
  [210, 'NETWORK_ERROR'],
  [225, 'NO_ZOOKEEPER'],
  // The server is stopping.
  [236, 'ABORTED'],
  [241, 'MEMORY_LIMIT_EXCEEDED'],
  // A replica that has lost its Keeper.
  [242, 'TABLE_IS_READ_ONLY'],
  [243, 'NOT_ENOUGH_SPACE'],
  [244, 'UNEXPECTED_ZOOKEEPER_ERROR'],
  [252, 'TOO_MANY_PARTS'],
  [254, 'NO_ACTIVE_REPLICAS'],
  [279, 'ALL_CONNECTION_TRIES_FAILED'],
  [285, 'TOO_FEW_LIVE_REPLICAS'],
  [286, 'UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE'],
  [289, 'REPLICA_IS_NOT_IN_QUORUM'],
  [319, 'UNKNOWN_STATUS_OF_INSERT'],
  [341, 'UNFINISHED'],
  [369, 'ALL_REPLICAS_ARE_STALE'],
  [394, 'QUERY_WAS_CANCELLED'],
  [425, 'SYSTEM_ERROR'],
  [439, 'CANNOT_SCHEDULE_TASK'],
  [473, 'DEADLOCK_AVOIDED'],
  [499, 'S3_ERROR'],
  [516, 'AUTHENTICATION_FAILED'],
  // Two writers that migrate at once.
  [517, 'CANNOT_ASSIGN_ALTER'],
  [574, 'DISTRIBUTED_TOO_MANY_PENDING_BYTES'],
  [999, 'KEEPER_EXCEPTION'],
])

const noTables =
  'no writer has made its tables: a writer and an api must have the same store, by WEIR_CLICKHOUSE, or embedded by the same --data'
/** What a person does about it, where ClickHouse's own words do not say. */
const advice: ReadonlyMap<number, string> = new Map([
  [60, noTables],
  [81, noTables],
  [497, 'its user lacks a right: see docs/storage.md for those that it needs'],
  [252, 'merges do not keep up: see the load and the disk of the server'],
  [242, 'the replica has lost ClickHouse Keeper'],
])

const retryableErrnos = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'ENETDOWN',
  'EADDRNOTAVAIL',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EAI_FAIL',
  'EPROTO',
  'ENOSPC',
  'EDQUOT',
  'EMFILE',
  'ENFILE',
  'ENOENT',
  'ERR_STREAM_PREMATURE_CLOSE',
  // A compressed answer that was cut.
  'Z_BUF_ERROR',
  'Z_DATA_ERROR',
])
/** Answers that are no HTTP (HPE_…), and everything about TLS. */
const retryableErrnoPattern = /^(HPE_|ERR_SSL_|ERR_TLS_|CERT_|CRL_)/
const untrustedPattern =
  /^(UNABLE_TO_|SELF_SIGNED_|DEPTH_ZERO_|CERT_|CRL_|ERR_TLS_CERT|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/

/** The server's certificate is not one that we trust, or not one for its name. */
export function isUntrusted(error: unknown): boolean {
  for (let each: unknown = error; each instanceof Error; each = each.cause)
    if (untrustedPattern.test(String((each as NodeJS.ErrnoException).code ?? ''))) return true
  return false
}

/** Gives back what is to be thrown instead. */
export function classifyError(error: unknown): Error {
  if (error instanceof RetryableError || error instanceof RejectedError) return error
  if (!(error instanceof Error)) return new Error(`The store threw ${String(error)}`)
  const code = clickHouseCode(error)
  if (code !== undefined) {
    const type = String((error as { type?: unknown }).type ?? '')
    const hint = advice.has(code) ? ` (${advice.get(code)})` : ''
    const message = `${type === '' ? (retryableCodes.get(code) ?? `Code ${code}`) : type} (${code}): ${firstLine(error.message)}${hint}`
    if (retryableCodes.has(code)) return new RetryableError(`The store said ${message}`, { cause: error })
    return new RejectedError(code, type, message, error)
  }
  const errno = (error as NodeJS.ErrnoException).code
  if (errno !== undefined && isAway(errno)) {
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
  // What the client makes of an answer that is no ClickHouse's: a proxy's page, an address that is something else's, JSON that is none.
  if ((error.constructor === Error || error instanceof SyntaxError) && errno === undefined) {
    return new RetryableError(`What answered is not ClickHouse, or is broken: ${firstLine(error.message)}`, {
      cause: error,
    })
  }
  return error
}

function isAway(errno: string): boolean {
  return retryableErrnos.has(errno) || retryableErrnoPattern.test(errno) || untrustedPattern.test(errno)
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
