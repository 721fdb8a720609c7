// Rows and states as the wire has them.

import { toMillis } from '../instant.ts'
import type { LastReading } from '../live/last-values.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { ReadingAnswer } from '../wire.ts'

export function readingOfRow({
  device,
  metric,
  observedMicros,
  receivedMicros,
  value,
  text,
}: ReadingRow): ReadingAnswer {
  const instants = { observedAt: toMillis(observedMicros), receivedAt: toMillis(receivedMicros) }
  return value === null ? { device, metric, ...instants, text } : { device, metric, ...instants, value }
}

export function readingOfLast({ device, metric, observedAt, receivedAt, value }: LastReading): ReadingAnswer {
  const instants = { observedAt: toMillis(observedAt), receivedAt: toMillis(receivedAt) }
  return typeof value === 'string'
    ? { device, metric, ...instants, text: value }
    : { device, metric, ...instants, value }
}
