// Waits for a condition instead of for a time: asks again and again until it holds, and says what was last seen when it never does.

export interface WaitOptions {
  /** Default: what a loaded machine of one core needs for anything that is not work by itself. */
  readonly withinMs?: number
  readonly everyMs?: number
  /** What is waited for, for the error; a function is asked when the time is up. */
  readonly what?: string | (() => string)
}

const waitMsMax = 30_000

/** Resolves with the first answer that is neither false, null nor undefined. An assertion that throws counts as "not yet". */
export async function waitFor<T>(
  condition: () => T | false | null | undefined | Promise<T | false | null | undefined>,
  { withinMs = waitMsMax, everyMs = 20, what = 'a condition' }: WaitOptions = {},
): Promise<T> {
  const deadline = performance.now() + withinMs
  let last: unknown
  for (;;) {
    try {
      const answer = await condition()
      if (answer !== false && answer !== null && answer !== undefined) return answer
      last = answer
    } catch (error) {
      last = error
    }
    if (performance.now() > deadline) break
    await pause(everyMs)
  }
  const seen = last instanceof Error ? last.message : String(last)
  throw new Error(`waited ${withinMs} ms for ${typeof what === 'string' ? what : what()}; last seen: ${seen}`, {
    cause: last,
  })
}

export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
