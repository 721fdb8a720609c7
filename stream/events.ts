// What happens to the consumers of the log, by name: each event is one log line and what it counts, so that nobody logs or counts by hand
// elsewhere. None is per reading.
import type { Chunk, ConsumerGroup, LogTopic } from '../domain/event-log.ts'
import type { Instruments } from '../runtime/instruments.ts'
import type { Logger } from '../runtime/logger.ts'

export interface ConsumerEvents {
  /** A batch could not be handled and is tried again; said once, until it succeeds. */
  waiting(cause: Error): void
  /** The batch that waited was handled. */
  resumed(attempts: number): void
  attemptFailed(): void
  /** Only a person can mend this. Said once. */
  standsStill(cause: Error): void
  goesOn(): void
  /** Something that nobody foresaw: the process ends. */
  crashed(error: Error): void
}

export interface WriterEvents {
  stored(topic: LogTopic, rows: number, seconds: number): void
  migrated(names: readonly string[]): void
  /** `undefined`: readings stay for ever. */
  retentionChanged(retentionMs: number | undefined): void
  /** The store takes long over a batch, or hangs. Said once for each attempt. */
  slow(topic: LogTopic, seconds: number): void
  /** The store said no to rows; a person is needed. Said once for each batch. */
  rejected(topic: LogTopic, chunks: readonly Chunk[], cause: Error): void
}

export function createConsumerEvents(options: {
  readonly group: ConsumerGroup
  readonly topic: LogTopic
  readonly logger: Logger
  readonly instruments: Instruments
}): ConsumerEvents {
  const { group, topic } = options
  const logger = options.logger.child({ group, topic })
  const retries = options.instruments.counter(
    'weir_consumer_retries_total',
    'Attempts at a batch that failed and were made again',
    { group: [group], topic: [topic] },
  )
  return {
    waiting: (cause) => logger.warn({ cause: cause.message }, 'a batch waits; the log keeps what comes after it'),
    resumed: (attempts) => logger.info({ attempts }, 'the batch that waited was handled'),
    standsStill: (cause) =>
      logger.error({ cause: cause.message }, 'a consumer of the log stands still: a person is needed'),
    goesOn: () => logger.info({}, 'the consumer that stood still goes on'),
    attemptFailed: () => retries.inc({ group, topic }),
    crashed: (error) => logger.error({ error: error.stack ?? String(error) }, 'a consumer of the log can not go on'),
  }
}

export function createWriterEvents(options: {
  readonly logger: Logger
  readonly instruments: Instruments
}): WriterEvents {
  const { logger, instruments } = options
  const rowsStored = instruments.counter('weir_stored_rows_total', 'Rows of the log that are in the table', ['topic'])
  const batches = instruments.counter('weir_stored_batches_total', 'Inserts', ['topic'])
  const duration = instruments.histogram(
    'weir_insert_seconds',
    'From the handing over of a batch until it is in the table, on disk',
    [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30],
  )
  return {
    stored(topic, rows, seconds) {
      rowsStored.inc({ topic }, rows)
      batches.inc({ topic })
      duration.observe(seconds)
    },
    migrated(names) {
      if (names.length > 0) logger.info({ migrations: names }, 'the database is at the version that is needed')
    },
    retentionChanged(retentionMs) {
      const keeps = retentionMs === undefined ? 'for ever' : `for ${retentionMs / 86_400_000} days`
      logger.info({ keeps }, 'the retention of raw readings in the table was changed')
    },
    slow(topic, seconds) {
      logger.warn(
        { topic, seconds: Math.round(seconds) },
        'the store has not taken a batch for long; the log keeps what comes after it',
      )
    },
    rejected(topic, chunks, cause) {
      logger.error(
        { topic, offsets: offsetsOf(chunks), cause: cause.message },
        'the store refuses rows of the log: nothing after them is stored until it takes them; they stay in the log',
      )
    },
  }
}

/** `0: 17-42, 3: 5-5`: partition, first and last offset. */
export function offsetsOf(chunks: readonly Chunk[]): string {
  const ranges = new Map<number, { first: number; last: number }>()
  for (const { partition, offset } of chunks) {
    const range = ranges.get(partition)
    if (range) range.last = offset
    else ranges.set(partition, { first: offset, last: offset })
  }
  return [...ranges].map(([partition, { first, last }]) => `${partition}: ${first}-${last}`).join(', ')
}
