// What a log on Kafka does before it takes anything: waits for the cluster, makes or checks the topics, and asks how far the instants have come.

import type { Partition } from '../../domain/event-log.ts'
import { RetryableError, StartError } from '../../runtime/errors.ts'
import { receivedAtMaxOf } from './kafka-chunk.ts'
import type { KafkaConnection } from './kafka-client.ts'
import { describeError, isRefusedLogin } from './kafka-errors.ts'
import type { KafkaLogOptions } from './kafka-log.ts'
import { decodeBatches } from './kafka-records.ts'
import { fetchBatches } from './kafka-requests.ts'
import { ensureTopics } from './kafka-topics.ts'
import { BackOff } from './kafka-wait.ts'

/** Of the answer to the question for a partition's last message. */
const lastMessageBytes = 1024 * 1024

export async function untilTopicsAreThere(
  options: KafkaLogOptions,
  stop: AbortSignal,
  onAway: (cause: string) => void,
): Promise<void> {
  const { endpoint, prefix, partitions, retentionMs, topicSettings: settings, logger } = options
  const wanted = { endpoint, prefix, partitions, retentionMs, ...(settings && { settings }) }
  const reports = await untilAnswered(options, stop, onAway, () => ensureTopics(wanted, { create: true }))
  for (const { name, created, copies } of reports)
    if (created) logger.info({ topic: name, partitions, copies }, 'made the Kafka topic')
  for (const { name, warnings } of reports)
    for (const warning of warnings) logger.warn({ topic: name }, `the Kafka topic ${warning}`)
  const problems = reports.flatMap(({ name, problems: found }) =>
    found.map((problem) => `The Kafka topic ${name} ${problem}`),
  )
  if (problems.length > 0) throw new StartError(problems.join('\n'))
}

/** A cluster that is away, or still loading, is waited for. */
export async function untilAnswered<Answer>(
  { logger }: KafkaLogOptions,
  stop: AbortSignal,
  onAway: (cause: string) => void,
  ask: () => Promise<Answer>,
): Promise<Answer> {
  const backOff = new BackOff(stop)
  for (;;) {
    try {
      return await ask()
    } catch (error) {
      if (stop.aborted) throw new StartError('Stopped before Kafka was there')
      if (isRefusedLogin(error)) throw new StartError(`Kafka does not let us in: ${describeError(error)}`)
      if (backOff.isFirst) logger.warn({ error: describeError(error) }, 'Kafka is not there yet; waiting for it')
      onAway(describeError(error))
      await backOff.wait()
      if (stop.aborted) throw new StartError('Stopped before Kafka was there')
    }
  }
}

/** By the last message of each partition; those that are empty are left out. */
export async function readNewest(
  connection: KafkaConnection,
  name: string,
  all: readonly Partition[],
): Promise<Map<Partition, number>> {
  const found = new Map<Partition, number>()
  const [first, next] = [await connection.offsets(name, all, 'first'), await connection.offsets(name, all, 'next')]
  const last = all.filter((partition) => next.get(partition)! > first.get(partition)!)
  for (const [leader, led] of last.length > 0 ? await connection.leaders(name, last) : []) {
    for (const partition of led) {
      const broker = await connection.broker(leader)
      const from = next.get(partition)! - 1
      const fetched = await fetchBatches(broker, {
        topic: name,
        partitions: [{ partition, from }],
        partitionBytesMax: lastMessageBytes,
        waitMsMax: 100,
      })
      const message = decodeBatches(fetched.get(partition)!, from, `partition ${partition} of ${name}`).at(-1)
      if (!message)
        throw new RetryableError(`Kafka gave nothing for the last message of partition ${partition} of ${name}`)
      found.set(partition, receivedAtMaxOf(message))
    }
  }
  return found
}
