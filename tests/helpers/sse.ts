// A viewer of server-sent events, as `curl -N` is one: keeps every event that came.
import { waitFor } from './wait-for.ts'

export interface SseEvent {
  readonly event: string
  readonly id: string
  readonly data: unknown
}

export class SseViewer {
  readonly events: SseEvent[] = []
  ended = false
  private readonly abort = new AbortController()

  /** Resolves when the answer has begun. */
  static async open(url: string, headers: Readonly<Record<string, string>> = {}): Promise<SseViewer> {
    const viewer = new SseViewer()
    const response = await fetch(url, {
      headers: { accept: 'text/event-stream', ...headers },
      signal: viewer.abort.signal,
    })
    if (!response.ok || !response.body)
      throw new Error(`GET ${url} answered ${response.status}: ${await response.text()}`)
    void viewer.read(response.body)
    return viewer
  }

  close(): void {
    this.abort.abort()
  }

  /** The first event of this kind that fits, among those that came and those that will. */
  waitForEvent(event: string, fits: (data: unknown) => boolean = () => true): Promise<SseEvent> {
    return waitFor(() => this.events.find((each) => each.event === event && fits(each.data)), {
      what: () => `an event "${event}"; so far: ${this.events.map((each) => each.event).join(' ')}`,
    })
  }

  /** Items of all `readings` events so far. */
  readings(): { device: string; metric: string; observedAt: number; value?: number; text?: string }[] {
    return this.events
      .filter(({ event }) => event === 'readings')
      .flatMap(({ data }) => (data as { items: ReturnType<SseViewer['readings']> }).items)
  }

  /** Items of `readings`, and those of `revision`, in order. */
  told(): ReturnType<SseViewer['readings']> {
    return this.events.flatMap(({ event, data }) => {
      if (event === 'readings') return (data as { items: ReturnType<SseViewer['readings']> }).items
      return event === 'revision' ? [data as ReturnType<SseViewer['readings']>[number]] : []
    })
  }

  private async read(body: ReadableStream<Uint8Array>): Promise<void> {
    const decoder = new TextDecoder()
    let text = ''
    try {
      for await (const bytes of body) {
        text += decoder.decode(bytes, { stream: true })
        const blocks = text.split(/\r?\n\r?\n/)
        text = blocks.pop()!
        for (const block of blocks) this.take(block)
      }
    } catch {
      // Closed by one of the sides; `ended` says so.
    }
    this.ended = true
  }

  private take(block: string): void {
    const fields = new Map<string, string>()
    for (const line of block.split(/\r?\n/)) {
      const match = /^([a-z]+): ?(.*)$/.exec(line)
      if (match)
        fields.set(match[1]!, [fields.get(match[1]!), match[2]!].filter((part) => part !== undefined).join('\n'))
    }
    const data = fields.get('data')
    if (data === undefined) return
    this.events.push({
      event: fields.get('event') ?? 'message',
      id: fields.get('id') ?? '',
      data: JSON.parse(data),
    })
  }
}
