// Limits that were hit, by cause: what the counters of all processes say, as one list. Counters are bounded sets of causes, so this is too.
import type { ProcessStatus } from '../runtime/status.ts'
import type { LimitKind, PipelineAnswer } from './wire.ts'

/** Counters of ingest and live that count somebody or something being turned away, or made to wait. */
const kinds: Readonly<Record<string, LimitKind>> = {
  weir_mqtt_connections_closed_total: 'connection-closed',
  weir_mqtt_publishes_refused_total: 'publish-refused',
  weir_mqtt_subscriptions_refused_total: 'subscription-refused',
  weir_mqtt_messages_dropped_total: 'message-dropped',
  weir_mqtt_reading_stopped_total: 'reading-stopped',
  weir_gateway_sockets_closed_total: 'socket-closed',
  weir_gateway_requests_refused_total: 'request-refused',
  weir_live_closes_total: 'viewer-closed',
  weir_live_slow: 'viewer-closed',
  weir_live_frames_held_back: 'frame-held-back',
}
/** Close codes of live viewers that say a limit was hit; slow ones, over whatever transport, have a count of their own. */
const closeCodes: Readonly<Record<string, string>> = { 1009: 'size', 4000: 'malformed', 4029: 'flood' }

/** Most first. */
export function limitsHit(statuses: readonly ProcessStatus[]): PipelineAnswer['limits'] {
  const limits: PipelineAnswer['limits'] = []
  for (const { instruments } of statuses) {
    for (const { name, values } of instruments) {
      const kind = kinds[name]
      if (kind === undefined) continue
      for (const { labels, value } of values) {
        const cause = causeOf(name, labels as Readonly<Record<string, unknown>>)
        if (value > 0 && cause !== undefined) limits.push({ kind, cause, count: value })
      }
    }
  }
  return limits.sort((a, b) => b.count - a.count)
}

function causeOf(name: string, { cause = '', code }: Readonly<Record<string, unknown>>): string | undefined {
  if (name === 'weir_live_slow') return 'slow'
  if (name === 'weir_live_frames_held_back') return 'busy'
  return name === 'weir_live_closes_total' ? closeCodes[String(code)] : String(cause)
}
