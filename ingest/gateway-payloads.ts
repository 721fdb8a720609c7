// Which codec a payload of the gateway is meant for: by content type over HTTP, by number in a binary frame.
import { contentTypeOfCodec } from '../domain/payload-codecs.ts'
import type { CodecName } from './codecs/codec.ts'
import { findCodec } from './codecs/index.ts'

/** The content types that there is a codec for. */
export const contentTypes: ReadonlyMap<string, CodecName> = new Map(
  Object.entries(contentTypeOfCodec).flatMap(([name, type]) => {
    const codec = findCodec(name)
    return codec === undefined ? [] : [[type, codec.name]]
  }),
)

/** By their number in a binary frame. Those without a codec yet make dead letters, as in an MQTT topic. */
export const frameCodecs = ['json', 'ndjson', 'senml', 'senml-cbor', 'cbor', 'msgpack', 'line'] as const

/** A payload in a JSON frame that is itself JSON stands there as it is; any other is text. */
export function isJsonCodec(name: string): boolean {
  return name === 'json' || name === 'senml'
}
