// What is in a topic of ours may be somebody else's: whoever reads it stands still and says so, instead of ending a process that meets it again at once.
import { expect, it } from 'vitest'
import { LogDamagedError } from '../../runtime/errors.ts'
import { decodeMessage } from './kafka-chunk.ts'

const value = Buffer.from('rows')

it.each([
  [{}, value, /message 7 in partition 2 of readings is not from Weir/],
  [{ 'weir-format': Buffer.from('99') }, value, /is of row format 99, and this version reads 1/],
  [{ 'weir-format': Buffer.from('1') }, null, /is not from Weir/],
])('a message that is no chunk of this version, %j, is damage', (headers, body, sentence) => {
  const read = (): unknown => decodeMessage('readings', 2, { offset: 7, value: body, headers })
  expect(read).toThrow(LogDamagedError)
  expect(read).toThrow(sentence)
})
