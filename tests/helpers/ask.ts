// Questions to the REST interface of a running product, as any HTTP client would ask them.

export interface ReadingItem {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly receivedAt: number
  readonly value?: number
  /** Of a text reading, instead of `value`. */
  readonly text?: string
}

export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly detail?: string
}

/** JSON of a 2xx answer; anything else throws with what came. */
export async function ask<T>(url: string): Promise<T> {
  const response = await fetch(url, { signal: AbortSignal.timeout(30_000) })
  const text = await response.text()
  if (!response.ok) throw new Error(`GET ${url} answered ${response.status}: ${text.slice(0, 500)}`)
  return JSON.parse(text) as T
}

/** All pages of /v1/readings, in order. */
export async function* allReadings(
  http: string,
  parameters: Readonly<Record<string, string>>,
  limit = 50_000,
): AsyncGenerator<ReadingItem> {
  let after: string | null = null
  do {
    const query = new URLSearchParams({ ...parameters, limit: String(limit) })
    if (after !== null) query.set('after', after)
    const page: { items: ReadingItem[]; next: string | null } = await ask(`${http}/v1/readings?${query}`)
    yield* page.items
    after = page.next
  } while (after !== null)
}

/** The value of one sample of /metrics, summed over all whose name and labels match. */
export async function counterOf(
  http: string,
  name: string,
  labels: Readonly<Record<string, string>> = {},
  headers: Readonly<Record<string, string>> = {},
): Promise<number> {
  const text = await (await fetch(`${http}/metrics`, { headers, signal: AbortSignal.timeout(5_000) })).text()
  let sum = 0
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (match?.[1] !== name) continue
    if (Object.entries(labels).every(([label, value]) => match[2]?.includes(`${label}="${value}"`)))
      sum += Number(match[3])
  }
  return sum
}
