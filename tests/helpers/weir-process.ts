// The product in a child process for one test file: `const weir = await startWeir()`. Everything started is ended, and its data removed, when the
// file is done. The build is made once by the runner's global setup (global-setup.ts).
import { afterAll, describe, it } from 'vitest'
import { type StartOptions, spawnWeir, type WeirProcess } from './spawn-weir.ts'
import { isOnKafka } from './which-log.ts'

export { runWeir, type StartOptions, type WeirPart, type WeirProcess } from './spawn-weir.ts'

/** Tests of what only the embedded log has; a run on Kafka skips them, and their name says why. */
export function describeOnEmbedded(title: string, whyNotOnKafka: string, body: () => void): void {
  describe.skipIf(isOnKafka)(isOnKafka ? `${title} (not on Kafka: ${whyNotOnKafka})` : title, body)
}

/** The same of one test. */
export function itOnEmbedded(
  title: string,
  whyNotOnKafka: string,
  body: () => Promise<void>,
  testMsMax?: number,
): void {
  it.skipIf(isOnKafka)(isOnKafka ? `${title} (not on Kafka: ${whyNotOnKafka})` : title, body, testMsMax)
}

const started: WeirProcess[] = []

afterAll(async () => {
  for (const weir of started.splice(0).reverse()) await weir.dispose()
}, 30_000)

export async function startWeir(options: StartOptions = {}): Promise<WeirProcess> {
  const weir = await spawnWeir(options)
  started.push(weir)
  return weir
}
