// The store for a command: the one that runs, or the embedded one, opened for as long as the command needs it.
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { superviseStore } from '../app.ts'
import type { Config } from '../runtime/config.ts'
import { lockOwner } from '../runtime/data-lock.ts'
import { RetryableError, StartError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import { isEmbedded } from '../storage/find-clickhouse.ts'
import type { ClickHouse } from '../storage/open-clickhouse.ts'
import { type CommandWorld, untilStopped } from './command.ts'

const storeWaitMs = 60_000

export interface StoreWorld {
  readonly world: CommandWorld
  readonly logger: Logger
  /** The sentence for whoever stopped the command. */
  readonly whenStopped: string
}

/** The one that runs, or one of our own until the returned function is called. */
export async function openStore(
  config: Config,
  clickhouse: ClickHouse,
  { world, logger, whenStopped }: StoreWorld,
): Promise<() => Promise<void>> {
  if (!isEmbedded(config) || lockOwner(join(config.data, 'clickhouse', 'lock')) !== undefined) {
    await answered(clickhouse, world.stop, whenStopped)
    return async () => {}
  }
  const store = await superviseStore({ config: { ...config, logLevel: 'warn' }, world, logger })
  return async () => {
    await store.drain(AbortSignal.timeout(config.drainMs))
    await store.stop()
  }
}

async function answered(clickhouse: ClickHouse, stop: AbortSignal, whenStopped: string): Promise<void> {
  const deadline = performance.now() + storeWaitMs
  for (;;) {
    try {
      return await untilStopped(stop, clickhouse.ping(), whenStopped)
    } catch (error) {
      if (!(error instanceof RetryableError)) throw error
      if (performance.now() > deadline) throw new StartError(`The store does not answer: ${error.message}`)
      await pause(100)
    }
  }
}
