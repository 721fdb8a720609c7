// Whether a CONNECT can be let in: by itself, before anybody is asked who it is (version, client id, will), and once that is known.
import { randomUUID } from 'node:crypto'
import type { DeviceCredential } from '../domain/authority.ts'
import type { DeviceAuth } from './device-auth.ts'
import type { CloseCause } from './events.ts'
import { ingestLimits as limits } from './limits.ts'
import { type ConnectPacket, connack, isClientId, readConnect } from './mqtt-frames.ts'
import { mayPublish, readMqttTopic } from './mqtt-topic.ts'
import type { RateLimits } from './rate-limits.ts'

export type Admission =
  | { readonly kind: 'welcome'; readonly connect: ConnectPacket }
  /** `answer` is what the client is told before the close; none where it could not read one. */
  | ({ readonly kind: 'refused'; readonly answer?: Buffer } & Refusal)

interface Refusal {
  readonly cause: CloseCause
  readonly detail?: string
}

/** What decides about somebody who is known. */
export interface DoorKeeper {
  readonly auth: DeviceAuth
  readonly rates: RateLimits | undefined
  readonly topicsOpen: boolean
  /** Whether a client id is free, or held by the same device. */
  mayClaim(clientId: string, credential: DeviceCredential): boolean
}

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

/** Why a client whose credential is good is turned away all the same: an id or a will that is not its own, or a device in debt; undefined: it is not. */
export function refusalOf(
  credential: DeviceCredential,
  { clientId, will }: ConnectPacket,
  keeper: DoorKeeper,
): (Refusal & { readonly answer: Buffer }) | undefined {
  const { auth, rates, topicsOpen } = keeper
  if (auth.isForeignClientId(credential, clientId) || !keeper.mayClaim(clientId, credential))
    return { answer: connack(2), cause: 'client-id', detail: `the client id is another device's` }
  if (will === undefined) return undefined
  const topic = readMqttTopic(will.topic, topicsOpen)
  if (!mayPublish(credential, topic, will.topic))
    return { answer: connack(5), cause: 'will-refused', detail: will.topic.slice(0, 200) }
  // A will that is telemetry is sent by going: whoever comes and goes would be held by no rate otherwise.
  const owedMs = topic.kind === 'telemetry' ? (rates?.of(credential.tenant, topic.device).waitMs() ?? 0) : 0
  if (owedMs > limits.debtMsMax)
    return { answer: connack(3), cause: 'will-refused', detail: `its device owes ${Math.ceil(owedMs)} ms of its rate` }
  return undefined
}
