// Pages by key: `next` is the key of the last item, and the following page begins after it, so that what arrives in between neither repeats
// nor hides anything. Opaque to callers: base64url of JSON, with the kind of list in front.
import { RequestError } from '../runtime/errors.ts'

export type PageKey = readonly (string | number)[]

export function encodePage(kind: string, key: PageKey): string {
  return Buffer.from(JSON.stringify([kind, ...key])).toString('base64url')
}

/** What was found when one more than `limit` was asked for: a page, and where the following one begins if there is one. */
export function pageOf<Row, Item>(
  rows: readonly Row[],
  limit: number,
  toItem: (row: Row) => Item,
  toNext: (last: Row) => { readonly kind: string; readonly key: PageKey },
): { items: Item[]; next: string | null } {
  const items = rows.slice(0, limit).map(toItem)
  const last = rows[limit - 1]
  if (rows.length <= limit || !last) return { items, next: null }
  const { kind, key } = toNext(last)
  return { items, next: encodePage(kind, key) }
}

/** Throws a RequestError for anything that `encodePage` did not make for this kind, with fields of these types. */
export function decodePage<const Types extends readonly ('string' | 'number')[]>(
  kind: string,
  types: Types,
  after: string,
): { -readonly [Index in keyof Types]: Types[Index] extends 'string' ? string : number } {
  let parts: unknown
  try {
    parts = JSON.parse(Buffer.from(after, 'base64url').toString('utf8'))
  } catch {
    throw unusable()
  }
  if (!Array.isArray(parts) || parts.length !== types.length + 1 || parts[0] !== kind) throw unusable()
  const key = parts.slice(1)
  for (const [index, type] of types.entries()) {
    if (type === 'number' ? !Number.isSafeInteger(key[index]) : typeof key[index] !== 'string') throw unusable()
  }
  return key as never
}

function unusable(): RequestError {
  const message = 'is not the `next` of a page of this list'
  return new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `after ${message}`, [
    { path: 'after', message },
  ])
}
