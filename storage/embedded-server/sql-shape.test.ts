import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { mayStream, sqlShape } from './sql-shape.ts'

const bytes = (sql: string): string => Buffer.from(sql, 'utf8').toString('latin1')

describe('sqlShape', () => {
  it.each([
    ['select 1', 'SELECT'],
    ['  -- a comment\n/* another; */ # third\n WITH x AS (SELECT 1) SELECT x', 'WITH'],
    ['(SELECT 1) UNION ALL (SELECT 2)', 'SELECT'],
    ['', ''],
    [' ; ', ''],
    ['-- nothing', ''],
  ])('the kind of %j is %j', (sql, kind) => {
    expect(sqlShape(sql).kind).toBe(kind)
  })

  it.each([
    ['SELECT 1;', false],
    ['SELECT 1; -- done\n /* really */', false],
    ['SELECT 1; SELECT 2', true],
    ["SELECT ';' AS `a;b`, \"c;d\", $x$;$x$, 'it''s; \\'fine;' -- ;\n", false],
    ['SELECT 1;;', true],
  ])('several statements in %j: %s', (sql, isSeveral) => {
    expect(sqlShape(sql).isSeveral).toBe(isSeveral)
  })

  it('leaves out the semicolon and what follows', () => {
    const sql = 'SELECT 1 ; -- bye'
    expect(sql.slice(0, sqlShape(sql).end)).toBe('SELECT 1 ')
  })

  it('finds the trailing format, not one in a string, a name or a function', () => {
    expect(sqlShape('SELECT 1 FORMAT JSONEachRow').format).toBe('JSONEachRow')
    expect(sqlShape('SELECT 1\nformat\nCSV;').format).toBe('CSV')
    expect(sqlShape("SELECT format('{}', 'a'), ' FORMAT CSV', `FORMAT` FROM t").format).toBeUndefined()
  })

  it('finds parameters outside of strings, names and comments', () => {
    const sql =
      "SELECT {a:String}, { b : Array(UInt8) }, '{c:String}', `{d:String}` -- {e:String}\n, {'k':1}, {f:Map(String, UInt8)}"
    expect([...sqlShape(sql).parameters]).toEqual(['a', 'b', 'f'])
  })

  it.each([
    ['SELECT 1 SETTINGS max_threads = 1', true, false],
    ['SELECT * FROM (SELECT 1 SETTINGS /* x */ readonly = 0)', true, true],
    ['SELECT 1 SETTINGS a, `readonly`\n= 0', true, true],
    ["SELECT Settings['x'] FROM system.processes", false, false],
    ["SELECT ' SETTINGS readonly = 0'", false, false],
    ['SELECT 1 SETTINGS {x:Identifier} = 0', true, false],
  ])('sees settings in %j', (sql, changesSettings, changesReadonly) => {
    expect(sqlShape(sql)).toMatchObject({ changesSettings, changesReadonly })
  })

  it.each([
    ['INSERT INTO t FORMAT RowBinary', ['t'], undefined, 'RowBinary', ''],
    ['insert into table db.t (a, `b c`) FORMAT CSV\n1,2', ['db', 't'], ['a', 'b c'], 'CSV', '1,2'],
    ['INSERT INTO `d.b`.`t` FORMAT JSONEachRow {"a":";"}', ['d.b', 't'], undefined, 'JSONEachRow', '{"a":";"}'],
    ['INSERT INTO t SETTINGS a = 1 FORMAT TSV\r\n\nx', ['t'], undefined, 'TSV', '\nx'],
    ['INSERT INTO "ta""ble" FORMAT CSV\n\'; DROP', ['ta"ble'], undefined, 'CSV', "'; DROP"],
  ])('takes apart %j', (sql, table, columns, format, data) => {
    const { insert } = sqlShape(sql)
    expect(insert).toMatchObject({ table, columns, format })
    expect(sql.slice(insert!.dataStart)).toBe(data)
  })

  it('data behind an INSERT may be any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (data) => {
        const head = Buffer.from('INSERT INTO weir.readings FORMAT RowBinary\n')
        const { insert } = sqlShape(Buffer.concat([head, data]).toString('latin1'))
        expect(insert!.dataStart).toBe(head.length)
      }),
    )
  })

  it('an INSERT … SELECT and one with VALUES carry no data of their own', () => {
    expect(sqlShape('INSERT INTO t SELECT * FROM s FORMAT Null').insert).toBeUndefined()
    expect(sqlShape("INSERT INTO t VALUES (1, 'FORMAT CSV')").insert).toBeUndefined()
  })

  it('ends on anything', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'\'`"$-/*#;{}:()\\ \naZ0.') }), (text) => {
        expect(sqlShape(bytes(text)).end).toBeLessThanOrEqual(text.length)
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('mayStream', () => {
  it.each([
    ['SELECT number FROM numbers(10)', 'JSONEachRow', true],
    ['SELECT number FROM numbers(10)', 'JSON', false],
    ['SELECT number FROM numbers(10)', 'CSVWithNames', false],
    ['SELECT (SELECT max(number) FROM numbers(10))', 'JSONEachRow', false],
    ['WITH (SELECT 1) AS x SELECT x', 'JSONEachRow', false],
    ['SHOW TABLES', 'JSONEachRow', false],
    ["SELECT * FROM url('http://127.0.0.1/', 'CSV')", 'JSONEachRow', false],
  ])('%s as %s: %s', (sql, format, expected) => {
    expect(mayStream(sqlShape(sql), format)).toBe(expected)
  })
})
