import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type LogFiles, systemFiles } from './log-files.ts'
import { RecentBytes } from './recent-bytes.ts'

const fileBytes = 4 * 1024 * 1024
const contents = [1, 2].map((segment) =>
  Buffer.from(Uint8Array.from({ length: fileBytes }, (_, at) => (at * 31 + (at >> 8) * segment) & 255)),
)

test('whoever asks, in whatever order, gets the bytes of the file', () => {
  const ask = fc.record({
    segment: fc.integer({ min: 0, max: 1 }),
    back: fc.integer({ min: 0, max: 40_000 }),
    length: fc.integer({ min: 1, max: 32_000 }),
  })
  fc.assert(
    fc.property(fc.array(ask, { minLength: 1, maxLength: 200 }), (asks) => {
      let copied = 0
      const files: LogFiles = {
        ...systemFiles,
        readNow: (segment, buffer, at, length, position) => {
          copied += length
          return contents[segment]!.copy(buffer, at, position, position + length)
        },
      }
      const recent = new RecentBytes()
      const ends = [0, 0]
      let asked = 0
      for (const { segment, back, length } of asks) {
        // Frames begin at multiples of 8.
        const from = Math.max(0, ends[segment]! - back) & ~7
        const size = Math.min((length + 7) & ~7, fileBytes - from)
        ends[segment] = Math.max(ends[segment]!, from + size)
        asked += size
        const got = recent.read(files, segment, segment, from, size)
        expect(got).toBe(size)
        const start = from - recent.position
        expect(
          recent.block.bytes.subarray(start, start + got).equals(contents[segment]!.subarray(from, from + got)),
        ).toBe(true)
      }
      expect(copied).toBeLessThanOrEqual(asked)
    }),
  )
})

test('three that follow the same bytes read them once', () => {
  let copied = 0
  const files: LogFiles = {
    ...systemFiles,
    readNow: (_, buffer, at, length, position) => {
      copied += length
      return contents[0]!.copy(buffer, at, position, position + length)
    },
  }
  const recent = new RecentBytes()
  for (let at = 0; at < 3_000_000; at += 80_000) for (let i = 0; i < 3; i++) recent.read(files, 1, 1, at, 80_000)
  expect(copied).toBe(Math.ceil(3_000_000 / 80_000) * 80_000)
})
