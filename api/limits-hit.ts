// Limits that were hit, by cause: what the counters of all processes say, as one list. Counters are bounded sets of causes, so this is too.
import type { ProcessStatus } from '../runtime/status.ts'
import type { LimitKind, PipelineAnswer } from './wire.ts'

/** Counters of ingest and live that count somebody or something being turned away. */
const kinds: Readonly<Record<string, LimitKind>> = {
  weir_mqtt_connections_closed_total: 'connection-closed',
  weir_mqtt_publishes_refused_total: 'publish-refused',
  weir_mqtt_subscriptions_refused_total: 'subscription-refused',
  weir_mqtt_messages_dropped_total: 'message-dropped',
  weir_mqtt_reading_stopped_total: 'reading-stopped',
  weir_gateway_sockets_closed_total: 'socket-closed',
  weir_gateway_requests_refused_total: 'request-refused',
  weir_live_viewers_closed_total: 'viewer-closed',
}

/** Most first. */
export function limitsHit(statuses: readonly ProcessStatus[]): PipelineAnswer['limits'] {
  const limits: PipelineAnswer['limits'] = []
  for (const { instruments } of statuses) {
    for (const { name, values } of instruments) {
      const kind = kinds[name]
      if (kind === undefined) continue
      for (const { labels, value } of values) {
        const { cause = '' } = labels as { cause?: string }
        if (value > 0) limits.push({ kind, cause: String(cause), count: value })
      }
    }
  }
  return limits.sort((a, b) => b.count - a.count)
}
