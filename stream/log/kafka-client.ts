// The Kafka client, and the only file that imports it. kafkajs is used for what it does well (connections, TLS, SASL, the protocol's bytes); its
// producer and its consumer are not used, because they lose and skip what must not be lost or skipped (docs/decisions/0010-kafka.md).

import { createRequire } from 'node:module'
import { connect as connectPlain, isIP, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import {
  type Admin,
  AssignerProtocol,
  type Cluster,
  type ISocketFactory,
  Kafka,
  type KafkaConfig,
  logLevel,
  type SASLOptions,
} from 'kafkajs'
import { RetryableError } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/logger.ts'
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

/** The methods of kafkajs' Broker that we use; half of them are not in its types. */
export interface KafkaBroker {
  /** What its methods send by: produce and fetch go there directly, with bytes of ours (kafka-records.ts). */
  readonly connectionPool: { send(request: ProtocolRequest): Promise<unknown> }
  disconnect(): Promise<void>
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
  describeGroups(request: { groupIds: string[] }): Promise<{ groups: { members: unknown[] }[] }>
  offsetFetch(request: {
    groupId: string
    topics: { topic: string; partitions: { partition: number }[] }[]
  }): Promise<{ responses: { topic: string; partitions: { partition: number; offset: string }[] }[] }>
}

interface ProtocolRequest {
  readonly request: {
    readonly apiKey: number
    readonly apiVersion: number
    readonly apiName: string
    readonly expectResponse?: () => boolean
    /** In the shape of kafkajs' encoder. */
    encode(): Promise<{ readonly buf: Buffer; readonly buffer: Buffer }>
  }
  readonly response: ProtocolResponse
  readonly requestTimeout?: number
}

interface ProtocolResponse {
  decode(bytes: Buffer): Promise<unknown>
  /** Throws what the answer says is wrong. */
  parse(decoded: unknown): Promise<unknown>
}

export interface ProduceRequest {
  readonly timeoutMs: number
  readonly topics: readonly {
    readonly topic: string
    readonly partitions: readonly { readonly partition: number; readonly batch: Buffer }[]
  }[]
}

export interface FetchRequest {
  readonly topic: string
  readonly partitions: readonly { readonly partition: number; readonly from: number }[]
  readonly partitionBytesMax: number
  readonly waitMsMax: number
}

const parts = createRequire(import.meta.url)
const produceResponse = parts('kafkajs/src/protocol/requests/produce/v7/response') as ProtocolResponse
const fetchResponse = parts('kafkajs/src/protocol/requests/fetch/v11/response') as ProtocolResponse
const encodeFetch = parts('kafkajs/src/protocol/requests/fetch/v11/request') as (
  fields: object,
) => ProtocolRequest['request']
const produceApi = { apiKey: 0, apiVersion: 7, apiName: 'Produce' } as const
const acksOfAll = -1

/** The first offset of each batch, by topic and partition (`topic partition`); one that is not in the answer was not taken. */
export async function produce(broker: KafkaBroker, request: ProduceRequest): Promise<Map<string, number>> {
  const body = produceBody(request)
  const answer = (await send(broker, {
    request: { ...produceApi, expectResponse: () => true, encode: async () => ({ buf: body, buffer: body }) },
    response: produceResponse,
  })) as { topics: { topicName: string; partitions: { partition: number; baseOffset: string }[] }[] }
  return new Map(
    answer.topics.flatMap(({ topicName, partitions }) =>
      partitions.map(({ partition, baseOffset }) => [`${topicName} ${partition}`, Number(baseOffset)] as const),
    ),
  )
}

async function send(broker: KafkaBroker, request: ProtocolRequest): Promise<unknown> {
  try {
    return await broker.connectionPool.send(request)
  } catch (error) {
    // As its own methods do it: the next use connects again.
    if ((error as Error).name === 'KafkaJSConnectionClosedError') await broker.disconnect()
    throw error
  }
}

/** Produce Request v7: transactional_id acks timeout [topic [partition records]]. */
function produceBody({ timeoutMs, topics }: ProduceRequest): Buffer {
  let bytes = 12
  for (const { topic, partitions } of topics) {
    bytes += 6 + Buffer.byteLength(topic)
    for (const { batch } of partitions) bytes += 8 + batch.length
  }
  const body = Buffer.allocUnsafe(bytes)
  let at = body.writeInt16BE(-1, 0)
  at = body.writeInt16BE(acksOfAll, at)
  at = body.writeInt32BE(timeoutMs, at)
  at = body.writeInt32BE(topics.length, at)
  for (const { topic, partitions } of topics) {
    at = body.writeInt16BE(Buffer.byteLength(topic), at)
    at += body.write(topic, at)
    at = body.writeInt32BE(partitions.length, at)
    for (const { partition, batch } of partitions) {
      at = body.writeInt32BE(partition, at)
      at = body.writeInt32BE(batch.length, at)
      body.set(batch, at)
      at += batch.length
    }
  }
  return body
}

/** Batches by partition, as bytes. */
export async function fetchBatches(
  broker: KafkaBroker,
  { topic, partitions, partitionBytesMax, waitMsMax }: FetchRequest,
): Promise<ReadonlyMap<number, Buffer>> {
  const request = encodeFetch({
    replicaId: -1,
    isolationLevel: 0,
    maxWaitTime: waitMsMax,
    minBytes: 1,
    maxBytes: partitionBytesMax * partitions.length,
    topics: [
      {
        topic,
        partitions: partitions.map(({ partition, from }) => ({
          partition,
          fetchOffset: String(from),
          maxBytes: partitionBytesMax,
        })),
      },
    ],
  })
  const answer = (await send(broker, {
    request,
    response: { decode: async (bytes) => decodeFetch(bytes), parse: (decoded) => fetchResponse.parse(decoded) },
    requestTimeout: waitMsMax + fetchPatienceMs,
  })) as FetchAnswer
  return new Map(
    answer.responses.flatMap((each) => each.partitions).map(({ partition, batches }) => [partition, batches]),
  )
}

/** In the shape that kafkajs looks for errors in. */
interface FetchAnswer {
  readonly clientSideThrottleTime: number
  readonly responses: {
    readonly topicName: string
    readonly partitions: { readonly partition: number; readonly errorCode: number; readonly batches: Buffer }[]
  }[]
}

/** Fetch Response v11: throttle_time error session [topic [partition error high_watermark last_stable log_start [aborted] replica records]]. */
function decodeFetch(bytes: Buffer): FetchAnswer {
  let at = 10
  const int32 = (): number => {
    at += 4
    return bytes.readInt32BE(at - 4)
  }
  const times = <Item>(read: () => Item): Item[] => Array.from({ length: Math.max(0, int32()) }, read)
  const readPartition = () => {
    const partition = int32()
    const errorCode = bytes.readInt16BE(at)
    at += 26
    times(() => {
      at += 16
    })
    at += 4
    const length = Math.max(0, int32())
    const batches = bytes.subarray(at, at + length)
    at += length
    return { partition, errorCode, batches }
  }
  const responses = times(() => {
    const length = bytes.readInt16BE(at)
    const topicName = bytes.toString('utf8', at + 2, at + 2 + length)
    at += 2 + length
    return { topicName, partitions: times(readPartition) }
  })
  return { clientSideThrottleTime: bytes.readInt32BE(0), responses }
}

/** Connection failures in a row after which everything about a cluster is found anew, from the list that the operator gave. */
const failuresMax = 3
const connectTimeoutMs = 3_000
const keepAliveMs = 60_000
const metadataAgeMsMax = 60_000
const fetchPatienceMs = 10_000
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
