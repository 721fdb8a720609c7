// One logger a process, to stderr; stdout belongs to the start-up lines and to the output of commands. Levels: `error` means data was lost or
// a person is needed, `warn` that something unexpected was survived, `info` a step in the life of a part; nothing is logged per reading.
import { pino } from 'pino'

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
    { level, base: { part }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination({ fd: 2, sync: true }),
  )
}

export const silentLogger: Logger = pino({ level: 'silent' })
