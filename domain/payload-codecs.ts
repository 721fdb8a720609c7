// The content type of each codec over HTTP, whether or not there is one for it yet.

export const contentTypeOfCodec: Readonly<Record<string, string>> = {
  json: 'application/json',
  ndjson: 'application/x-ndjson',
  senml: 'application/senml+json',
  'senml-cbor': 'application/senml+cbor',
  cbor: 'application/cbor',
  msgpack: 'application/vnd.msgpack',
  line: 'text/plain',
}
