// Which log the whole product is tested on: WEIR_TEST_LOG=kafka, or the embedded one. One broker for a run (kafka-setup.ts); each data directory has
// topics and groups of its own there, so a second start on the same directory finds what the first one left.
import { basename } from 'node:path'

export const isOnKafka = process.env.WEIR_TEST_LOG === 'kafka'

/** For any command of the product on this data directory; nothing where the log lies in it. */
export function logEnvironment(data: string | undefined): Readonly<Record<string, string>> {
  if (!isOnKafka || data === undefined) return {}
  const brokers = process.env.WEIR_TEST_KAFKA_BROKERS
  if (!brokers) throw new Error('WEIR_TEST_LOG is kafka and WEIR_TEST_KAFKA_BROKERS names no broker')
  return {
    WEIR_LOG: 'kafka',
    WEIR_KAFKA_BROKERS: brokers,
    WEIR_KAFKA_PREFIX: `${basename(data)}.`,
    // What was killed lets go of its partitions only then.
    WEIR_KAFKA_SESSION_TIMEOUT: '2s',
  }
}
