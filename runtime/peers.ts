// The other `weir start`s of one deployment, as the api sees them: each is asked once a second at its health port how its processes are, so that
// /readyz, /metrics and the pages of the api speak for all, wherever they run. One that does not answer is said to; nobody waits for it.
import { setTimeout as delay } from 'node:timers/promises'
import { z } from 'zod'
import { statusEveryMs } from './process-channel.ts'
import type { ProcessStatus } from './status.ts'

/** As /status of a health port has it: how old a status is there, because clocks differ. */
export interface AgedStatus extends Omit<ProcessStatus, 'at'> {
  readonly ageMs: number
}

const nameSchema = z.string().regex(/^[^"\\\p{Cc}]{1,200}$/u)
const totalsSchema = z.record(z.string(), z.number())
/** Of what else is there a newer Weir may know. What is not so is no Weir's, and must reach neither /readyz nor /metrics. */
const statusSchema = z.object({
  process: nameSchema,
  ageMs: z.number().min(0),
  parts: z.record(
    nameSchema.refine((name) => name !== '__proto__'),
    z.object({
      state: z.enum(['ok', 'starting', 'degraded', 'failed']),
      detail: z.string().max(10_000).optional(),
    }),
  ),
  instruments: z.array(
    z.looseObject({
      name: z.string().regex(/^[a-zA-Z_:][\w:]*$/),
      help: z.string(),
      type: z.enum(['counter', 'gauge', 'histogram', 'summary']),
      values: z.array(
        z.looseObject({
          // What is not a number is null in JSON.
          value: z.number().nullable(),
          labels: z.record(z.string().regex(/^\w+$/), z.union([z.string(), z.number()])),
          metricName: z
            .string()
            .regex(/^[a-zA-Z_:][\w:]*$/)
            .optional(),
        }),
      ),
    }),
  ),
  ingest: totalsSchema.optional(),
  stored: totalsSchema.optional(),
})
const statusesSchema = z.array(statusSchema).max(100)

export interface Peers {
  /** What was last heard of each. */
  statuses(): readonly ProcessStatus[]
  close(): void
}

const answerMsMax = 3_000
const answerBytesMax = 4 * 1024 * 1024
/** Then it is said that it does not answer; a start or one lost answer is no news. */
const silentMsMax = 5_000

export function watchPeers(urls: readonly string[], everyMs = statusEveryMs): Peers {
  const ending = new AbortController()
  const peers = urls.map((url) => new Peer(url))
  for (const peer of peers) void peer.watch(everyMs, ending.signal)
  return {
    statuses: () => peers.flatMap((peer) => peer.statuses()),
    close: () => ending.abort(),
  }
}

class Peer {
  private readonly url: string
  private readonly name: string
  private heard: readonly ProcessStatus[] = []
  private heardAt = performance.now()
  private trouble = 'it has not answered yet'

  constructor(url: string) {
    const { hostname, host } = new URL(url)
    this.url = url
    // A name says which one it is; of one address there may be several.
    this.name = /^[\d.]+$|^\[|^localhost$/.test(hostname) ? host : hostname
  }

  async watch(everyMs: number, ending: AbortSignal): Promise<void> {
    while (!ending.aborted) {
      await this.ask()
      await delay(everyMs, undefined, { signal: ending, ref: false }).catch(() => {})
    }
  }

  statuses(): readonly ProcessStatus[] {
    const silentMs = performance.now() - this.heardAt
    if (silentMs < silentMsMax) return this.heard
    const detail = `${this.url} does not answer: ${this.trouble}`
    return [
      { process: this.name, at: Date.now(), parts: { [this.name]: { state: 'failed', detail } }, instruments: [] },
    ]
  }

  private async ask(): Promise<void> {
    try {
      const signal = AbortSignal.timeout(answerMsMax)
      const answer = await fetch(new URL('/status', this.url), { signal, redirect: 'error' })
      if (!answer.ok) {
        await answer.body?.cancel()
        throw new Error(`it answered ${answer.status}, as no health port of Weir does`)
      }
      const statuses = statusesSchema.safeParse(JSON.parse(await boundedText(answer)))
      if (!statuses.success) throw new Error('it answered what no health port of Weir does')
      this.heard = (statuses.data as unknown as readonly AgedStatus[]).map((status) => this.named(status))
      this.heardAt = performance.now()
    } catch (error) {
      const { message, cause } = error as Error
      this.trouble = cause instanceof Error && cause.message !== '' ? cause.message : message
    }
  }

  /** Several have a process `serve`: their numbers are told apart by where they come from. */
  private named({ ageMs, ...status }: AgedStatus): ProcessStatus {
    const process = `${this.name}/${status.process}`
    const instruments = status.instruments.map((metric) => ({
      ...metric,
      values: metric.values.map((value) => ({ ...value, labels: { ...value.labels, process } })),
    }))
    return { ...status, process, instruments: instruments as ProcessStatus['instruments'], at: Date.now() - ageMs }
  }
}

/** What it says of its length may be wrong, or not be there. */
async function boundedText(answer: Response): Promise<string> {
  const parts: Uint8Array[] = []
  let bytes = 0
  // Leaving the loop ends the answer.
  for await (const part of answer.body ?? []) {
    bytes += part.length
    if (bytes > answerBytesMax) throw new Error(`it answered more than ${answerBytesMax} bytes`)
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
