// The embedded server as any ClickHouse client meets it (plain HTTP, no client library), and how it lives and dies.
import { randomUUID } from 'node:crypto'
import { readdir, stat } from 'node:fs/promises'
import { request } from 'node:http'
import { join } from 'node:path'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { RetryableError } from '../../runtime/errors.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { type ClickHouseProcess, startClickHouse } from '../../tests/helpers/clickhouse-process.ts'
import { waitFor } from '../../tests/helpers/wait-for.ts'
import { numberRows } from '../clickhouse.contract.ts'
import { insertRows } from '../insert-rows.ts'
import { migrate } from '../migrate.ts'
import { openClickHouse } from '../open-clickhouse.ts'
import { folded, readingsTable } from '../tables.ts'
import { type ClickHouseEndpoint, readEndpoint } from './endpoint.ts'

const slowSql = 'SELECT sum(sin(number)) FROM numbers(5000000000)'

describe('the embedded server', () => {
  let server: ClickHouseProcess
  let endpoint: ClickHouseEndpoint
  beforeAll(async () => {
    server = await startClickHouse()
    endpoint = await readEndpoint(server.data)
    await ask('CREATE DATABASE test')
  })
  afterAll(() => server?.dispose())

  const basic = (): string => `Basic ${Buffer.from(`${endpoint.username}:${endpoint.password}`).toString('base64')}`
  async function send(
    parameters: Record<string, string>,
    init: RequestInit & { body?: string | Uint8Array<ArrayBuffer> | null } = {},
  ): Promise<Response> {
    const headers = { authorization: basic(), ...(init.headers as Record<string, string> | undefined) }
    return fetch(`${endpoint.url}/?${new URLSearchParams(parameters)}`, { method: 'POST', ...init, headers })
  }
  async function ask(sql: string, parameters: Record<string, string> = {}): Promise<string> {
    const response = await send(parameters, { body: sql })
    const text = await response.text()
    if (!response.ok) throw new Error(text)
    return text
  }
  async function refusal(response: Response): Promise<[number, number]> {
    const text = await response.text()
    const code = Number(response.headers.get('x-clickhouse-exception-code'))
    expect(text).toMatch(new RegExp(`^Code: ${code}\\. DB::Exception: .+\\([A-Z_]+\\)`))
    return [response.status, code]
  }

  describe('asked over HTTP', () => {
    it('answers /ping and an empty GET without a secret or with it', async () => {
      expect(await (await fetch(`${endpoint.url}/ping`)).text()).toBe('Ok.\n')
      expect(await (await send({}, { method: 'GET' })).text()).toBe('Ok.\n')
      expect((await fetch(`${endpoint.url}/play`)).status).toBe(404)
    })

    it('lets nobody in without the secret', async () => {
      expect(await refusal(await fetch(`${endpoint.url}/?query=SELECT+1`))).toEqual([401, 194])
      const wrong = { 'X-ClickHouse-User': endpoint.username, 'X-ClickHouse-Key': 'wrong' }
      expect(await refusal(await fetch(`${endpoint.url}/?query=SELECT+1`, { headers: wrong }))).toEqual([403, 516])
      expect(await refusal(await fetch(`${endpoint.url}/?query=SELECT+1&user=default`))).toEqual([403, 516])
    })

    it('takes the secret as basic auth, as headers, as parameters', async () => {
      const { username, password } = endpoint
      const key = { 'X-ClickHouse-User': username, 'X-ClickHouse-Key': password }
      expect(await (await fetch(`${endpoint.url}/?query=SELECT+1`, { headers: key })).text()).toBe('1\n')
      const inUrl = new URLSearchParams({ query: 'SELECT 1', user: username, password })
      expect(await (await fetch(`${endpoint.url}/?${inUrl}`)).text()).toBe('1\n')
      expect(await ask('SELECT 1')).toBe('1\n')
    })

    it('is not held by clients that go away in the middle of an answer, however many', async () => {
      const sql = "SELECT number, repeat('x', 200) FROM numbers(20000000) FORMAT JSONEachRow"
      const leave = (afterBytes: number): Promise<void> =>
        new Promise((resolve) => {
          const options = { method: 'POST', agent: false, headers: { authorization: basic() } }
          const asked = request(`${endpoint.url}/`, options, (answer) => {
            let bytes = 0
            answer.on('data', (data: Buffer) => {
              bytes += data.length
              if (bytes >= afterBytes) answer.destroy()
            })
            answer.on('close', () => resolve())
            answer.on('error', () => {})
          })
          asked.on('error', () => resolve())
          asked.end(sql)
        })
      for (let i = 0; i < 6; i++) await Promise.all([1, 2, 3].map((each) => leave(each * i * 100_000)))
      // More than run at once: a place that is never given back would keep these waiting for ever.
      const answers = Array.from({ length: 8 }, () => ask('SELECT 1'))
      expect(await Promise.all(answers)).toEqual(answers.map(() => '1\n'))
    }, 60_000)

    it('takes the statement from the URL, from the body, or from both', async () => {
      expect(await (await send({ query: 'SELECT 1' }, { method: 'GET' })).text()).toBe('1\n')
      expect(await (await send({ query: 'SELECT' }, { body: '2 AS x FORMAT JSONEachRow' })).text()).toBe('{"x":2}\n')
      expect(await ask('SELECT currentDatabase()', { database: 'test' })).toBe('test\n')
    })

    it('says format, id, rows and type in headers', async () => {
      const response = await send(
        { query_id: 'my-id', default_format: 'JSON' },
        { body: 'SELECT number FROM numbers(3)' },
      )
      expect(response.headers.get('x-clickhouse-query-id')).toBe('my-id')
      expect(response.headers.get('x-clickhouse-format')).toBe('JSON')
      expect(response.headers.get('content-type')).toBe('application/json; charset=UTF-8')
      expect(JSON.parse(response.headers.get('x-clickhouse-summary')!)).toMatchObject({ result_rows: '3' })
      expect(await response.json()).toMatchObject({ rows: 3 })
    })

    it('compresses when asked to', async () => {
      const answered = await new Promise<{ encoding: string | undefined; body: Buffer }>((resolve, reject) => {
        const url = `${endpoint.url}/?${new URLSearchParams({ query: 'SELECT 1', enable_http_compression: '1' })}`
        request(url, { headers: { authorization: basic(), 'accept-encoding': 'gzip' } }, (response) => {
          const parts: Buffer[] = []
          response.on('data', (part: Buffer) => parts.push(part))
          response.on('end', () =>
            resolve({ encoding: response.headers['content-encoding'], body: Buffer.concat(parts) }),
          )
        })
          .on('error', reject)
          .end()
      })
      expect(answered.encoding).toBe('gzip')
      expect(gunzipSync(answered.body).toString()).toBe('1\n')
    })

    it('a GET changes nothing', async () => {
      const sql = 'CREATE TABLE test.never (x UInt8) ENGINE = Memory'
      expect(await refusal(await send({ query: sql }, { method: 'GET' }))).toEqual([403, 164])
    })

    it('binds parameters as they come in the URL', async () => {
      const sql = 'SELECT {a:String}, {b:Array(UInt8)}, {c:Nullable(String)} FORMAT JSONCompactEachRow'
      expect(await ask(sql, { param_a: "it\\'s\\t", param_b: '[1,2]', param_c: '\\N' })).toBe(
        `["it's\\t", [1,2], null]\n`,
      )
      expect(await refusal(await send({}, { body: sql }))).toEqual([400, 456])
    })

    it.each([
      ['a session', { session_id: 'x' }, {}],
      ['a role', { role: 'x' }, {}],
      ['progress in headers', { send_progress_in_http_headers: '1' }, {}],
      ["ClickHouse's own compression", { compress: '1' }, {}],
      ['a multipart body', {}, { headers: { 'content-type': 'multipart/form-data; boundary=x' } }],
      ['zstd', {}, { headers: { 'content-encoding': 'zstd' } }],
      ['another method', {}, { method: 'PUT' }],
    ] as const)('refuses %s, which it does not do', async (_, parameters, init) => {
      expect(await refusal(await send({ ...parameters, query: 'SELECT 1' }, { body: ' ', ...init }))).toEqual([501, 48])
    })

    it.each([
      ['SELECT 1; SELECT 2', 400, 62],
      ['', 400, 62],
      ["SELECT 1 INTO OUTFILE '/tmp/x'", 500, 358],
      ['SELECT * FROM test.nothing', 404, 60],
      ['SELECT throwIf(1)', 500, 395],
    ])('refuses %j', async (sql, status, code) => {
      expect(await refusal(await send({}, { body: sql }))).toEqual([status, code])
    })

    it('SET and USE end with their request', async () => {
      const settings = "SELECT getSetting('max_threads'), currentDatabase()"
      const before = await ask(settings)
      await ask('SET max_threads = 7')
      await ask('USE test')
      expect(before).toMatch(/^[1-4]\tdefault\n$/)
      expect(await ask(settings)).toBe(before)
    })
  })

  describe('given rows over HTTP', () => {
    const table = (columns: string): Promise<string> => {
      const name = `test.t${randomUUID().replaceAll('-', '')}`
      return ask(`CREATE TABLE ${name} (${columns}) ENGINE = MergeTree ORDER BY tuple()`).then(() => name)
    }

    it.each([
      ['JSONEachRow', '{"a":1,"b":"x"}\n{"b":"y","a":2}'],
      ['CSV', '1,"x"\n2,y\n'],
      ['TabSeparated', '1\tx\n2\ty\n'],
      ['Values', "(1,'x'),(2,'y')"],
      ['RowBinary', Buffer.from([1, 1, 120, 2, 1, 121])],
    ])('takes %s, behind the statement or beside it', async (format, data) => {
      const name = await table('a UInt8, b LowCardinality(String)')
      const head = Buffer.from(`INSERT INTO ${name} FORMAT ${format}\n`)
      const together = new Uint8Array(Buffer.concat([head, Buffer.from(data as string)]))
      const first = await send({}, { body: together })
      expect([first.status, await first.text()]).toEqual([200, ''])
      await (await send({ query: head.toString() }, { body: new Uint8Array(Buffer.from(data as string)) })).text()
      expect(await ask(`SELECT a, b, count() FROM ${name} GROUP BY a, b ORDER BY a`)).toBe('1\tx\t2\n2\ty\t2\n')
      expect(await readdir(join(server.data, 'clickhouse/spool'))).toEqual([])
    })

    it('takes VALUES, a list of columns, a compressed body', async () => {
      const name = await table("a UInt8, b String DEFAULT 'none'")
      await ask(`INSERT INTO ${name} (a) VALUES (1)`)
      const body = new Uint8Array(gzipSync(`INSERT INTO ${name} (a) FORMAT JSONEachRow {"a":2}`))
      expect((await send({}, { body, headers: { 'content-encoding': 'gzip' } })).status).toBe(200)
      expect(await ask(`SELECT * FROM ${name} ORDER BY a`)).toBe('1\tnone\n2\tnone\n')
    })

    it('takes no rows, a body larger than memory of a socket, and refuses what it can not do right', async () => {
      const name = await table('a UInt32')
      expect((await send({}, { body: `INSERT INTO ${name} FORMAT RowBinary` })).status).toBe(200)
      const many = new Uint8Array(4 * 1_000_000)
      expect((await send({ query: `INSERT INTO ${name} FORMAT RowBinary` }, { body: many })).status).toBe(200)
      expect(await ask(`SELECT count() FROM ${name}`)).toBe('1000000\n')
      const withDefault = await table("a UInt8, b String DEFAULT 'none'")
      expect(await refusal(await send({}, { body: `INSERT INTO ${withDefault} FORMAT JSONEachRow {"a":1}` }))).toEqual([
        501, 48,
      ])
      expect(await refusal(await send({}, { body: 'INSERT INTO test.nothing FORMAT CSV 1' }))).toEqual([404, 60])
    })

    it('rows of which one is bad are all refused, and so are those of a client that goes away', async () => {
      const name = await table('a UInt8')
      expect((await send({}, { body: `INSERT INTO ${name} FORMAT CSV\n1\n2\nthree\n` })).status).toBe(400)
      await new Promise<void>((resolve) => {
        const url = `${endpoint.url}/?${new URLSearchParams({ query: `INSERT INTO ${name} FORMAT RowBinary` })}`
        const half = request(url, { method: 'POST', headers: { authorization: basic() } })
        half.on('error', () => resolve())
        half.write(new Uint8Array(100_000), () => half.destroy())
      })
      await waitFor(async () => (await readdir(join(server.data, 'clickhouse/spool'))).length === 0)
      expect(await ask(`SELECT count() FROM ${name}`)).toBe('0\n')
    })
  })

  it('answers /ping, takes rows and cancels while queries hold every place, and refuses the one too many', async () => {
    await ask('CREATE TABLE test.busy (x UInt8) ENGINE = MergeTree ORDER BY x')
    const leaving = new AbortController()
    const { signal } = leaving
    // A scalar subquery is evaluated while the engine plans: that, too, must not hold the server up.
    const scalar = `SELECT (${slowSql}) FORMAT JSONEachRow`
    const running = Array.from({ length: 4 }, (_, i) =>
      send({ max_threads: '1' }, { body: i === 0 ? scalar : slowSql, signal }).catch((error: Error) => error),
    )
    // 4 run and 64 wait. Some may be answered before the slow ones have begun.
    const refused: (readonly [number, number])[] = []
    const waiting = Promise.allSettled(
      Array.from({ length: 200 }, async () => {
        const response = await send({}, { body: 'SELECT 1', signal })
        if (response.status !== 200) refused.push(await refusal(response))
      }),
    )
    await waitFor(() => refused.length > 0, { what: 'one too many' })
    expect(refused[0]).toEqual([503, 202])
    expect(await (await fetch(`${endpoint.url}/ping`)).text()).toBe('Ok.\n')
    const clickhouse = openClickHouse(() => readEndpoint(server.data), { logger: silentLogger })
    expect(await ask('INSERT INTO test.busy FORMAT CSV 1')).toBe('')
    leaving.abort()
    for (const each of await Promise.all(running)) expect(each).toBeInstanceOf(Error)
    await waiting
    await waitFor(async () => (await clickhouse.query('SELECT 1', { database: 'default' })).rows.length === 1)
    await clickhouse.close()
  })

  it('keeps its secret to its owner', async () => {
    const { mode } = await stat(join(server.data, 'clickhouse/endpoint.json'))
    expect(mode & 0o777).toBe(0o600)
    expect(endpoint.password.length).toBeGreaterThan(20)
  })

  it('refuses a directory that another process has', async () => {
    // Waits a while for the other to let go, as after a kill.
    await expect(startClickHouse({ data: server.data })).rejects.toThrow(/in use|can't be opened|lock/i)
    expect(await ask('SELECT 1')).toBe('1\n')
  })

  it('starts at once after a kill -9, on its port, with its secret and everything that it had acknowledged', async () => {
    const clickhouse = openClickHouse(() => readEndpoint(server.data), { logger: silentLogger })
    await migrate(clickhouse)
    const tenant = `test-${randomUUID()}`
    const count = async (): Promise<number> => {
      const { rows } = await clickhouse.query<{ n: number }>(
        `SELECT count() AS n FROM ${folded(readingsTable)} WHERE tenant = {tenant:String}`,
        { parameters: { tenant } },
      )
      return rows[0]!.n
    }
    let acknowledged = 0
    for (let round = 0; round < 5; round++) {
      // Killed in the middle of inserts; what was not acknowledged is written again, as the writer does.
      const inserting = (async () => {
        for (;;) {
          await insertRows(clickhouse, readingsTable, [numberRows(tenant, 20_000, acknowledged)])
          acknowledged += 20_000
        }
      })().catch((error: unknown) => error)
      await waitFor(() => acknowledged >= (round + 1) * 40_000)
      await server.kill()
      expect(await inserting).toBeInstanceOf(RetryableError)
      await server.start()
      expect(await count()).toBeGreaterThanOrEqual(acknowledged)
      await insertRows(clickhouse, readingsTable, [numberRows(tenant, 20_000, acknowledged)])
      acknowledged += 20_000
      expect(await count()).toBe(acknowledged)
    }
    expect(await readEndpoint(server.data)).toEqual(endpoint)
    await clickhouse.close()
  })

  it('ends in order while queries run', async () => {
    const slow = send({}, { body: slowSql }).catch((error: Error) => error)
    await waitFor(
      async () => (await ask("SELECT count() FROM system.processes WHERE query LIKE '%sin(number)%'")) !== '1\n',
    )
    await server.kill('SIGTERM')
    await slow
    await server.start()
    expect(await ask('SELECT 1')).toBe('1\n')
  })
})
