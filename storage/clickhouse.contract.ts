// What Weir relies on in a ClickHouse, whoever runs it: run by the embedded server with both ways of inserting, and by a server elsewhere when
// WEIR_TEST_CLICKHOUSE names one. Each test has a tenant of its own and deletes nothing.
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type DeadLetter, encodeDeadLetter } from '../domain/dead-letter.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { RetryableError } from '../runtime/errors.ts'
import { silentLogger } from '../runtime/logger.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { clickHouseCode, RejectedError, retryableCodes } from './classify-error.ts'
import { storedTableName } from './ddl.ts'
import { insertRows } from './insert-rows.ts'
import { migrate, migrations } from './migrate.ts'
import { type ClickHouse, type ClickHouseEndpoint, openClickHouse } from './open-clickhouse.ts'
import { deadLettersTable, folded, foldedSettings, onlyNumbers, readingsTable, type Table } from './tables.ts'

export interface ClickHouseContract {
  readonly name: string
  readonly endpoint: () => Promise<ClickHouseEndpoint>
  readonly way: 'file' | 'body'
}

interface Row {
  readonly device: string
  readonly metric: string
  readonly observedAt: number
  readonly value: number | null
  readonly text: string
  readonly receivedAt: number
}

const start = Date.UTC(2026, 0, 1) * 1000

/** 5,000,000,000 rows of arithmetic: minutes, unless something ends it. */
const slowSql = 'SELECT sum(sin(number)) FROM numbers(5000000000)'

