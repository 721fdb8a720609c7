import { expect, it } from 'vitest'
import { codecContract, decodeWith } from './codec.contract.ts'
import { codecs, findCodec } from './index.ts'
import { malformedLinesMax, ndjson } from './ndjson.ts'

for (const codec of codecs) codecContract(codec)

it('finds codecs by name, and says so when there is none', () => {
  expect(findCodec('json')?.name).toBe('json')
  expect(findCodec('JSON')).toBeUndefined()
  expect(findCodec('')).toBeUndefined()
})

it('refuses NDJSON whole when more than a thousand of its lines are no JSON, before it has read them all', () => {
  const decode = (lines: string): ReturnType<typeof decodeWith> => decodeWith(ndjson.decode, Buffer.from(lines))
  const few = decode(`{"a":1}\n${'x\n'.repeat(malformedLinesMax)}{"a":2}`)
  expect([few.accepted, few.rejected]).toEqual([2, malformedLinesMax])
  const many = decode(`{"a":1}\n${'x\n'.repeat(500_000)}{"a":2}`)
  expect(many).toMatchObject({ accepted: 0, rejected: 1, readings: [] })
  expect(many.rejections).toEqual([
    { reason: 'malformed-payload', detail: expect.stringContaining('more than 1000 lines') },
  ])
  // Lines that are JSON and say nothing that could be used are refused one by one.
  expect(decode('1\n'.repeat(5_000)).rejected).toBe(5_000)
})
