// How the parts of a process live: started in order, drained and stopped in reverse, rolled back when one fails to start.

export type HealthState = 'ok' | 'starting' | 'degraded' | 'failed'

/** `degraded` works with less than it should (said why); `failed` does not do its job until something changes. */
export interface Health {
  readonly state: HealthState
  /** A sentence for an operator; always there unless `ok`. */
  readonly detail?: string
}

export interface Service {
  readonly name: string
  /** Resolves once it does its job, or has begun to wait for a dependency that may come late. */
  start(): Promise<void>
  /** Takes nothing new, finishes what was taken; the signal is the deadline, after which the rest is left to the next start. */
  drain(deadline: AbortSignal): Promise<void>
  /** Lets go of everything. Called after `drain`, or alone when a start is rolled back. */
  stop(): Promise<void>
  health(): Health
}

/** Starts in the order given (downstream first). When one fails, those already started are stopped in reverse, and the error goes on. */
export async function startServices(services: readonly Service[]): Promise<void> {
  const started: Service[] = []
  for (const service of services) {
    try {
      started.push(service)
      await service.start()
    } catch (error) {
      for (const other of started.reverse()) await other.stop().catch(() => {})
      throw error
    }
  }
}

/** Upstream first: each is drained, then all are stopped. One deadline for all; a service that fails to drain does not keep the others from it. */
export async function stopServices(services: readonly Service[], deadline: AbortSignal): Promise<Error[]> {
  const problems: Error[] = []
  const reversed = [...services].reverse()
  for (const step of ['drain', 'stop'] as const) {
    for (const service of reversed) {
      try {
        await (step === 'drain' ? service.drain(deadline) : service.stop())
      } catch (error) {
        problems.push(new Error(`${service.name} could not ${step}: ${(error as Error).message}`, { cause: error }))
      }
    }
  }
  return problems
}
