// The statement of a request, from `query=` and the body together, and the bytes behind it when it is an INSERT with data. Only the head of
// a body is looked at; data are passed on as they come.
import type { IncomingMessage } from 'node:http'
import { pipeline, type Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { EngineError } from './engine-error.ts'
import type { HttpQuery } from './request-query.ts'
import { type SqlShape, sqlShape } from './sql-shape.ts'

export interface ReadStatement {
  readonly shape: SqlShape
  readonly sql: string
  /** Set for `INSERT … FORMAT x`. */
  readonly data: AsyncIterable<Uint8Array> | undefined
}

/** Enough to find where the data of an INSERT begin. */
const headBytes = 256 * 1024
const sqlBytesMax = 16 * 1024 ** 2

export async function readStatement(query: HttpQuery, request: IncomingMessage): Promise<ReadStatement> {
  const body = new Body(query.isBodyCompressed ? gunzipped(request) : request)
  if (query.sql !== undefined) {
    const inUrl = Buffer.from(query.sql, 'utf8')
    const shape = sqlShape(inUrl.toString('latin1'))
    if (shape.insert) return withData(shape, inUrl, body)
    await body.fill(headBytes)
    if (body.length === 0) return { shape, sql: statementText(inUrl, shape), data: undefined }
    body.putFirst(Buffer.concat([inUrl, Buffer.from('\n')]))
  }
  await body.fill(headBytes)
  let head = body.head()
  let shape = sqlShape(head.toString('latin1'))
  if (!body.hasEnded && (!shape.insert || shape.insert.dataStart + 1 >= head.length)) {
    await body.fill(sqlBytesMax)
    if (!body.hasEnded) throw new EngineError(62, 'SYNTAX_ERROR', `The statement is longer than ${sqlBytesMax} bytes`)
    head = body.head()
    shape = sqlShape(head.toString('latin1'))
  }
  if (shape.insert) {
    body.clear()
    return withData(shape, head, body)
  }
  return { shape, sql: statementText(head, shape), data: undefined }
}

/** Ends with an error when the client goes away, as the request itself does. */
function gunzipped(request: IncomingMessage): Readable {
  return pipeline(request, createGunzip(), () => {})
}

function withData(shape: SqlShape, text: Buffer, body: Body): ReadStatement {
  body.putFirst(text.subarray(shape.insert!.dataStart))
  return { shape, sql: statementText(text, shape), data: body }
}

function statementText(text: Buffer, shape: SqlShape): string {
  return text.subarray(0, shape.end).toString('utf8')
}

/** A body that can be looked into before it is passed on. */
class Body implements AsyncIterable<Uint8Array> {
  hasEnded = false
  length = 0
  private chunks: Buffer[] = []
  private readonly source: AsyncIterator<Buffer>

  constructor(source: Readable) {
    this.source = source[Symbol.asyncIterator]() as AsyncIterator<Buffer>
  }

  /** Until this many bytes are here, or all. */
  async fill(bytes: number): Promise<void> {
    while (!this.hasEnded && this.length < bytes) {
      const next = await this.source.next()
      if (next.done) this.hasEnded = true
      else this.add(next.value)
    }
  }

  head(): Buffer {
    return Buffer.concat(this.chunks)
  }

  putFirst(bytes: Buffer): void {
    this.chunks.unshift(bytes)
    this.length += bytes.length
  }

  clear(): void {
    this.chunks = []
    this.length = 0
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    yield* this.chunks.splice(0)
    while (!this.hasEnded) {
      const next = await this.source.next()
      if (next.done) this.hasEnded = true
      else yield next.value
    }
  }

  private add(chunk: Buffer): void {
    this.chunks.push(chunk)
    this.length += chunk.length
  }
}
