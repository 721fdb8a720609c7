// One logger a process, to stderr; stdout belongs to the start-up lines and to the output of commands. Levels: `error` means data was lost or
// a person is needed, `warn` that something unexpected was survived, `info` a step in the life of a part; nothing is logged per reading.
import { pino } from 'pino'
import { LimitError, LogDamagedError, LogFailedError, RetryableError } from './errors.ts'

export interface Logger {
  error(fields: object, message: string): void
  warn(fields: object, message: string): void
  info(fields: object, message: string): void
  debug(fields: object, message: string): void
  child(fields: object): Logger
}

export type LogLevel = 'error' | 'warn' | 'info' | 'debug' | 'silent'

export function createLogger(level: LogLevel, part: string): Logger {
  // Synchronous: the last line before a crash is the one that matters, and there are few.
  return pino(
    {
      level,
      base: { part },
      timestamp: pino.stdTimeFunctions.isoTime,
      serializers: { error: describeError, err: describeError },
    },
    pino.destination({ fd: 2, sync: true }),
  )
}

/** An error as fields: its words, and its stack when nobody foresaw it (a full disk is no bug of ours). */
function describeError(error: unknown): unknown {
  if (!(error instanceof Error)) return error
  const { name, message, stack, cause } = error
  const { code, syscall } = error as NodeJS.ErrnoException
  const isForeseen = syscall !== undefined || foreseen.some((each) => error instanceof each)
  return {
    type: name,
    message,
    ...(code !== undefined && { code }),
    ...(!isForeseen && { stack }),
    ...(cause instanceof Error && { cause: describeError(cause) }),
  }
}

const foreseen = [LimitError, LogDamagedError, LogFailedError, RetryableError] as const

export const silentLogger: Logger = pino({ level: 'silent' })
