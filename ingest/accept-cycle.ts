// What is gathered while the commit before it is being made durable: rows of each partition, dead letters, and what was counted. Two cycles take
// turns, so that their buffers are reused; rows belong to the log until its append has resolved.

import type { LogTopic } from '../domain/event-log.ts'
import type { RejectReason } from '../domain/outcome.ts'
import { RowWriter } from '../domain/row-format.ts'

/** A chunk takes no further payload beyond this; one payload's rows (`payloadRowsBytesMax`) may come on top. */
const chunkBytesMax = 2 * 1024 * 1024
const rowsBytes = 64 * 1024
const deadLetterBytes = 4 * 1024

/** The chunks of one partition, in order of arrival; nearly always one. */
export class PartitionChunks {
  readonly topic: LogTopic
  readonly partition: number
  /** Takes the next rows. */
  writer: RowWriter
  private readonly first: RowWriter
  private closed: RowWriter[] = []

  constructor(topic: LogTopic, partition: number) {
    this.topic = topic
    this.partition = partition
    this.first = new RowWriter(topic === 'readings' ? rowsBytes : deadLetterBytes)
    this.writer = this.first
  }

  /** The writer for one more payload. */
  writable(): RowWriter {
    if (this.writer.length >= chunkBytesMax) {
      this.closed.push(this.writer)
      this.writer = new RowWriter(rowsBytes)
    }
    return this.writer
  }

  get count(): number {
    return this.closed.length + this.writer.count
  }

  /** Those with rows, to be appended in this order. */
  chunks(): RowWriter[] {
    return this.writer.count > 0 ? [...this.closed, this.writer] : this.closed
  }

  raiseReceivedAt(micros: number): void {
    for (const writer of this.chunks()) writer.raiseReceivedAt(micros)
  }

  reset(): void {
    this.closed = []
    this.writer = this.first
    this.writer.reset()
  }
}

export class Cycle {
  number = 0
  /** When its first payload came, in microseconds; 0 while it is empty. */
  beganAt = 0
  /** Bytes held: rows and dead letters. */
  bytes = 0
  readings = 0
  payloads = 0
  /** Readings that became dead letters. */
  deadLettered = 0
  readonly deadLetteredBy = new Map<RejectReason, number>()
  readonly rows: readonly PartitionChunks[]
  readonly deadLetters: readonly PartitionChunks[]

  constructor(partitions: number) {
    this.rows = Array.from({ length: partitions }, (_, partition) => new PartitionChunks('readings', partition))
    this.deadLetters = Array.from(
      { length: partitions },
      (_, partition) => new PartitionChunks('dead-letters', partition),
    )
  }

  begin(number: number): void {
    this.number = number
    this.beganAt = 0
    this.bytes = 0
    this.readings = 0
    this.payloads = 0
    this.deadLettered = 0
    this.deadLetteredBy.clear()
    for (const chunks of this.rows) chunks.reset()
    for (const chunks of this.deadLetters) chunks.reset()
  }
}
