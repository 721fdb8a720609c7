// Senders at the gateway's doors that know what they were told is kept: bodies over HTTP, and a window of messages on a socket of /v1/ingest. What was
// not answered is sent again, whatever happens to the other side.
import { pause } from './wait-for.ts'
import { type Address, ingestFrame, TestSocket } from './websocket.ts'

export interface GatewaySender {
  readonly device: string
  /** Indexes that were acknowledged. */
  readonly kept: Set<number>
  /** Sent at least once: 0 … sent − 1. */
  sent: number
  /** Nothing is on its way. */
  isSettled(): boolean
  pause(): void
  resume(): void
  stop(): void
}

export interface GatewaySenderOptions {
  readonly device: string
  /** Of the gateway, asked each time: ports change. */
  readonly url: () => string
  /** A JSON object: the reading, or readings, of this number. */
  readonly payload: (index: number) => string
  /** How many readings a payload has. */
  readonly readingsEach?: number
  /** Payloads a body. */
  readonly bodyLength?: number
}

const answerMsMax = 60_000
const window = 64

/** Bodies one after the other; one whose answer is lost is sent again. Begins at once. */
export function sendOverHttp({
  device,
  url,
  payload,
  readingsEach = 1,
  bodyLength = 10,
}: GatewaySenderOptions): GatewaySender {
  const state = { isStopped: false, isPaused: false, isAsking: false }
  const sender = makeSender(device, state, () => !state.isAsking)
  const run = async (): Promise<void> => {
    while (!state.isStopped) {
      if (state.isPaused) {
        await pause(10)
        continue
      }
      const from = sender.sent
      const body = `[${Array.from({ length: bodyLength }, (_, i) => payload(from + i)).join(',')}]`
      state.isAsking = true
      const isKept = await post(`${url()}/v1/telemetry/${device}`, body, bodyLength * readingsEach).catch(() => false)
      state.isAsking = false
      if (isKept) {
        for (let i = 0; i < bodyLength; i++) sender.kept.add(from + i)
        sender.sent += bodyLength
      } else await pause(20)
    }
  }
  void run()
  return sender
}

async function post(url: string, body: string, readings: number): Promise<boolean> {
  const answer = await fetch(url, {
    method: 'POST',
    body,
    headers: { 'content-type': 'application/json' },
    signal: AbortSignal.timeout(answerMsMax),
  })
  const text = await answer.text()
  return answer.status === 200 && (JSON.parse(text) as { accepted?: number }).accepted === readings
}

/** A full window on one socket; a new one goes on after what the last one knew to be kept. Begins at once. */
export function sendOverSocket({ device, url, payload }: GatewaySenderOptions): GatewaySender {
  const state = { isStopped: false, isPaused: false, isAsking: false }
  const sender = makeSender(device, state, () => !state.isAsking)
  const run = async (): Promise<void> => {
    let next = 0
    while (!state.isStopped) {
      const begun = next
      const open = new TestSocket(addressOf(url()), `/v1/ingest?device=${device}`)
      let sent = 0
      let settled = 0
      while (!state.isStopped && !open.isClosed) {
        if (open.messages.length > 0 && !state.isPaused) {
          for (; sent - settled < window; sent++) open.bytes(ingestFrame(sent + 1, 0, '', payload(begun + sent)))
          sender.sent = Math.max(sender.sent, begun + sent)
        }
        state.isAsking = settled < sent
        await pause(2)
        const upTo = Math.max(0, open.ackedUpTo)
        for (; settled < upTo; settled++) sender.kept.add(begun + settled)
        open.messages.splice(1, Math.max(0, open.messages.length - 2))
      }
      // What was not acknowledged may be kept or not.
      state.isAsking = false
      next = begun + settled
      open.destroy()
      await pause(20)
    }
  }
  void run()
  return sender
}

function addressOf(url: string): Address {
  const { hostname, port } = new URL(url)
  return { host: hostname, port: Number(port) }
}

function makeSender(
  device: string,
  state: { isStopped: boolean; isPaused: boolean },
  isSettled: () => boolean,
): GatewaySender {
  return {
    device,
    kept: new Set(),
    sent: 0,
    isSettled,
    pause() {
      state.isPaused = true
    },
    resume() {
      state.isPaused = false
    },
    stop() {
      state.isStopped = true
    },
  }
}
