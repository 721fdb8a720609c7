// The list of codecs.

import type { Codec } from './codec.ts'
import { json } from './json.ts'
import { ndjson } from './ndjson.ts'

export const codecs: readonly Codec[] = [json, ndjson]

export function findCodec(name: string): Codec | undefined {
  return codecs.find((codec) => codec.name === name)
}
