// Batches of records against kafkajs' own writer and reader, which every broker understands.
import { createRequire } from 'node:module'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { LogDamagedError } from '../../runtime/errors.ts'
import { crc32c } from './kafka-crc32c.ts'
import { decodeBatches, encodeBatch, hasZstd, type KafkaCompression, type RecordToWrite } from './kafka-records.ts'

const require = createRequire(import.meta.url)
const { RecordBatch } = require('kafkajs/src/protocol/recordBatch/v0')
const Record = require('kafkajs/src/protocol/recordBatch/record/v0')
const readBatch = require('kafkajs/src/protocol/recordBatch/v0/decoder')
const Decoder = require('kafkajs/src/protocol/decoder')

const compressions: readonly KafkaCompression[] = hasZstd ? ['none', 'gzip', 'zstd'] : ['none', 'gzip']
const batchOf = (records: readonly RecordToWrite[], compression: KafkaCompression = 'none') =>
  encodeBatch({ records, producerId: 77n, producerEpoch: 3, firstSequence: 9, compression, at: 1_760_000_000_123 })
const anyRecords = fc.array(
  fc.record({
    value: fc.uint8Array({ maxLength: 300 }),
    headers: fc.dictionary(fc.stringMatching(/^weir-[a-z-]{1,20}$/), fc.stringMatching(/^[\d.]{0,20}$/), {
      noNullPrototype: true,
    }),
  }),
  { minLength: 1, maxLength: 200 },
)
const plain = (records: readonly { value: Uint8Array | null; headers: object }[]) =>
  records.map(({ value, headers }) => [
    Buffer.from(value!).toString('hex'),
    Object.entries(headers as Record<string, string | Buffer>).map(([name, text]) => `${name}=${text}`),
  ])

it('CRC-32C is the one that the world agrees on (RFC 3720, B.4)', () => {
  expect(crc32c(Buffer.from('123456789'), 0, 9)).toBe(0xe3069283)
  expect(crc32c(Buffer.alloc(32), 0, 32)).toBe(0x8a9136aa)
  expect(crc32c(Buffer.alloc(34, 0xff), 1, 33)).toBe(0x62a8ab43)
})

describe.each(compressions)('a batch, %s', (compression) => {
  it('comes back as it was written', () => {
    fc.assert(
      fc.property(anyRecords, (records) => {
        const found = decodeBatches(batchOf(records, compression), 0, 'here')
        expect(plain(found)).toEqual(plain(records))
        expect(found.map(({ offset }) => offset)).toEqual(records.map((_, i) => i))
      }),
    )
  })

  it.skipIf(compression === 'zstd')('is read by kafkajs as we meant it', async () => {
    await fc.assert(
      fc.asyncProperty(anyRecords, async (records) => {
        const { records: found, ...head } = await readBatch(new Decoder(batchOf(records, compression)))
        expect(plain(found)).toEqual(plain(records))
        expect(head).toMatchObject({
          producerId: '77',
          producerEpoch: 3,
          firstSequence: 9,
          lastOffsetDelta: records.length - 1,
        })
      }),
      { numRuns: 30 },
    )
  })
})

it('what kafkajs writes is what we write, byte for byte', async () => {
  await fc.assert(
    fc.asyncProperty(anyRecords, async (records) => {
      const at = 1_760_000_000_123
      const { buffer } = await RecordBatch({
        firstTimestamp: at,
        maxTimestamp: at,
        producerId: '77',
        producerEpoch: 3,
        firstSequence: 9,
        lastOffsetDelta: records.length - 1,
        records: records.map(({ value, headers }, offsetDelta) =>
          Record({ value: Buffer.from(value), headers, offsetDelta, timestampDelta: 0 }),
        ),
      })
      expect(batchOf(records).equals(buffer)).toBe(true)
    }),
  )
})

const three = [1, 2, 3].map((i) => ({ value: Buffer.from(`value ${i}`), headers: { n: `${i}` } }))

it('a batch that is cut off is left for the next answer', () => {
  const both = Buffer.concat([batchOf(three), batchOf(three)])
  both.writeBigInt64BE(3n, batchOf(three).length)
  for (let length = 0; length < both.length; length++) {
    const found = decodeBatches(both.subarray(0, length), 0, 'here')
    expect(found.length).toBe(length < both.length / 2 ? 0 : 3)
  }
  expect(decodeBatches(both, 2, 'here').map(({ offset }) => offset)).toEqual([2, 3, 4, 5])
})

it('a bit that was flipped is damage, wherever it is', () => {
  const whole = batchOf(three)
  for (let at = 16; at < whole.length; at++) {
    const bytes = Buffer.from(whole)
    bytes[at]! ^= 1 << (at % 8)
    expect(() => decodeBatches(bytes, 0, 'here'), `byte ${at}`).toThrow(LogDamagedError)
  }
})

it('a body that is not of its codec is damage, though its checksum is right', () => {
  const bytes = batchOf(three)
  bytes.writeInt16BE(1, 21)
  bytes.writeUInt32BE(crc32c(bytes, 21, bytes.length), 17)
  expect(() => decodeBatches(bytes, 0, 'here')).toThrow(LogDamagedError)
})

it('a codec that is not there is named', () => {
  const bytes = batchOf(three)
  bytes.writeInt16BE(3, 21)
  bytes.writeUInt32BE(crc32c(bytes, 21, bytes.length), 17)
  const read = (): unknown => decodeBatches(bytes, 0, 'here')
  expect(read).toThrow(/compressed as lz4.*compression\.type=producer/)
  // Not the end of a process that would read it again when it is started anew.
  expect(read).toThrow(LogDamagedError)
})
