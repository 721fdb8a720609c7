// As much of ClickHouse's SQL as an HTTP server in front of the engine must see: where comments and strings end, which kind of statement it is,
// what format it names, which parameters it needs, and where the data of an INSERT begin. Works on latin1 text, so that positions are bytes.

export interface SqlShape {
  /** First word, upper case; '' for nothing but blanks and comments. */
  readonly kind: string
  /** Just past the statement, its `;` and what follows left out. */
  readonly end: number
  /** Something that is not blank stands behind the `;`. */
  readonly isSeveral: boolean
  /** The name in a trailing FORMAT clause (for an INSERT with data: the format of the data). */
  readonly format: string | undefined
  /** Names in `{name:Type}`. */
  readonly parameters: ReadonlySet<string>
  readonly words: readonly Word[]
  /** Has a SETTINGS clause, anywhere. */
  readonly changesSettings: boolean
  /** Has `readonly =`, anywhere. */
  readonly changesReadonly: boolean
  /** Set for `INSERT INTO t … FORMAT x` (data follow). */
  readonly insert: InsertShape | undefined
}

export interface InsertShape {
  /** `INSERT INTO t (columns)`, as written. */
  readonly target: string
  readonly table: readonly string[]
  /** Without the quotes; undefined: no list was given. */
  readonly columns: readonly string[] | undefined
  /** What stands after SETTINGS, as written. */
  readonly settings: string
  readonly format: string
  /** First byte of the data, when they follow in the same text. */
  readonly dataStart: number
}

export interface Word {
  readonly text: string
  readonly start: number
  readonly depth: number
  /** Upper case; quoted names and numbers have none. */
  readonly keyword: string
}

interface Token {
  readonly kind: 'word' | 'name' | 'string' | 'symbol' | 'parameter' | 'end'
  readonly start: number
  readonly end: number
}

