// One outage of the broker is one line in the log and one when it is over, however many connections it breaks.
import type { Logger } from '../../runtime/logger.ts'

export interface Outage {
  /** A connection broke. */
  lost(): void
  /** It is there again. */
  back(): void
}

export function createOutage(logger: Logger, url: string): Outage {
  let away = 0
  let mostAway = 0
  return {
    lost() {
      away++
      mostAway = Math.max(mostAway, away)
      if (away === 1) logger.warn({ url }, 'the connection is lost; trying again until it is back')
    },
    back() {
      away--
      if (away > 0) return
      logger.info({ url, connections: mostAway }, 'connected again; what was not acknowledged is sent again')
      mostAway = 0
    },
  }
}