export function clickhouseContract({ name, endpoint, way }: ClickHouseContract): void {
  describe(`ClickHouse: ${name}`, () => {
    let clickhouse: ClickHouse
    beforeAll(async () => {
      clickhouse = openClickHouse(endpoint, { logger: silentLogger })
      await migrate(clickhouse)
    })
    afterAll(() => clickhouse.close())

    const insert = (rows: Uint8Array | readonly Uint8Array[], table: Table = readingsTable): Promise<void> =>
      insertRows(clickhouse, table, rows instanceof Uint8Array ? [rows] : rows, { way })
    const read = async (tenant: string): Promise<Row[]> => {
      const { rows } = await clickhouse.query<Row>(
        `SELECT device, metric, toUnixTimestamp64Micro(observedAt) AS observedAt, value, text,
          toUnixTimestamp64Micro(receivedAt) AS receivedAt
        FROM ${folded(readingsTable)} WHERE tenant = {tenant:String} ORDER BY device, metric, readings.observedAt`,
        { parameters: { tenant }, settings: foldedSettings },
      )
      return rows
    }
    const count = async (tenant: string): Promise<number> => {
      const { rows } = await clickhouse.query<{ n: number }>(
        `SELECT count() AS n FROM ${folded(readingsTable)} WHERE tenant = {tenant:String}`,
        { parameters: { tenant } },
      )
      return rows[0]!.n
    }

    it('migrations twice are once, and two at once are once', async () => {
      expect(await migrate(clickhouse)).toEqual([])
      expect(await Promise.all([migrate(clickhouse), migrate(clickhouse)])).toEqual([[], []])
      const { rows } = await clickhouse.query<{ n: number }>(
        'SELECT count() AS n FROM (SELECT name FROM migrations FINAL GROUP BY name HAVING count() > 1)',
      )
      expect(rows).toEqual([{ n: 0 }])
    })

    it('several writers that start at once on an empty server are as one', async () => {
      const database = `weir_test_${randomUUID().replaceAll('-', '')}`
      const fresh = Array.from({ length: 6 }, () =>
        openClickHouse(async () => ({ ...(await endpoint()), database }), { logger: silentLogger }),
      )
      const names = (await Promise.all(fresh.map((each) => migrate(each)))).flat()
      expect(new Set(names)).toEqual(new Set((await migrations()).map(({ name: each }) => each)))
      const tenant = newTenant()
      await insertRows(fresh[0]!, readingsTable, [numberRows(tenant, 10)], { way })
      expect(await migrate(fresh[1]!)).toEqual([])
      const counted = await fresh[1]!.query(`SELECT count() AS n FROM ${folded(readingsTable)}`)
      expect(counted.rows).toEqual([{ n: 10 }])
      // In a database of its own: nobody else's sees it.
      expect(await count(tenant)).toBe(0)
      const { cluster } = await clickhouse.layout()
      await clickhouse.command(`DROP DATABASE ${database}${cluster ? ` ON CLUSTER '${cluster}'` : ''}`)
      for (const each of fresh) await each.close()
    })

    it('every column of a reading comes back as it went in', async () => {
      const tenant = newTenant()
      const writer = new RowWriter()
      const numbers = [0, -0.5, 21.25, 1e-300, -1.7976931348623157e308, Number.MAX_SAFE_INTEGER, 0.1 + 0.2]
      numbers.forEach((value, i) => {
        writer.number(encodeRowPrefix(tenant, 'dev-1', 'a'), start + i, value, start + 7 + i)
      })
      writer.text(encodeRowPrefix(tenant, 'dev-1', 'état 🌡'), start, Buffer.from('offen\0\n"\'\\ ünï'), start + 9)
      writer.number(encodeRowPrefix(tenant, 'dev-1', 'z'), 0, 1, start)
      writer.number(encodeRowPrefix(tenant, 'dev-1', 'z'), Date.UTC(2200, 0, 1) * 1000 + 1, 2, start)
      await insert(writer.rows())
      const base = { device: 'dev-1', text: '' }
      expect(await read(tenant)).toEqual([
        ...numbers.map((value, i) => ({
          ...base,
          metric: 'a',
          observedAt: start + i,
          value,
          receivedAt: start + 7 + i,
        })),
        { ...base, metric: 'z', observedAt: 0, value: 1, receivedAt: start },
        { ...base, metric: 'z', observedAt: Date.UTC(2200, 0, 1) * 1000 + 1, value: 2, receivedAt: start },
        {
          ...base,
          metric: 'état 🌡',
          observedAt: start,
          value: null,
          text: 'offen\0\n"\'\\ ünï',
          receivedAt: start + 9,
        },
      ])
    })

    it('every column of a dead letter comes back as it went in, its bytes too', async () => {
      const tenant = newTenant()
      const letter: DeadLetter = {
        tenant,
        device: 'dev-1',
        id: 'id-1',
        reason: 'malformed-payload',
        detail: 'not JSON at byte 0',
        metric: '',
        codec: 'json',
        origin: 'devices/dev-1/telemetry',
        receivedAt: start + 3,
        payload: Buffer.from([0, 255, 10, 39, 92, 128]),
      }
      await insert([encodeDeadLetter(letter), encodeDeadLetter(letter)], deadLettersTable)
      const { rows } = await clickhouse.query(
        `SELECT device, id, reason, detail, metric, codec, origin, toUnixTimestamp64Micro(receivedAt) AS receivedAt, hex(payload) AS payload
        FROM ${folded(deadLettersTable)} WHERE tenant = {tenant:String}`,
        { parameters: { tenant } },
      )
      const { tenant: _, ...rest } = letter
      expect(rows).toEqual([{ ...rest, payload: '00FF0A275C80' }])
    })

    it('the same batch twice is there once, and so are its rows in other batches', async () => {
      const tenant = newTenant()
      const rows = numberRows(tenant, 1_000)
      const { cluster, database } = await clickhouse.layout()
      const stored = `${cluster ? `ON CLUSTER '${cluster}' ` : ''}${database}.${storedTableName(readingsTable.name, { cluster, database })}`
      await clickhouse.command(`SYSTEM STOP MERGES ${stored}`)
      await insert(rows)
      await insert(rows)
      const half = rows.length / 2
      await insert([rows.subarray(half), rows.subarray(0, half)])
      await insert(rows.subarray(half))
      await insert(rows.subarray(0, half))
      expect(await count(tenant)).toBe(1_000)
      const { rows: raw } = await clickhouse.query<{ n: number }>(
        `SELECT count() AS n FROM ${readingsTable.name} WHERE tenant = {tenant:String}`,
        { parameters: { tenant } },
      )
      await clickhouse.command(`SYSTEM START MERGES ${stored}`)
      // Nothing was dropped at insert as a repeat: rows are folded by what they are, not by the batch that they came in.
      expect(raw[0]!.n).toBe(4_000)
    })

    it('of two readings at one instant the one received last wins, whichever is inserted first', async () => {
      const tenant = newTenant()
      const row = (value: number, receivedAt: number): Buffer => {
        const writer = new RowWriter()
        writer.number(encodeRowPrefix(tenant, 'dev-1', 'a'), start, value, receivedAt)
        return writer.rows()
      }
      await insert(row(2, start + 20))
      await insert(row(1, start + 10))
      expect((await read(tenant)).map(({ value }) => value)).toEqual([2])
      await insert(row(3, start + 30))
      expect((await read(tenant)).map(({ value }) => value)).toEqual([3])
    })

    it('text readings stay out of aggregates', async () => {
      const tenant = newTenant()
      const writer = new RowWriter()
      writer.number(encodeRowPrefix(tenant, 'dev-1', 'a'), start, 4, start)
      writer.text(encodeRowPrefix(tenant, 'dev-1', 'a'), start + 1, Buffer.from('off'), start)
      await insert(writer.rows())
      const { rows } = await clickhouse.query(
        `SELECT count() AS n, sum(value) AS sum FROM ${folded(readingsTable)} WHERE tenant = {tenant:String} AND ${onlyNumbers}`,
        { parameters: { tenant } },
      )
      expect(rows).toEqual([{ n: 1, sum: 4 }])
    })

    it('a batch of 50,000 rows spread from 1970 to 2026 goes in, and few parts come of it', async () => {
      const tenant = newTenant()
      const writer = new RowWriter()
      const prefix = encodeRowPrefix(tenant, 'dev-1', 'a')
      for (let i = 0; i < 50_000; i++) writer.number(prefix, Math.floor((start / 50_000) * i), i, start)
      await insert(writer.rows())
      expect(await count(tenant)).toBe(50_000)
    })

    it('bytes that are not rows are rejected, and none of their batch is there', async () => {
      const tenant = newTenant()
      const good = numberRows(tenant, 100)
      const error = await insert([good, Buffer.from([255, 255, 255, 255, 1])]).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(RejectedError)
      expect(clickHouseCode(error)).toBeGreaterThan(0)
      expect(await count(tenant)).toBe(0)
      await insert(good)
      expect(await count(tenant)).toBe(100)
    })

    it('an unreachable server is retryable, whatever was asked', async () => {
      const port = await closedPort()
      const away = openClickHouse(async () => ({ url: `http://127.0.0.1:${port}`, username: 'weir', password: 'x' }), {
        logger: silentLogger,
      })
      await expect(away.query('SELECT 1')).rejects.toBeInstanceOf(RetryableError)
      await expect(away.command('SELECT 1')).rejects.toBeInstanceOf(RetryableError)
      await expect(away.ping()).rejects.toBeInstanceOf(RetryableError)
      await expect(insertRows(away, readingsTable, [numberRows('t', 1)])).rejects.toBeInstanceOf(RetryableError)
      await away.close()
    })

    it.each([
      "'; DROP TABLE weir.readings; --",
      "' OR '1'='1",
      "\\' OR 1=1 --",
      'a\tb\nc\\d\0e',
      '{x:String}',
      '`weir`.`readings`',
      '$tag$ 1 $tag$',
      '\\N',
    ])('a parameter is a value, never SQL: %j', async (text) => {
      const { rows } = await clickhouse.query(
        'SELECT {x:String} AS x, {list:Array(String)} AS list, length({x:String}) AS n',
        { parameters: { x: text, list: [text, 'b'] } },
      )
      expect(rows).toEqual([{ x: text, list: [text, 'b'], n: Buffer.byteLength(text) }])
    })

    it('parameters of one question never reach another, beside it or after it', async () => {
      const asked = Array.from({ length: 40 }, async (_, i) => {
        const { rows } = await clickhouse.query<{ x: string }>('SELECT {x:String} AS x', { parameters: { x: `v${i}` } })
        return rows[0]!.x
      })
      expect(await Promise.all(asked)).toEqual(Array.from({ length: 40 }, (_, i) => `v${i}`))
      await expect(clickhouse.query('SELECT {x:String} AS x')).rejects.toMatchObject({ code: 456 })
    })

    it.each([
      ['SELEC 1', 62],
      ['SELECT * FROM weir.nothing', 60],
      ['SELECT nothing FROM weir.readings', 47],
      ["SELECT {n:UInt8} + 'a'", 456],
      ['SELECT 1; SELECT 2', 62],
    ])('an error carries its code: %s', async (sql, code) => {
      const error = await clickhouse.query(sql).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(RejectedError)
      expect(clickHouseCode(error)).toBe(code)
    })

    it('our names of its codes are its own', async () => {
      const { rows } = await clickhouse.query<{ names: string[] }>(
        'SELECT arrayMap(code -> errorCodeToName(code), {codes:Array(Int32)}) AS names',
        { parameters: { codes: [...retryableCodes.keys()] } },
      )
      expect(rows[0]!.names).toEqual([...retryableCodes.values()])
    })

    it('an unknown setting is refused', async () => {
      await expect(clickhouse.query('SELECT 1', { settings: { no_such_setting: 1 } })).rejects.toMatchObject({
        code: 115,
      })
    })

    it('whole numbers of 64 bits are numbers, and one that is too large is an error', async () => {
      const { rows } = await clickhouse.query('SELECT toInt64(-5) AS a, toUInt64(9007199254740991) AS b')
      expect(rows).toEqual([{ a: -5, b: Number.MAX_SAFE_INTEGER }])
      await expect(clickhouse.query('SELECT toUInt64(9007199254740993) AS b')).rejects.toThrow(RangeError)
    })

    it.each([
      "SELECT * FROM file('/etc/hostname', 'LineAsString')",
      "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
      'DROP TABLE weir.readings',
      "INSERT INTO weir.migrations (name) VALUES ('x')",
      'SELECT 1 SETTINGS readonly = 0',
      "SELECT * FROM (SELECT * FROM file('/etc/hostname', 'LineAsString') SETTINGS readonly = 0)",
      'SET readonly = 0',
    ])('readonly refuses %s', async (sql) => {
      const error = await clickhouse.query(sql, { settings: { readonly: 1 } }).catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(RejectedError)
      expect([164, 497, 62]).toContain(clickHouseCode(error))
    })

    it('readonly lets a question through, with parameters and limits, and stays with its question', async () => {
      for (const n of [1, 2, 3]) {
        const options = { parameters: { n }, settings: { max_execution_time: 9, readonly: 1 } }
        const { rows } = await clickhouse.query('SELECT {n:UInt8} AS n', options)
        expect(rows).toEqual([{ n }])
      }
      await clickhouse.command('CREATE DATABASE IF NOT EXISTS weir')
    })

    it('max_execution_time ends a query', async () => {
      const error = await clickhouse
        .query(slowSql, { settings: { max_execution_time: 1 } })
        .catch((thrown: unknown) => thrown)
      expect(error).toBeInstanceOf(RetryableError)
      expect(clickHouseCode(error)).toBe(159)
    })

    it('a quick query beside slow ones is answered before they are, and a client that goes away ends its query', async () => {
      const mark = randomUUID()
      const leaving = new AbortController()
      const options = { signal: leaving.signal, settings: { max_threads: 1 } }
      let slowEnded = 0
      const slow = [1, 2].map((i) =>
        clickhouse
          .query(`${slowSql} WHERE number > ${i} /* ${mark} */`, options)
          .catch((thrown: unknown) => thrown)
          .finally(() => slowEnded++),
      )
      const running = async (): Promise<number> => {
        const { rows } = await clickhouse.query<{ n: number }>(
          'SELECT count() AS n FROM system.processes WHERE position(query, {mark:String}) > 0 AND query NOT LIKE {own:String}',
          { parameters: { mark, own: '%system.processes%' } },
        )
        return rows[0]!.n
      }
      await waitFor(async () => (await running()) === 2, { what: 'two slow queries' })
      await insert(numberRows(newTenant(), 100))
      expect(slowEnded).toBe(0)
      leaving.abort()
      for (const each of await Promise.all(slow)) expect(each).toBeInstanceOf(RetryableError)
      await waitFor(async () => (await running()) === 0, { what: 'the queries to be cancelled' })
    })

    it('a large answer streams, and an error in its middle throws', async () => {
      let rows = 0
      let pieces = 0
      for await (const some of clickhouse.stream<{ number: number }>('SELECT number FROM numbers(200000)')) {
        rows += some.length
        pieces++
      }
      expect(rows).toBe(200_000)
      expect(pieces).toBeGreaterThan(1)
      const failing = clickhouse.stream('SELECT throwIf(number = 150000) AS x FROM numbers(200000)')
      await expect(
        (async () => {
          for await (const _ of failing);
        })(),
      ).rejects.toBeInstanceOf(Error)
    })

    it('closing twice is closing once, and nothing can be asked after', async () => {
      const other = openClickHouse(endpoint, { logger: silentLogger })
      await other.ping()
      await other.close()
      await other.close()
      await expect(other.query('SELECT 1')).rejects.toBeInstanceOf(RetryableError)
    })
  })
}

function newTenant(): string {
  return `test-${randomUUID()}`
}

/** All of one size, so that they can be cut in half. */
export function numberRows(tenant: string, count: number, from = 0): Buffer {
  const writer = new RowWriter()
  const prefix = encodeRowPrefix(tenant, 'dev-1', 'temperature')
  for (let i = from; i < from + count; i++) writer.number(prefix, start + i * 1_000, i, start + i)
  return writer.rows()
}

async function closedPort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as { port: number }
  await new Promise((resolve) => server.close(resolve))
  return port
}
