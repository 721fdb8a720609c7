// What every codec is held to, over the samples in samples/<name>/: good/NAME.payload decodes to the readings in good/NAME.readings
// (`[metric, observedAt in µs | null for "when it arrived", value]`), bad/REASON.NAME.payload gives a refusal with that reason; and nothing that is
// done to the bytes makes a codec throw, write rows that aren't rows, or say more or less than it counts.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Rejection, RejectReason } from '../../domain/outcome.ts'
import { RowCursor, RowWriter } from '../../domain/row-format.ts'
import { PayloadSink, payloadReadingsMax } from '../payload-sink.ts'
import { SeriesCaches } from '../series-cache.ts'
import type { Codec } from './codec.ts'

/** 2030: samples from the past and the present are believed, the year 9999 isn't. */
const now = 1_893_456_000_000_000

export interface DecodedReading {
  readonly metric: string
  /** null where the payload gave none; those of one element have one instant. */
  readonly observedAt: number | null
  readonly value: number | string
  readonly receivedAt: number
}

export interface Decoded {
  readonly readings: readonly DecodedReading[]
  readonly rejections: readonly Rejection[]
  readonly rejected: number
  readonly accepted: number
}

export type Decode = (bytes: Buffer, start: number, end: number, out: PayloadSink) => void

/** A device's caches live on from payload to payload, as a connection's do; pass `series` to keep them. */
export function decodeWith(
  decode: Decode,
  bytes: Buffer,
  start = 0,
  end = bytes.length,
  series = new SeriesCaches().of('default', 'd'),
): Decoded {
  const sink = new PayloadSink()
  const writer = new RowWriter(16)
  sink.open(series, writer, now, now)
  decode(bytes, start, end, sink)
  sink.finish()
  const readings: DecodedReading[] = []
  const cursor = new RowCursor(Buffer.from(writer.rows()))
  while (cursor.next()) {
    readings.push({
      metric: cursor.metric(),
      // Everything that got its instant from us has one at or above `now`; samples are older.
      observedAt: cursor.observedAt >= now ? null : cursor.observedAt,
      value: cursor.isText() ? cursor.text() : cursor.value,
      receivedAt: cursor.receivedAt,
    })
  }
  return { readings, rejections: [...sink.rejections], rejected: sink.rejected, accepted: sink.accepted }
}

export function codecContract(codec: Codec): void {
  const decode: Decode = (bytes, start, end, out) => codec.decode(bytes, start, end, out)
  const samples = new URL(`samples/${codec.name}/`, import.meta.url).pathname
  const good = payloadsIn(join(samples, 'good'))
  const bad = payloadsIn(join(samples, 'bad'))

  describe(`codec ${codec.name}`, () => {
    it.each(good)('decodes $name', ({ path, bytes }) => {
      const expected = JSON.parse(readFileSync(path.replace(/payload$/, 'readings'), 'utf8')) as unknown[]
      const decoded = decodeWith(decode, bytes)
      expect(decoded.rejections).toEqual([])
      expect(decoded.readings.map(({ metric, observedAt, value }) => [metric, observedAt, value])).toEqual(expected)
      expect(decoded.accepted).toBe(expected.length)
    })

    it.each(good)('decodes $name the same when its series are known, and from the middle of a buffer', ({ bytes }) => {
      const series = new SeriesCaches().of('default', 'd')
      const first = decodeWith(decode, bytes, 0, bytes.length, series)
      const around = Buffer.concat([Buffer.from('"}]1'), bytes, Buffer.from('}1"')])
      expect(decodeWith(decode, around, 4, 4 + bytes.length, series)).toEqual(first)
    })

    it.each(bad)('refuses $name, with a reason and a sentence', ({ name, bytes }) => {
      const reason = name.split('.')[0] as RejectReason
      const { rejections, rejected } = decodeWith(decode, bytes)
      expect(rejections.map((each) => each.reason)).toContain(reason)
      expect(rejected).toBeGreaterThanOrEqual(rejections.length)
      for (const { detail } of rejections) expect(detail.length).toBeGreaterThan(10)
    })

    it('keeps nothing of the bytes', () => {
      for (const { bytes } of good) {
        const series = new SeriesCaches().of('default', 'd')
        const sink = new PayloadSink()
        const writer = new RowWriter(16)
        const copy = Buffer.from(bytes)
        sink.open(series, writer, now, now)
        codec.decode(copy, 0, copy.length, sink)
        const rows = Buffer.from(writer.rows())
        copy.fill(0x78)
        expect(writer.rows().equals(rows)).toBe(true)
        // Neither do the names that it remembers.
        expect(decodeWith(decode, bytes, 0, bytes.length, series)).toEqual(decodeWith(decode, bytes))
      }
    })

    it('stamps receivedAt a microsecond apart, and one instant for the readings of an element without a clock', () => {
      for (const { bytes } of good) {
        const { readings } = decodeWith(decode, bytes)
        expect(readings.map(({ receivedAt }) => receivedAt)).toEqual(readings.map((_, place) => now + place))
      }
    })

    it('never throws for mangled samples, and counts what it says', () => {
      const samplePayloads = [...good, ...bad].map(({ bytes }) => bytes)
      const series = new SeriesCaches().of('default', 'd')
      fc.assert(
        fc.property(
          fc.constantFrom(...samplePayloads),
          fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 4 }),
          fc.nat(),
          fc.nat(),
          (sample, changes, from, to) => {
            const bytes = Buffer.from(sample)
            for (const [at, byte] of changes) if (bytes.length > 0) bytes[at % bytes.length] = byte
            const [start, end] = [
              from % 4 === 0 ? from % (bytes.length + 1) : 0,
              bytes.length - (to % 4 === 0 ? to % 9 : 0),
            ]
            if (start > end) return
            const { readings, accepted, rejections, rejected } = decodeWith(decode, bytes, start, end, series)
            expect(readings.length).toBe(accepted)
            expect(rejected > 0).toBe(rejections.length > 0)
          },
        ),
        { numRuns: 2_000 },
      )
    })

    it('never throws for any bytes', () => {
      fc.assert(
        fc.property(fc.uint8Array({ maxLength: 300 }), (given) => {
          const bytes = Buffer.from(given)
          expect(decodeWith(decode, bytes).readings.length).toBeLessThanOrEqual(payloadReadingsMax)
        }),
        { numRuns: 2_000 },
      )
    })
  })
}

function payloadsIn(directory: string): { name: string; path: string; bytes: Buffer }[] {
  return readdirSync(directory)
    .filter((file) => file.endsWith('.payload'))
    .map((file) => {
      const path = join(directory, file)
      return { name: file.replace(/\.payload$/, ''), path, bytes: readFileSync(path) }
    })
}
