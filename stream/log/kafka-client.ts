// Connections to Kafka by kafkajs, which only this file and kafka-requests.ts import. It is used for what it does well (connections, TLS, SASL, the
// protocol's bytes); its producer and its consumer are not used, because they lose and skip what must not be lost or skipped
// (docs/decisions/0010-kafka.md).

import { connect as connectPlain, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import {
  type Admin,
  type Cluster,
  type ISocketFactory,
  Kafka,
  type KafkaConfig,
  logLevel,
  type SASLOptions,
} from 'kafkajs'
import { RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
import { innermost } from './kafka-errors.ts'
import type { KafkaBroker } from './kafka-requests.ts'
import { within } from './kafka-wait.ts'

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

/** Connection failures in a row after which everything about a cluster is found anew, from the list that the operator gave. */
const failuresMax = 3
const connectTimeoutMs = 3_000
const keepAliveMs = 60_000
const metadataAgeMsMax = 60_000
const disconnectMsMax = 1_000

/** kafkajs' view of the cluster, and the sockets under it. */
interface Opened {
  readonly cluster: Cluster
  readonly sockets: ReadonlySet<Socket>
}

/**
 * Connections of one part of ours to all brokers: made when first used, made again after `recover`. Requests of one connection are answered in
 * order, so whoever waits long (a reader, a member of a group) has connections of its own.
 */
export class KafkaConnection {
  private readonly endpoint: KafkaEndpoint
  private readonly topics: readonly string[]
  private opened: Opened | undefined
  private opening: Promise<Cluster> | undefined
  /** Of a cluster that is being reached. */
  private reaching: Opened | undefined
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
    const { opened } = this
    if (!opened || this.isClosed) return
    const { cluster } = opened
    this.failures++
    const { host, port, name } = innermost(error)
    if (host !== undefined && port !== undefined) cluster.removeBroker({ host, port })
    // Answers come in order: behind a request that got none, nobody gets one on that connection.
    const isMute = name === 'KafkaJSRequestTimeoutError'
    const isAgain = this.failures < failuresMax && !isMute
    if (isAgain && (await cluster.refreshMetadata().then(isTrue, isFalse))) return
    this.failures = 0
    if (this.opened === opened) this.opened = undefined
    giveUp(opened)
  }

  async close(): Promise<void> {
    this.isClosed = true
    const { opened, reaching } = this
    this.opened = undefined
    if (opened) await within(disconnectMsMax, opened.cluster.disconnect(), 'disconnecting').catch(() => {})
    for (const each of [opened, reaching]) if (each) giveUp(each)
  }

  private open(): Promise<Cluster> {
    if (this.isClosed) return Promise.reject(new RetryableError('the connection to Kafka is closed'))
    if (this.opened) {
      const { cluster } = this.opened
      // Also asks again for what has become old.
      return cluster.refreshMetadataIfNecessary().then(() => cluster)
    }
    this.opening ??= this.connect().finally(() => {
      this.opening = undefined
      this.reaching = undefined
    })
    return this.opening
  }

  private async connect(): Promise<Cluster> {
    const reaching = createCluster(this.endpoint)
    this.reaching = reaching
    const { cluster } = reaching
    try {
      await cluster.connect()
      await cluster.addMultipleTargetTopics([...this.topics])
      if (this.isClosed) throw new RetryableError('the connection to Kafka is closed')
      this.opened = reaching
      return cluster
    } catch (error) {
      giveUp(reaching)
      throw error
    }
  }
}

const isTrue = (): boolean => true
const isFalse = (): boolean => false

/**
 * At once: kafkajs waits for answers before it disconnects, and leaves what a frozen broker did not take in the socket, for as long as that broker
 * stays frozen. Whoever still waits for an answer is told.
 */
function giveUp({ cluster, sockets }: Opened): void {
  for (const socket of sockets) socket.destroy(new Error('this connection to Kafka was given up'))
  void cluster.disconnect().catch(() => {})
}

export function createAdmin(endpoint: KafkaEndpoint): Admin {
  return createKafka(endpoint).admin()
}

/** A partition assigner is given the cluster that its consumer will use: the one way that kafkajs gives it out. The consumer never runs. */
function createCluster(endpoint: KafkaEndpoint): Opened {
  let found: Cluster | undefined
  const sockets = new Set<Socket>()
  const remember = (socket: Socket): void => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  }
  createKafka(endpoint, remember).consumer({
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
  return { cluster: found!, sockets }
}

function createKafka(
  { brokers, tls, sasl, requestTimeoutMs, logger }: KafkaEndpoint,
  onSocket?: (socket: Socket) => void,
): Kafka {
  const config: KafkaConfig = {
    brokers: [...brokers],
    clientId: 'weir',
    connectionTimeout: connectTimeoutMs,
    socketFactory: (wanted) => {
      const socket = connectWithoutDelay(wanted)
      onSocket?.(socket)
      return socket
    },
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
const connectWithoutDelay = ({ host, port, ssl, onConnect }: Parameters<ISocketFactory>[0]): Socket => {
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
