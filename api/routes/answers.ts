// Rows and states as the wire has them.

import { toMillis } from '../instant.ts'
import type { LastReading } from '../live/last-values.ts'
import type { AnomalyRow } from '../queries/anomalies.ts'
import type { ReadingRow } from '../queries/readings.ts'
import type { AnomalyAnswer, ReadingAnswer } from '../wire.ts'

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

export function anomalyOfRow({
  observedMicros,
  expectedLow: low,
  expectedHigh: high,
  evidence,
  ...row
}: AnomalyRow): AnomalyAnswer {
  const { id, device, metric, value, score, detector, explanation } = row
  const observedAt = toMillis(observedMicros)
  const expected = { low, high }
  return {
    id,
    device,
    metric,
    observedAt,
    value,
    score,
    detector,
    expected,
    explanation,
    evidence: JSON.parse(evidence) as Record<string, unknown>,
  }
}
