// The range that a request asks for: `from` in, `to` out.
import type { Micros } from '../../domain/reading.ts'
import { RequestError } from '../../runtime/errors.ts'
import { type AskedInstant, resolveInstant } from '../instant.ts'

export interface AskedRange {
  readonly from?: AskedInstant | undefined
  readonly to?: AskedInstant | undefined
}

export interface Range {
  readonly from: Micros
  readonly to: Micros
}

/**
 * `from` defaults to 1970, `to` to now. What is relative to now stands as it stood on the first page, so that all pages are of one range.
 */
export function rangeOf(asked: AskedRange, now: Micros, firstPage?: Range): Range {
  const from = resolved(asked.from ?? { at: 0 }, now, firstPage?.from)
  const to = resolved(asked.to ?? { beforeNow: 0 }, now, firstPage?.to)
  if (from <= to) return { from, to }
  // Nothing is wrong with asking from an instant on that is yet to come.
  if (!asked.to) return { from, to: from }
  const message = 'is after `to`'
  throw new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `from ${message}`, [
    { path: 'from', message },
  ])
}

function resolved(asked: AskedInstant, now: Micros, onFirstPage: Micros | undefined): Micros {
  return 'at' in asked ? asked.at : (onFirstPage ?? resolveInstant(asked, now))
}
