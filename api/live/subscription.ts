// What a viewer may ask for, over either transport: checked, bounded and described once.
import { z } from 'zod'
import type { Micros } from '../../domain/reading.ts'
import { RequestError } from '../../runtime/errors.ts'
import { parseInstant, resolveInstant } from '../instant.ts'
import { deviceParameter, everyName, metricParameter } from '../parameters.ts'
import { invalidParameters } from '../problems.ts'
import type { LiveStart } from './catch-up.ts'
import { liveModes } from './channel.ts'
import { cursorLengthMax, decodeCursor } from './cursor.ts'
import { decodeHistoryCursor } from './history.ts'

const subscriptionParameters = {
  device: deviceParameter.optional(),
  metric: metricParameter.optional(),
  mode: z.enum(liveModes, 'must be latest or every').default('latest').meta({
    description:
      '`latest`: at most 20 frames a second, the newest value a series; `every`: each reading once, in log order',
  }),
  anomalies: z.enum(['true', 'false'], 'must be true or false').default('false').meta({
    description: 'Anomalies of these series too, as they are found; those of the past are in /v1/anomalies',
  }),
  since: z.string().max(cursorLengthMax, `is longer than ${cursorLengthMax} characters`).optional().meta({
    description:
      'A cursor, or an instant (history by observedAt, then live); default: now. The header Last-Event-ID leads',
  }),
}

export const subscriptionQuery = z.strictObject(subscriptionParameters)
export type SubscriptionQuery = z.infer<typeof subscriptionQuery>

export interface Asked {
  readonly device: NonNullable<SubscriptionQuery['device']>
  readonly metric: NonNullable<SubscriptionQuery['metric']>
  readonly mode: SubscriptionQuery['mode']
  readonly anomalies: boolean
  readonly start: LiveStart
}

/** Throws a RequestError that names what is not usable. */
export function parseSubscription(given: unknown, at: { readonly partitions: number; readonly now: Micros }): Asked {
  const parsed = subscriptionQuery.safeParse(given)
  if (!parsed.success) throw invalidParameters(parsed.error)
  const { device = everyName, metric = everyName, mode, anomalies, since } = parsed.data
  return { device, metric, mode, anomalies: anomalies === 'true', start: parseStart(since, at) }
}

/** One problem, whichever transport was asked for. */
export function tooManyViewers(detail: string): RequestError {
  return new RequestError(503, 'too-many-viewers', 'There are too many live viewers', detail)
}

/** Throws a RequestError for what is neither a cursor nor an instant. */
export function parseStart(
  since: string | undefined,
  { partitions, now }: { readonly partitions: number; readonly now: Micros },
): LiveStart {
  if (since === undefined || since === 'now') return 'now'
  const cursor = decodeCursor(since) ?? decodeHistoryCursor(since, partitions)
  if (cursor) return cursor
  const asked = parseInstant(since)
  if (!('problem' in asked)) return { instant: resolveInstant(asked, now) }
  const message = `is neither a cursor of this stream nor an instant: it ${asked.problem}`
  throw new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `since ${message}`, [
    { path: 'since', message },
  ])
}
