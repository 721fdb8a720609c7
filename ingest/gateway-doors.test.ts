// One payload through every door of the gateway: the same readings, or the same refusal, whichever way it came. What each number, name and instant
// means is in the tests of the codecs; here is that no door adds a meaning of its own.
import { afterEach, expect, it } from 'vitest'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { ingestFrame } from '../tests/helpers/websocket.ts'
import { closeGateways, openSocket, startGateway } from './test-gateway.ts'

afterEach(closeGateways)

const at = 1_700_000_000_000
const deep = (objects: number): string => `${'{"a":'.repeat(objects)}1${'}'.repeat(objects)}`

/** The payload, what is kept of it (its instant in microseconds since `at`), and why it is refused where nothing is. */
type Kept = readonly (readonly [metric: string, value: number | string, microseconds: number])[]
const payloads: readonly (readonly [name: string, payload: string, kept: Kept, reason?: string])[] = [
  ['-0', `{"ts":${at},"a":-0}`, [['a', -0, 0]]],
  ['a number beyond a double', '{"a":1e400}', [], 'invalid-value'],
  ['NaN', '{"a":NaN}', [], 'malformed-payload'],
  ['a whole number beyond 2^53', `{"ts":${at},"a":9007199254740993}`, [['a', 9007199254740992, 0]]],
  ['the smallest number', `{"ts":${at},"a":5e-324}`, [['a', 5e-324, 0]]],
  ['a name in another script', `{"ts":${at},"温度":1}`, [['温度', 1, 0]]],
  ['the longest name', `{"ts":${at},"${'n'.repeat(128)}":1}`, [['n'.repeat(128), 1, 0]]],
  ['a name that is longer', `{"${'n'.repeat(129)}":1}`, [], 'invalid-metric-name'],
  ['a name without characters', '{"":1}', [], 'invalid-metric-name'],
  ['a name with a control character', '{"a\\u0001":1}', [], 'invalid-metric-name'],
  ['half a surrogate pair', '{"a":"\\ud800"}', [], 'invalid-value'],
  [
    '__proto__',
    `{"ts":${at},"__proto__":1,"constructor":2}`,
    [
      ['__proto__', 1, 0],
      ['constructor', 2, 0],
    ],
  ],
  ['__proto__ that has members', `{"ts":${at},"__proto__":{"values":3}}`, [['__proto__.values', 3, 0]]],
  ['a name that comes twice', `{"ts":${at},"a":1,"a":2}`, [['a', 2, 0]]],
  ['seconds', `{"ts":${at / 1000},"a":1}`, [['a', 1, 0]]],
  ['microseconds', `{"ts":${at}001,"a":1}`, [['a', 1, 1]]],
  ['nanoseconds', `{"ts":${at}001500,"a":1}`, [['a', 1, 2]]],
  ['text with a zone', '{"ts":"2023-11-14T23:13:20+01:00","a":1}', [['a', 1, 0]]],
  ['text without a zone', '{"ts":"2023-11-14T22:13:20","a":1}', [], 'invalid-timestamp'],
  ['before 1970', '{"ts":-1,"a":1}', [], 'observed-before-1970'],
  ['far ahead', '{"ts":9e18,"a":1}', [], 'observed-in-future'],
  ['objects as deep as they may be', `{"ts":${at},"b":${deep(7)}}`, [[`b${'.a'.repeat(7)}`, 1, 0]]],
  ['objects that are deeper', deep(9), [], 'nested-too-deep'],
  ['arrays without end', `${'['.repeat(20_000)}${']'.repeat(20_000)}`, [], 'not-an-object'],
  ['columns of two lengths', '{"ts":[1,2],"values":{"a":[1]}}', [], 'columns-differ-in-length'],
  ['what is half usable', `{"ts":${at},"a":1,"b":[1]}`, [['a', 1, 0]]],
]

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

const cases = payloads.map(([name, payload, kept, reason]) => ({ name, payload, kept, reason }))

it.each(cases)('means the same through every door: $name', async ({ payload, kept, reason }) => {
  const ingest = await startGateway()
  const socket = openSocket(ingest, '/v1/ingest')
  await socket.hello()
  const { host, port } = ingest.gateway
  const post = async (device: string, type: string): Promise<string | undefined> => {
    const url = `http://${host}:${port}/v1/telemetry/${device}`
    const headers = { 'content-type': type }
    const answer = await fetch(url, { method: 'POST', headers, body: payload, signal: AbortSignal.timeout(60_000) })
    const { deadLetter } = (await answer.json()) as { deadLetter?: string }
    expect(answer.status).toBe(deadLetter === undefined ? 200 : 422)
    return deadLetter
  }
  const refused = [await post('http-json', 'application/json'), await post('http-ndjson', 'application/x-ndjson')]
  // What is no JSON would make no frame.
  if (isJson(payload)) socket.text(`{"id":1,"device":"text","payload":${payload}}`)
  else socket.bytes(ingestFrame(1, 0, 'text', payload))
  socket.text(JSON.stringify({ id: 2, device: 'text-ndjson', codec: 'ndjson', payload }))
  socket.bytes(ingestFrame(3, 0, 'binary', payload))
  socket.bytes(ingestFrame(4, 1, 'binary-ndjson', payload))
  const settled = () => socket.ackedUpTo === 4 || socket.messages.some(({ type, id }) => type === 'reject' && id === 4)
  await waitFor(settled, { withinMs: 20_000 })

  const rejects = socket.messages.filter(({ type }) => type === 'reject')
  expect(rejects.map((reject) => reject.reason)).toEqual(reason === undefined ? [] : Array(4).fill(reason))
  expect(refused.map((id) => id !== undefined)).toEqual([reason !== undefined, reason !== undefined])
  const readings = await ingest.readings()
  for (const device of ['http-json', 'http-ndjson', 'text', 'text-ndjson', 'binary', 'binary-ndjson']) {
    const found = readings.filter((each) => each.device === device)
    expect(found.map(({ metric, value, observedAt }) => [metric, value, observedAt - at * 1000])).toEqual(kept)
  }
})
