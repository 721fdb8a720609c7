// A message that the broker keeps for later: waiting in a session, or retained.

/** A packet as aedes passes it on; only what is needed here. */
export interface SessionPacket {
  cmd?: string
  topic: string
  payload: Buffer | string
  qos?: number
  retain?: boolean
  messageId?: number | undefined
  brokerId?: string
  brokerCounter?: number
  clientId?: string
}

/** That a waiting or retained message costs beside its payload. */
const overheadBytes = 300

/** What it counts against a bound. */
export function keptBytes({ payload, topic }: SessionPacket): number {
  return payload.length + topic.length + overheadBytes
}

/** A packet's payload may be a piece of a large chunk; what is kept must not hold on to it. */
export function copyOf(packet: SessionPacket): SessionPacket {
  const payload = typeof packet.payload === 'string' ? packet.payload : Buffer.allocUnsafeSlow(packet.payload.length)
  if (typeof payload !== 'string') (packet.payload as Buffer).copy(payload)
  return { ...packet, payload }
}
