// What /readyz of a process says, with its status.
import type { ReadyAnswer } from '../../api/wire.ts'

const answerMsMax = 30_000

export async function readiness(url: string): Promise<{ readonly status: number; readonly body: ReadyAnswer }> {
  const response = await fetch(`${url}/readyz`, { signal: AbortSignal.timeout(answerMsMax) })
  return { status: response.status, body: (await response.json()) as ReadyAnswer }
}
