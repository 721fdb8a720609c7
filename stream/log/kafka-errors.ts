// What Kafka, or kafkajs for it, answers instead of what was asked for: told apart in this one place.

interface KafkaError {
  readonly name: string
  readonly message: string
  /** The protocol's own word, such as NOT_LEADER_FOR_PARTITION. */
  readonly type?: string
  readonly host?: string
  readonly port?: number
  readonly partition?: number
  readonly cause?: unknown
}

/** kafkajs wraps an error once for each layer that gave up on it. */
export function innermost(error: unknown): KafkaError {
  let found = error as KafkaError
  for (let depth = 0; depth < 5 && found.cause instanceof Error; depth++) found = found.cause as KafkaError
  return found
}

/** The protocol's word for what happened, or the error's name. */
export function reasonOf(error: unknown): string {
  const { type, name } = innermost(error)
  return type ?? name
}

/** One sentence's part for an operator. */
export function describeError(error: unknown): string {
  const { type, message } = innermost(error)
  return type ? `${type}: ${message}` : message
}

/** No wait helps: somebody has to change a password. */
export function isRefusedLogin(error: unknown): boolean {
  return (
    innermost(error).name === 'KafkaJSSASLAuthenticationError' ||
    (error as KafkaError).name === 'KafkaJSSASLAuthenticationError'
  )
}

export function isOutOfRange(error: unknown): number | undefined {
  const { name, partition } = error as KafkaError
  return name === 'KafkaJSOffsetOutOfRange' ? partition : undefined
}
