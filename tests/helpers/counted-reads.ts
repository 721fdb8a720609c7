// A log that counts what its consumers were given, so that a test can wait until something was read and is not yet handled.
import type { EventLog, LogConsumer, LogTopic } from '../../domain/event-log.ts'

export interface CountedReads {
  readonly log: EventLog
  /** Chunks that read() has handed out. */
  given(topic: LogTopic): number
}

export function countReads(log: EventLog): CountedReads {
  const counts = new Map<LogTopic, number>()
  const counting = (consumer: LogConsumer, topic: LogTopic): LogConsumer =>
    new Proxy(consumer, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        if (name !== 'read') return member.bind(target)
        return async (...words: Parameters<LogConsumer['read']>) => {
          const chunks = await target.read(...words)
          counts.set(topic, (counts.get(topic) ?? 0) + chunks.length)
          return chunks
        }
      },
    })
  return {
    given: (topic) => counts.get(topic) ?? 0,
    log: new Proxy(log, {
      get(target, name) {
        const member: unknown = Reflect.get(target, name, target)
        if (typeof member !== 'function') return member
        if (name !== 'subscribe') return member.bind(target)
        return async (...words: Parameters<EventLog['subscribe']>) =>
          counting(await target.subscribe(...words), words[1])
      },
    }),
  }
}