const blank = /[\s\u00a0]*/y
const lineComment = /(?:--|#!|# )[^\n]*/y
const wordPattern = /[A-Za-z_0-9$\u0080-\u00ff.]+/y
const parameterPattern = /\{\s*([A-Za-z_][\w]*)\s*:[^{}]*\}/y
const heredoc = /\$(\w*)\$/y

export function sqlShape(sql: string): SqlShape {
  const words: Word[] = []
  const parameters = new Set<string>()
  let depth = 0
  let at = 0
  let end = sql.length
  let isSeveral = false
  let format: string | undefined
  let insertAt = -1
  let changesSettings = false
  let changesReadonly = false
  /** Of the word that stands right before. */
  let previous = ''
  for (;;) {
    const token = nextToken(sql, at)
    at = token.end
    if (token.kind === 'end') break
    const text = sql.slice(token.start, token.end)
    const isWord = token.kind === 'word' || token.kind === 'name'
    if (previous === 'SETTINGS' && (isWord || token.kind === 'parameter')) changesSettings = true
    if (previous === 'READONLY' && text === '=') changesReadonly = true
    previous = isWord ? unquote(text).toUpperCase() : ''
    if (token.kind === 'parameter') parameters.add(/[A-Za-z_]\w*/.exec(text)![0])
    else if (isWord) {
      const keyword = token.kind === 'word' ? text.toUpperCase() : ''
      words.push({ text, start: token.start, depth, keyword })
      if (keyword === 'INSERT' && insertAt < 0 && depth === 0 && words.length === 1) insertAt = token.start
      const before = words[words.length - 2]
      if (before?.keyword === 'FORMAT' && before.depth === 0 && depth === 0 && token.kind === 'word') {
        format = text
        // Only an INSERT without a SELECT of its own is followed by data, and data may be any bytes: nothing behind it is read as SQL.
        if (insertAt >= 0 && !words.some((word) => word.keyword === 'SELECT' || word.keyword === 'VALUES')) {
          return { ...insertShape(sql, words, before.start, text, at), parameters, changesSettings, changesReadonly }
        }
      }
      // The rows behind VALUES are left to the engine; a `;` in them would be inside a string.
    } else if (text === '(' || text === '[') depth++
    else if (text === ')' || text === ']') depth--
    else if (text === ';') {
      end = token.start
      isSeveral = nextToken(sql, at).kind !== 'end'
      break
    }
  }
  const kind = words[0]?.keyword ?? ''
  return { kind, end, isSeveral, format, parameters, words, changesSettings, changesReadonly, insert: undefined }
}

function insertShape(
  sql: string,
  words: readonly Word[],
  formatStart: number,
  format: string,
  after: number,
): Omit<SqlShape, 'parameters' | 'changesSettings' | 'changesReadonly'> {
  const settingsWord = words.find((word) => word.keyword === 'SETTINGS' && word.depth === 0)
  const targetEnd = settingsWord?.start ?? formatStart
  const settings = settingsWord ? sql.slice(settingsWord.start + 'SETTINGS'.length, formatStart).trim() : ''
  const head = words.filter((word) => word.start < targetEnd)
  let index = head[1]?.keyword === 'INTO' ? 2 : 1
  if (head[index]?.keyword === 'TABLE' && head[index + 1]?.depth === 0) index++
  const tableWords = head.filter((word, i) => i >= index && word.depth === 0)
  const columnWords = head.filter((word) => word.depth > 0)
  // `db.table` is one word when neither part is quoted.
  const table = tableWords.flatMap((word) => (word.keyword === '' ? [unquote(word.text)] : word.text.split('.')))
  const names = table.filter((part) => part !== '')
  let dataStart = after
  while (dataStart < sql.length && ' \t\f\r'.includes(sql[dataStart]!)) dataStart++
  if (sql[dataStart] === '\n') dataStart++
  return {
    kind: 'INSERT',
    end: after,
    isSeveral: false,
    format,
    words,
    insert: {
      target: sql.slice(words[0]!.start, targetEnd).trim(),
      table: names,
      columns: columnWords.length > 0 ? columnWords.map((word) => unquote(word.text)) : undefined,
      settings,
      format,
      dataStart,
    },
  }
}

function unquote(text: string): string {
  const quote = text[0]
  if (quote !== '`' && quote !== '"') return text
  return text
    .slice(1, -1)
    .replace(/\\(.)/g, '$1')
    .replaceAll(quote + quote, quote)
}

function nextToken(sql: string, from: number): Token {
  let at = from
  for (;;) {
    const start = at
    at = skip(blank, sql, at)
    at = skip(lineComment, sql, at)
    if (sql.startsWith('/*', at)) {
      const close = sql.indexOf('*/', at + 2)
      at = close < 0 ? sql.length : close + 2
    }
    if (at === start) break
  }
  if (at >= sql.length) return { kind: 'end', start: at, end: at }
  const char = sql[at]!
  if (char === "'") return { kind: 'string', start: at, end: quotedEnd(sql, at) }
  if (char === '`' || char === '"') return { kind: 'name', start: at, end: quotedEnd(sql, at) }
  if (char === '{') {
    const end = skip(parameterPattern, sql, at)
    if (end > at) return { kind: 'parameter', start: at, end }
  }
  if (char === '$') {
    heredoc.lastIndex = at
    const tag = heredoc.exec(sql)?.[0]
    if (tag !== undefined) {
      const close = sql.indexOf(tag, at + tag.length)
      return { kind: 'string', start: at, end: close < 0 ? sql.length : close + tag.length }
    }
  }
  const end = skip(wordPattern, sql, at)
  if (end > at) return { kind: 'word', start: at, end }
  return { kind: 'symbol', start: at, end: at + 1 }
}

function skip(pattern: RegExp, sql: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(sql) ? pattern.lastIndex : at
}

function quotedEnd(sql: string, start: number): number {
  const quote = sql[start]!
  let at = start + 1
  while (at < sql.length) {
    const char = sql[at]!
    if (char === '\\') at += 2
    else if (char === quote) {
      if (sql[at + 1] !== quote) return at + 1
      at += 2
    } else at++
  }
  return sql.length
}

const streamedFormats = new Set([
  'JSONEachRow',
  'NDJSON',
  'JSONLines',
  'JSONCompactEachRow',
  'JSONStringsEachRow',
  'JSONCompactStringsEachRow',
  'TabSeparated',
  'TSV',
  'TabSeparatedRaw',
  'TSVRaw',
  'CSV',
  'RowBinary',
  'Native',
])

/**
 * Whether an answer may go out block by block. The engine writes each block as a document of its own, so only formats without a head and a
 * tail qualify; and it plans a streamed query on the event loop, so nothing qualifies that is evaluated while planning (a scalar subquery,
 * a table function that opens something).
 */
export function mayStream(shape: SqlShape, format: string): boolean {
  if (shape.kind !== 'SELECT' || !streamedFormats.has(format)) return false
  if (shape.words.filter(({ keyword }) => keyword === 'SELECT' || keyword === 'WITH').length !== 1) return false
  return !shape.words.some(({ keyword }) => openingFunctions.has(keyword))
}

/** Table functions that look into what they name while the query is planned. */
const openingFunctions = new Set(
  'FILE URL S3 S3CLUSTER GCS HDFS REMOTE REMOTESECURE CLUSTER MYSQL POSTGRESQL MONGODB SQLITE ODBC JDBC EXECUTABLE ICEBERG DELTALAKE HUDI AZUREBLOBSTORAGE REDIS'.split(
    ' ',
  ),
)
