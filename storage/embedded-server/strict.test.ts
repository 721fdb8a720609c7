// What ClickHouse's HTTP interface does and ours does not is refused, in words; and what a careless or hostile client does stays that client's trouble:
// memory, statements and places are as before once it is gone.
import { randomBytes, randomUUID } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { Agent, type IncomingMessage, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ClickHouseProcess, startClickHouse } from '../../tests/helpers/clickhouse-process.ts'
import { pause, waitFor } from '../../tests/helpers/wait-for.ts'
import { type ClickHouseEndpoint, readEndpoint } from './endpoint.ts'

const slowSql = 'SELECT sum(sin(number)) FROM numbers(5000000000)'
const mebibyte = 1024 ** 2

describe('the embedded server is strict', () => {
  let server: ClickHouseProcess
  let endpoint: ClickHouseEndpoint
  beforeAll(async () => {
    server = await startClickHouse()
    endpoint = await readEndpoint(server.data)
    await ask('CREATE DATABASE test')
  }, 60_000)
  afterAll(() => server?.dispose())

  interface Sent {
    readonly status: number
    readonly headers: IncomingMessage['headers']
    readonly body: Buffer
    readonly code: number
  }
  interface Send {
    readonly method?: string
    readonly headers?: Record<string, string>
    readonly body?: string | Uint8Array | Readable
    readonly agent?: Agent
    readonly signal?: AbortSignal
    readonly anonymous?: boolean
    /** Instead of the root. */
    readonly path?: string
  }
  const basic = (password = endpoint.password): string =>
    `Basic ${Buffer.from(`${endpoint.username}:${password}`).toString('base64')}`
  /** By node:http, which sends what it is told to; fetch does not. */
  function send(parameters: string | Record<string, string>, options: Send = {}): Promise<Sent> {
    const { method = 'POST', headers = {}, body, agent, signal, anonymous, path = '/' } = options
    const query = typeof parameters === 'string' ? parameters : String(new URLSearchParams(parameters))
    return new Promise((resolve, reject) => {
      const sent = request(
        `${endpoint.url}${path}?${query}`,
        {
          method,
          headers: { ...(anonymous ? {} : { authorization: basic() }), ...headers },
          ...(agent && { agent }),
          ...(signal && { signal }),
        },
        (response) => {
          const parts: Buffer[] = []
          response.on('data', (part: Buffer) => parts.push(part))
          response.on('error', reject)
          response.on('end', () =>
            resolve({
              status: response.statusCode!,
              headers: response.headers,
              body: Buffer.concat(parts),
              code: Number(response.headers['x-clickhouse-exception-code'] ?? 0),
            }),
          )
        },
      )
      sent.on('error', reject)
      if (body instanceof Readable) body.pipe(sent)
      else sent.end(body)
    })
  }
  async function ask(sql: string): Promise<string> {
    const { status, body } = await send({}, { body: sql })
    if (status !== 200) throw new Error(body.toString())
    return body.toString()
  }
  const running = async (mark: string): Promise<number> =>
    Number(
      await ask(`SELECT count() FROM system.processes WHERE query LIKE '%${mark}%' AND query NOT LIKE '%processes%'`),
    )
  const spooled = (): Promise<string[]> => readdir(join(server.data, 'clickhouse/spool'))
  /** The process's own: not the pages of files that the engine maps, which the system takes back when it needs them. */
  const memoryMiB = async (): Promise<number> => {
    const status = await readFile(`/proc/${server.pid()}/status`, 'utf8')
    return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)![1]) / 1024
  }
  /** Most that it grew by while `work` went on. */
  const growthMiB = async (work: () => Promise<unknown>): Promise<number> => {
    const before = await memoryMiB()
    let most = before
    let isDone = false
    const watching = (async () => {
      while (!isDone) {
        most = Math.max(most, await memoryMiB())
        await pause(20)
      }
    })()
    await work().finally(() => {
      isDone = true
    })
    await watching
    return most - before
  }

  describe('refuses with 501 and NOT_IMPLEMENTED', () => {
    it.each<[string, Record<string, string>, Send]>([
      ['a session', { session_id: 'x' }, {}],
      ['a session check', { session_check: '1' }, {}],
      ['a role', { role: 'x' }, {}],
      ['a quota key', { quota_key: 'x' }, {}],
      ['a quota key as a header', {}, { headers: { 'X-ClickHouse-Quota': 'x' } }],
      ['a certificate instead of a password', {}, { headers: { 'X-ClickHouse-SSL-Certificate-Auth': 'on' } }],
      ['a header that it does not know', {}, { headers: { 'X-ClickHouse-Whatever': '1' } }],
      ['compress', { compress: '1' }, {}],
      ['decompress', { decompress: '1' }, {}],
      ['a buffer before the answer', { buffer_size: '1000' }, {}],
      ['http_response_buffer_size', { http_response_buffer_size: '1000' }, {}],
      ['headers of the client’s choice', { http_response_headers: "{'a':'b'}" }, {}],
      ['progress in headers', { send_progress_in_http_headers: '1' }, {}],
      ['errors inside answers', { http_write_exception_in_output_format: '1' }, {}],
      ['CORS', { add_http_cors_header: '1' }, {}],
      ['native compression without checksums', { http_native_compression_disable_checksumming_on_decompress: '1' }, {}],
      ['queries that outlive their client', { cancel_http_readonly_queries_on_client_close: '0' }, {}],
      ['asynchronous inserts', { async_insert: '1' }, {}],
      ['external tables', { t_structure: 'a UInt8' }, {}],
      ['a multipart body', {}, { headers: { 'content-type': 'multipart/form-data; boundary=x' } }],
      ['zstd', {}, { headers: { 'content-encoding': 'zstd' } }],
      ['lz4', {}, { headers: { 'content-encoding': 'lz4' } }],
      ['two encodings', {}, { headers: { 'content-encoding': 'gzip, gzip' } }],
      ['a bearer token', {}, { headers: { authorization: 'Bearer x' } }],
      ['PUT', {}, { method: 'PUT' }],
      ['DELETE', {}, { method: 'DELETE' }],
      ['PATCH', {}, { method: 'PATCH' }],
    ])('%s', async (_, parameters, options) => {
      const answer = await send({ ...parameters, query: 'SELECT 1' }, options)
      expect([answer.status, answer.code, answer.body.toString()]).toEqual([
        501,
        48,
        expect.stringMatching(
          /^Code: 48\. DB::Exception: .+ is not supported by the embedded server\. \(NOT_IMPLEMENTED\)/,
        ),
      ])
    })

    it.each([
      ['INTO OUTFILE', "SELECT 1 INTO OUTFILE '/tmp/x'", 358],
      ['FROM INFILE', "INSERT INTO test.t FROM INFILE '/etc/hostname' FORMAT CSV", 48],
      ['async_insert in the statement', 'INSERT INTO test.t SETTINGS async_insert = 1 FORMAT CSV 1', 48],
    ])('%s', async (_, sql, code) => {
      expect((await send({}, { body: sql })).code).toBe(code)
    })
  })

  it.each<[string, string, number, number]>([
    ['a parameter that is there twice', 'query=SELECT+1&database=test&database=default', 400, 36],
    ['a setting that does not exist', 'query=SELECT+1&no_such_setting=1', 404, 115],
    ['a setting that is no name', 'query=SELECT+1&max%20threads=1', 404, 115],
    ['a value that a setting does not take', 'query=SELECT+1&max_threads=many', 400, 0],
    ['a flag that is neither on nor off', 'query=SELECT+1&wait_end_of_query=perhaps', 400, 36],
    [
      'a level of compression that does not exist',
      'query=SELECT+1&enable_http_compression=1&http_zlib_compression_level=10',
      400,
      36,
    ],
    ['an id with a line break', 'query=SELECT+1&query_id=a%0d%0aSet-Cookie:b', 400, 36],
    ['an id that is too long', `query=SELECT+1&query_id=${'x'.repeat(257)}`, 400, 36],
    ['a parameter that is no name', 'query=SELECT+1&param_a-b=1', 400, 36],
    ['a format that does not exist', 'query=SELECT+1&default_format=Papyrus', 400, 73],
    ['a format that does not exist, in the statement', 'query=SELECT+1+FORMAT+Papyrus', 400, 73],
    ['a database that does not exist', 'query=SELECT+1&database=nothing', 404, 81],
    ['two statements', 'query=SELECT+1;SELECT+2', 400, 62],
  ])('refuses %s', async (_, query, status, code) => {
    const answer = await send(query, { headers: { 'accept-encoding': 'gzip' } })
    expect(answer.code).toBeGreaterThan(0)
    if (code > 0) expect([answer.status, answer.code]).toEqual([status, code])
    expect(answer.body.toString()).toMatch(/^Code: \d+\. DB::Exception: /)
    expect(answer.headers['set-cookie']).toBeUndefined()
  })

  it('takes as nothing what asks for nothing', async () => {
    const nothing =
      'compress=0&decompress=0&session_id=&stacktrace=0&buffer_size=0&http_write_exception_in_output_format=0'
    expect((await send(`query=SELECT+1&${nothing}`)).body.toString()).toBe('1\n')
    expect((await send('query=SELECT+1', { headers: { 'content-encoding': 'identity' } })).status).toBe(200)
  })

  it('runs no second query with an id that is running', async () => {
    const leaving = new AbortController()
    const id = randomUUID()
    const slow = send({ query_id: id }, { body: slowSql, signal: leaving.signal }).catch((error: Error) => error)
    await waitFor(async () => (await running('sin(number)')) === 1, { withinMs: 20_000 })
    const second = await send({ query_id: id, query: 'SELECT 1' })
    expect([second.status, second.code]).toEqual([500, 216])
    leaving.abort()
    await slow
    await waitFor(async () => (await send({ query_id: id, query: 'SELECT 1' })).status === 200, { withinMs: 20_000 })
  })

  describe('in', () => {
    it.each<[string, string, Send, number, number]>([
      ['nobody without a secret', 'query=SELECT+1', {}, 401, 194],
      ['no wrong password', 'query=SELECT+1', { headers: { authorization: 'Basic d2VpcjpubA==' } }, 403, 516],
      ['no user without a password', 'query=SELECT+1&user=weir', {}, 403, 516],
      ['no empty password', 'query=SELECT+1&user=weir&password=', {}, 403, 516],
      ['no key without a user', 'query=SELECT+1', { headers: { 'X-ClickHouse-Key': 'x' } }, 403, 516],
      ['no Basic that is none', 'query=SELECT+1', { headers: { authorization: 'Basic' } }, 501, 48],
      ['no Basic without a colon', 'query=SELECT+1', { headers: { authorization: 'Basic eA==' } }, 403, 516],
    ])('lets %s', async (_, query, options, status, code) => {
      const answer = await send(query, { ...options, anonymous: true })
      expect([answer.status, answer.code]).toEqual([status, code])
    })

    it('lets nobody who says it in two ways, one right and one wrong, or both right', async () => {
      const { username, password } = endpoint
      for (const key of [password, 'wrong']) {
        const headers = { 'X-ClickHouse-User': username, 'X-ClickHouse-Key': key }
        expect((await send('query=SELECT+1', { headers })).code).toBe(516)
        expect((await send({ query: 'SELECT 1', user: username, password: key })).code).toBe(516)
      }
    })

    it('a wrong secret costs no statement, however large the body', async () => {
      const body = Readable.from(
        (function* () {
          for (let i = 0; i < 64; i++) yield randomBytes(mebibyte)
        })(),
      )
      const answer = await send('query=INSERT+INTO+test.t+FORMAT+RowBinary', {
        headers: { authorization: basic('wrong') },
        body,
      }).catch((error: NodeJS.ErrnoException) => error)
      // It is told, or cut off in the middle of what it sends.
      if (answer instanceof Error) expect(['EPIPE', 'ECONNRESET']).toContain(answer.code)
      else expect(answer.code).toBe(516)
      expect(await spooled()).toEqual([])
    })
  })

  describe('/ping', () => {
    it.each([
      ['GET', 200, 'Ok.\n'],
      ['HEAD', 200, ''],
      ['POST', 405, '/ping is asked with GET or HEAD, not POST\n'],
    ])('%s is %i', async (method, status, text) => {
      const answer = await send('', { method, path: '/ping', anonymous: true })
      expect([answer.status, answer.body.toString()]).toEqual([status, text])
    })

    it.each([
      ['/play', 404],
      ['/dashboard', 404],
      ['/replicas_status', 404],
      ['//[', 404],
      // The root, said in another way: without a secret.
      ['/ping/../', 401],
    ])('there is nothing at %s', async (path, expected) => {
      const { status } = await raw(`GET ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`)
      expect(status).toBe(expected)
      expect((await send('', { path: '/ping', method: 'GET' })).status).toBe(200)
    })
  })

  /** Bytes as they are. */
  async function raw(bytes: string): Promise<{ status: number; text: string }> {
    const socket = await dial()
    socket.end(bytes)
    let text = ''
    for await (const part of socket.setEncoding('utf8')) text += part
    return { status: Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1]), text }
  }
  function dial(): Promise<Socket> {
    const { hostname, port } = new URL(endpoint.url)
    return new Promise((resolve, reject) => {
      const socket = connect(Number(port), hostname, () => resolve(socket))
      socket.once('error', reject)
    })
  }

  describe('HTTP', () => {
    it('a hundred idle connections keep nobody out, and one connection takes request after request', async () => {
      const idle = await Promise.all(Array.from({ length: 100 }, dial))
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      for (let i = 0; i < 20; i++) {
        // Errors, too, leave a connection that can be used.
        const answer = await send({ query: i % 3 === 0 ? 'SELEC 1' : `SELECT ${i}` }, { agent })
        expect(answer.body.toString()).toContain(i % 3 === 0 ? 'SYNTAX_ERROR' : `${i}\n`)
      }
      expect(Object.values(agent.freeSockets).flat()).toHaveLength(1)
      agent.destroy()
      for (const socket of idle) socket.destroy()
    }, 30_000)

    it.each([
      ['what is no HTTP', 'SELECT 1\r\n\r\n', 400],
      ['a length that is none', 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n', 400],
      [
        'two lengths',
        'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
        400,
      ],
      ['a head without end', `GET /?query=${'x'.repeat(mebibyte)} HTTP/1.1\r\n`, 431],
    ])('refuses %s, in words', async (_, bytes, status) => {
      const answer = await raw(bytes)
      expect(answer.status).toBe(status)
      expect(answer.text).toMatch(/X-ClickHouse-Exception-Code: 36\r\n[\s\S]*Code: 36\. DB::Exception: /)
    })

    it('takes a statement of half a megabyte in the URL, and parameters of a quarter', async () => {
      const long = `SELECT 1 /* ${'y'.repeat(500_000)} */`
      expect((await send({ query: long, max_query_size: '1000000' })).body.toString()).toBe('1\n')
      const bound = (length: number): Promise<Sent> =>
        send({ query: 'SELECT length({x:String})', param_x: 'y'.repeat(length) })
      expect((await bound(262_000)).body.toString()).toBe('262000\n')
      const tooLong = await bound(262_144)
      expect([tooLong.status, tooLong.code]).toEqual([501, 48])
    })

    it('takes a body in chunks, of any size', async () => {
      await ask('CREATE TABLE test.chunks (a UInt8) ENGINE = MergeTree ORDER BY a')
      const body = Readable.from(
        (function* () {
          for (let i = 0; i < 1_000; i++) yield Buffer.from([i & 255])
        })(),
      )
      const answer = await send({ query: 'INSERT INTO test.chunks FORMAT RowBinary' }, { body })
      expect([answer.status, answer.body.toString()]).toEqual([200, ''])
      expect(await ask('SELECT count() FROM test.chunks')).toBe('1000\n')
    })

    it('a compressed body that is cut, or is none, is refused', async () => {
      await ask('CREATE TABLE test.zipped (a UInt8) ENGINE = MergeTree ORDER BY a')
      const whole = gzipSync(Buffer.alloc(100_000))
      const headers = { 'content-encoding': 'gzip' }
      const query = 'INSERT INTO test.zipped FORMAT RowBinary'
      for (const body of [whole.subarray(0, whole.length - 20), Buffer.from('this is no gzip')])
        expect((await send({ query }, { body, headers })).code).toBe(354)
      expect(await ask('SELECT count() FROM test.zipped')).toBe('0\n')
      expect((await send({ query }, { body: whole, headers })).status).toBe(200)
      expect(await ask('SELECT count() FROM test.zipped')).toBe('100000\n')
    })

    it('an answer is compressed as strongly as was asked', async () => {
      const headers = { 'accept-encoding': 'gzip' }
      const sizes: number[] = []
      for (const level of ['1', '9']) {
        const parameters = { enable_http_compression: '1', http_zlib_compression_level: level }
        const answer = await send(parameters, { headers, body: 'SELECT number FROM numbers(100000)' })
        expect(answer.headers['content-encoding']).toBe('gzip')
        expect(gunzipSync(answer.body).toString().slice(-6)).toBe('99999\n')
        sizes.push(answer.body.length)
      }
      expect(sizes[1]).toBeLessThan(sizes[0]!)
    })
  })

  describe('when its client leaves', () => {
    it.each([
      ['a query that runs', slowSql],
      ['a query that streams', 'SELECT number, sin(number) FROM numbers(50000000000) FORMAT JSONEachRow'],
      ['an insert from a query', 'INSERT INTO test.endless SELECT sin(number) FROM numbers(50000000000)'],
    ])(
      '%s ends',
      async (_, sql) => {
        await ask('CREATE TABLE IF NOT EXISTS test.endless (a Float64) ENGINE = Null')
        const mark = randomUUID()
        const socket = await dial()
        socket.on('error', () => {})
        const body = `${sql} /* ${mark} */`
        socket.write(
          `POST / HTTP/1.1\r\nHost: x\r\nAuthorization: ${basic()}\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
        )
        // Nothing is read: what streams stands still, with what fits into buffers.
        await waitFor(async () => (await running(mark)) === 1, { withinMs: 20_000, what: 'it to run' })
        socket.destroy()
        await waitFor(async () => (await running(mark)) === 0, { withinMs: 20_000, what: 'it to end' })
      },
      50_000,
    )

    it.each([
      ['plain', {}],
      ['compressed', { 'content-encoding': 'gzip' }],
    ])(
      'half a body, %s, leaves nothing',
      async (_, headers) => {
        await ask('CREATE TABLE IF NOT EXISTS test.half (a UInt8) ENGINE = MergeTree ORDER BY a')
        const bytes = randomBytes(300_000)
        const query = String(new URLSearchParams({ query: 'INSERT INTO test.half FORMAT RowBinary' }))
        const half = request(`${endpoint.url}/?${query}`, {
          method: 'POST',
          headers: { authorization: basic(), ...headers },
        })
        half.on('error', () => {})
        half.write('content-encoding' in headers ? gzipSync(bytes).subarray(0, 200_000) : bytes)
        await waitFor(async () => (await spooled()).length === 1, { withinMs: 20_000, what: 'the body to arrive' })
        half.destroy()
        await waitFor(async () => (await spooled()).length === 0, { withinMs: 20_000, what: 'it to be let go' })
        expect(await ask('SELECT count() FROM test.half')).toBe('0\n')
      },
      50_000,
    )

    it('one that waits for its turn gives it up', async () => {
      const mark = randomUUID()
      const leaving = Array.from({ length: 20 }, () => new AbortController())
      const all = leaving.map(({ signal }) =>
        send({ max_threads: '1' }, { body: `${slowSql} /* ${mark} */`, signal }).catch((error: Error) => error),
      )
      // The four places are taken, so that nobody could ask what runs: /ping still answers.
      await waitFor(async () => (await send('', { path: '/ping', method: 'GET' })).status === 200)
      for (const each of leaving) each.abort()
      await Promise.all(all)
      await waitFor(async () => (await running(mark)) === 0, { withinMs: 20_000, what: 'all to end' })
    }, 50_000)
  })

  describe('large things pass through', () => {
    it('400 MiB of rows, in bounded memory', async () => {
      await ask('CREATE TABLE test.large (a UInt64) ENGINE = MergeTree ORDER BY tuple()')
      const block = randomBytes(mebibyte)
      const body = Readable.from(
        (function* () {
          for (let i = 0; i < 400; i++) yield block
        })(),
      )
      const grown = await growthMiB(async () => {
        const answer = await send({ query: 'INSERT INTO test.large FORMAT RowBinary' }, { body })
        expect([answer.status, answer.body.toString()]).toEqual([200, ''])
      })
      expect(await ask('SELECT count() FROM test.large')).toBe(`${(400 * mebibyte) / 8}\n`)
      // The engine's own blocks, some at once; never the body.
      expect(grown).toBeLessThan(300)
      expect(await spooled()).toEqual([])
    }, 120_000)

    it('400 MiB of answer, as fast as they are read, in bounded memory', async () => {
      let bytes = 0
      const read = (): Promise<void> =>
        new Promise((resolve, reject) => {
          const sql = `SELECT repeat('x', 127) FROM numbers(${400 * 8 * 1024}) FORMAT TabSeparated`
          const sent = request(endpoint.url, { method: 'POST', headers: { authorization: basic() } })
          sent.on('error', reject)
          sent.on('response', (response) => {
            response.on('error', reject)
            response.on('end', resolve)
            response.on('data', (part: Buffer) => {
              bytes += part.length
              if (bytes % (8 * mebibyte) > part.length) return
              // Stands still now and then: what is not read is not made.
              response.pause()
              setTimeout(() => response.resume(), 20)
            })
          })
          sent.end(sql)
        })
      const grown = await growthMiB(read)
      expect(bytes).toBe(400 * mebibyte)
      expect(grown).toBeLessThan(300)
    }, 120_000)
  })
})
