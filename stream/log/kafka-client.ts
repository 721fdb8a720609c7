// The Kafka client, and the only file that imports it. kafkajs is used for what it does well (connections, TLS, SASL, the protocol's bytes); its
// producer and its consumer are not used, because they lose and skip what must not be lost or skipped (docs/decisions/0010-kafka.md).

import { connect as connectPlain, isIP } from 'node:net'
import { connect as connectTls } from 'node:tls'
import {
  type Admin,
  AssignerProtocol,
  type Cluster,
  CompressionTypes,
  type ISocketFactory,
  Kafka,
  type KafkaConfig,
  logLevel,
  type Message,
  type SASLOptions,
} from 'kafkajs'
import { RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'

export interface KafkaEndpoint {
  readonly brokers: readonly string[]
  readonly tls?: TlsOptions | undefined
  readonly sasl?: SaslOptions | undefined
  /** A request that no broker answers for so long is sent again: well above the brokers' own session timeout. */
  readonly requestTimeoutMs: number
  readonly logger: Logger
}

export interface TlsOptions {
  /** PEM. */
  readonly ca?: string | undefined
  readonly cert?: string | undefined
  readonly key?: string | undefined
}

export type SaslOptions =
  | {
      readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
      readonly username: string
      readonly password: string
    }
  | { readonly mechanism: 'oauthbearer'; readonly token: () => Promise<string> }

/** The methods of kafkajs' Broker that we use; half of them are not in its types. */
export interface KafkaBroker {
  produce(request: {
    topicData: readonly {
      topic: string
      partitions: readonly { partition: number; firstSequence: number; messages: readonly Message[] }[]
    }[]
    producerId: string
    producerEpoch: number
    acks: -1
    timeout: number
    compression: CompressionTypes
  }): Promise<{ topics: { topicName: string; partitions: { partition: number; baseOffset: string }[] }[] }>
  fetch(request: {
    isolationLevel: number
    maxWaitTime: number
    minBytes: number
    maxBytes: number
    topics: { topic: string; partitions: { partition: number; fetchOffset: string; maxBytes: number }[] }[]
  }): Promise<{
    responses: { topicName: string; partitions: { partition: number; messages: FetchedMessage[] }[] }[]
  }>
  initProducerId(request: { transactionTimeout: number }): Promise<{ producerId: string; producerEpoch: number }>
  joinGroup(request: {
    groupId: string
    sessionTimeout: number
    rebalanceTimeout: number
    memberId: string
    groupProtocols: { name: string; metadata: Buffer }[]
  }): Promise<{
    generationId: number
    leaderId: string
    memberId: string
    members: { memberId: string; memberMetadata: Buffer }[]
  }>
  syncGroup(request: {
    groupId: string
    generationId: number
    memberId: string
    groupAssignment: { memberId: string; memberAssignment: Buffer }[]
  }): Promise<{ memberAssignment: Buffer }>
  heartbeat(request: { groupId: string; groupGenerationId: number; memberId: string }): Promise<unknown>
  leaveGroup(request: { groupId: string; memberId: string }): Promise<unknown>
  offsetCommit(request: {
    groupId: string
    groupGenerationId: number
    memberId: string
    topics: { topic: string; partitions: { partition: number; offset: string }[] }[]
  }): Promise<unknown>
  offsetFetch(request: {
    groupId: string
    topics: { topic: string; partitions: { partition: number }[] }[]
  }): Promise<{ responses: { topic: string; partitions: { partition: number; offset: string }[] }[] }>
}

export interface FetchedMessage {
  readonly offset: string
  readonly value: Buffer | null
  readonly headers: Readonly<Record<string, Buffer | undefined>>
}

export type KafkaMessage = Message

/** Connection failures in a row after which everything about a cluster is found anew, from the list that the operator gave. */
const failuresMax = 3
const connectTimeoutMs = 3_000
const keepAliveMs = 60_000
const metadataAgeMsMax = 60_000

/**
 * Connections of one part of ours to all brokers: made when first used, made again after `recover`. Requests of one connection are answered in
 * order, so whoever waits long (a reader, a member of a group) has connections of its own.
 */
export class KafkaConnection {
  private readonly endpoint: KafkaEndpoint
  private readonly topics: readonly string[]
  private cluster: Cluster | undefined
  private opening: Promise<Cluster> | undefined
  private failures = 0
  private isClosed = false

  constructor(endpoint: KafkaEndpoint, topics: readonly string[]) {
    this.endpoint = endpoint
    this.topics = topics
  }

  /** Who leads each of these partitions now, as far as we know. */
  async leaders(topic: string, partitions: readonly number[]): Promise<ReadonlyMap<string, readonly number[]>> {
    const cluster = await this.open()
    const known = cluster.findTopicPartitionMetadata(topic)
    const leaders = new Map<string, number[]>()
    for (const partition of partitions) {
      const leader = known.find(({ partitionId }) => partitionId === partition)?.leader
      if (leader === undefined || leader < 0)
        throw new RetryableError(`partition ${partition} of the Kafka topic ${topic} has no leader`)
      const led = leaders.get(String(leader))
      if (led) led.push(partition)
      else leaders.set(String(leader), [partition])
    }
    return leaders
  }

  async broker(nodeId: string): Promise<KafkaBroker> {
    const cluster = await this.open()
    return (await cluster.findBroker({ nodeId })) as unknown as KafkaBroker
  }

  async coordinator(groupId: string): Promise<KafkaBroker> {
    const cluster = await this.open()
    return (await cluster.findGroupCoordinator({ groupId })) as unknown as KafkaBroker
  }

  async anyBroker(): Promise<KafkaBroker> {
    const cluster = await this.open()
    return (await cluster.findControllerBroker()) as unknown as KafkaBroker
  }

  /** First or next offset of each partition. */
  async offsets(topic: string, partitions: readonly number[], which: 'first' | 'next'): Promise<Map<number, number>> {
    const cluster = await this.open()
    const [found] = await cluster.fetchTopicsOffset([
      { topic, partitions: partitions.map((partition) => ({ partition })), fromBeginning: which === 'first' },
    ])
    return new Map(found!.partitions.map(({ partition, offset }) => [partition, Number(offset)]))
  }

  succeeded(): void {
    this.failures = 0
  }

  /** After any error: finds out again who leads, and begins anew when that does not help. Never throws. */
  async recover(error: unknown): Promise<void> {
    const { cluster } = this
    if (!cluster || this.isClosed) return
    this.failures++
    const { host, port } = innermost(error)
    if (host !== undefined && port !== undefined) cluster.removeBroker({ host, port })
    if (this.failures < failuresMax && (await cluster.refreshMetadata().then(isTrue, isFalse))) return
    this.failures = 0
    if (this.cluster === cluster) this.cluster = undefined
    await cluster.disconnect().catch(() => {})
  }

  async close(): Promise<void> {
    this.isClosed = true
    // One that is still being made lets go of itself.
    await this.cluster?.disconnect().catch(() => {})
    this.cluster = undefined
  }

  private open(): Promise<Cluster> {
    if (this.isClosed) return Promise.reject(new RetryableError('the connection to Kafka is closed'))
    if (this.cluster) {
      const { cluster } = this
      // Also asks again for what has become old.
      return cluster.refreshMetadataIfNecessary().then(() => cluster)
    }
    this.opening ??= this.connect().finally(() => {
      this.opening = undefined
    })
    return this.opening
  }

  private async connect(): Promise<Cluster> {
    const cluster = createCluster(this.endpoint)
    try {
      await cluster.connect()
      await cluster.addMultipleTargetTopics([...this.topics])
      if (this.isClosed) throw new RetryableError('the connection to Kafka is closed')
      this.cluster = cluster
      return cluster
    } catch (error) {
      await cluster.disconnect().catch(() => {})
      throw error
    }
  }
}

const isTrue = (): boolean => true
const isFalse = (): boolean => false

export function createAdmin(endpoint: KafkaEndpoint): Admin {
  return createKafka(endpoint).admin()
}

/** A partition assigner is given the cluster that its consumer will use: the one way that kafkajs gives it out. The consumer never runs. */
function createCluster(endpoint: KafkaEndpoint): Cluster {
  let found: Cluster | undefined
  createKafka(endpoint).consumer({
    groupId: 'none',
    allowAutoTopicCreation: false,
    metadataMaxAge: metadataAgeMsMax,
    partitionAssigners: [
      ({ cluster }) => {
        found = cluster
        return {
          name: 'none',
          version: 1,
          assign: async () => [],
          protocol: () => ({ name: 'none', metadata: Buffer.alloc(0) }),
        }
      },
    ],
  })
  return found!
}

function createKafka({ brokers, tls, sasl, requestTimeoutMs, logger }: KafkaEndpoint): Kafka {
  const config: KafkaConfig = {
    brokers: [...brokers],
    clientId: 'weir',
    connectionTimeout: connectTimeoutMs,
    socketFactory: connectWithoutDelay,
    // The broker gives up first, with an answer.
    requestTimeout: requestTimeoutMs + 2_000,
    // Waiting and trying again is ours, where it can be said and ended.
    retry: { retries: 1, initialRetryTime: 50, maxRetryTime: 500 },
    logLevel: logLevel.WARN,
    // What it calls an error is mostly a broker that is away, which we say ourselves.
    logCreator:
      () =>
      ({ log: { message, ...fields } }) =>
        logger.debug({ error: fields.error, broker: fields.broker }, `kafkajs: ${message}`),
  }
  if (tls)
    config.ssl = {
      ...(tls.ca && { ca: [tls.ca] }),
      ...(tls.cert && { cert: tls.cert }),
      ...(tls.key && { key: tls.key }),
    }
  if (sasl) config.sasl = saslOf(sasl)
  return new Kafka(config)
}

/** As kafkajs does it, but the end of a request is not held back until the broker has confirmed its beginning (Nagle). */
const connectWithoutDelay: ISocketFactory = ({ host, port, ssl, onConnect }) => {
  const socket = ssl
    ? connectTls({ host, port, ...(isIP(host) === 0 && { servername: host }), ...ssl }, onConnect)
    : connectPlain({ host, port }, onConnect)
  socket.setKeepAlive(true, keepAliveMs)
  socket.setNoDelay(true)
  return socket
}

function saslOf(sasl: SaslOptions): SASLOptions {
  if (sasl.mechanism !== 'oauthbearer') return { ...sasl }
  const { token } = sasl
  return { mechanism: 'oauthbearer', oauthBearerProvider: async () => ({ value: await token() }) }
}

export const compressions = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP } as const
export type KafkaCompression = keyof typeof compressions

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
function innermost(error: unknown): KafkaError {
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

export function encodeSubscription(topic: string): Buffer {
  return AssignerProtocol.MemberMetadata.encode({ version: 1, topics: [topic], userData: Buffer.alloc(0) })
}

export function encodeAssignment(topic: string, partitions: number[]): Buffer {
  return AssignerProtocol.MemberAssignment.encode({
    version: 1,
    assignment: { [topic]: partitions },
    userData: Buffer.alloc(0),
  })
}

export function decodeAssignment(bytes: Buffer, topic: string): readonly number[] {
  return AssignerProtocol.MemberAssignment.decode(bytes)?.assignment[topic] ?? []
}
