// What we say to a broker and how, where kafkajs's own methods would copy or would not do: Produce and Fetch with bytes of ours, a group's protocol as its
// types should have it.

import { createRequire } from 'node:module'
import { AssignerProtocol } from 'kafkajs'

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
    topics: { topic: string; partitions: { partition: number; offset: string; metadata?: string }[] }[]
  }): Promise<unknown>
  describeGroups(request: { groupIds: string[] }): Promise<{ groups: { members: unknown[] }[] }>
  offsetFetch(request: { groupId: string; topics: { topic: string; partitions: { partition: number }[] }[] }): Promise<{
    responses: { topic: string; partitions: { partition: number; offset: string; metadata: string | null }[] }[]
  }>
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
const fetchPatienceMs = 10_000

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

/** `told`: what members tell the one that leads. */
export function encodeSubscription(topic: string, told: string): Buffer {
  return AssignerProtocol.MemberMetadata.encode({ version: 1, topics: [topic], userData: Buffer.from(told) })
}

/** What a member has told. */
export function decodeSubscription(bytes: Buffer): string {
  return AssignerProtocol.MemberMetadata.decode(bytes)?.userData.toString() ?? ''
}

/** `refusal`: why a member is given nothing. */
export function encodeAssignment(topic: string, partitions: number[], refusal = ''): Buffer {
  return AssignerProtocol.MemberAssignment.encode({
    version: 1,
    assignment: { [topic]: partitions },
    userData: Buffer.from(refusal),
  })
}

export function decodeAssignment(bytes: Buffer, topic: string): { partitions: readonly number[]; refusal: string } {
  const decoded = AssignerProtocol.MemberAssignment.decode(bytes)
  return { partitions: decoded?.assignment[topic] ?? [], refusal: decoded?.userData.toString() ?? '' }
}
