// One signal for whatever may end a thing. Instead of AbortSignal.any and AbortSignal.timeout: what those make is held weakly, and Node 20 collects it,
// with its listeners, while it is waited on.

export interface LinkedSignal {
  readonly signal: AbortSignal
  /** To be called when what it was made for has ended: the signals that it follows may live for long. */
  release(): void
}

/** Aborted with the first of `signals`, or after `withinMs`. */
export function linkSignals(signals: readonly AbortSignal[], withinMs?: number): LinkedSignal {
  const controller = new AbortController()
  const end = (): void => {
    release()
    controller.abort()
  }
  const timer = withinMs === undefined ? undefined : setTimeout(end, withinMs)
  const release = (): void => {
    clearTimeout(timer)
    for (const signal of signals) signal.removeEventListener('abort', end)
  }
  for (const signal of signals) signal.addEventListener('abort', end, { once: true })
  if (signals.some(({ aborted }) => aborted)) end()
  return { signal: controller.signal, release }
}
