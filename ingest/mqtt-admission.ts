// Whether a CONNECT is one that can be let in, before anybody is asked who it is: version, client id, will.
import { randomUUID } from 'node:crypto'
import type { CloseCause } from './events.ts'
import { type ConnectPacket, connack, isClientId, readConnect } from './mqtt-frames.ts'
import { readMqttTopic } from './mqtt-topic.ts'

export type Admission =
  | { readonly kind: 'welcome'; readonly connect: ConnectPacket }
  /** `answer` is what the client is told before the close; none where it could not read one. */
  | { readonly kind: 'refused'; readonly cause: CloseCause; readonly answer?: Buffer; readonly detail?: string }

/** Reads the body of a CONNECT; a client without an id gets one. */
export function admit(bytes: Buffer, start: number, end: number, topicsOpen: boolean): Admission {
  const reading = readConnect(bytes, start, end)
  if (reading.kind === 'malformed') return { kind: 'refused', cause: 'malformed-packet' }
  if (reading.kind === 'version') {
    return { kind: 'refused', cause: 'protocol-version', answer: reading.answer, detail: `level ${reading.level}` }
  }
  const { connect } = reading
  const { clientId, clean, level, will } = connect
  // A session that is to be found again needs a name (MQTT 3.1.1 §3.1.3.1); MQTT 3.1 always does.
  const isUsable = clientId === '' ? clean && level > 3 : isClientId(clientId, level)
  if (!isUsable) return { kind: 'refused', cause: 'client-id', answer: connack(2) }
  if (will !== undefined && readMqttTopic(will.topic, topicsOpen).kind === 'refused') {
    return { kind: 'refused', cause: 'will-refused', answer: connack(5), detail: will.topic.slice(0, 200) }
  }
  return { kind: 'welcome', connect: clientId === '' ? { ...connect, clientId: `weir-${randomUUID()}` } : connect }
}
