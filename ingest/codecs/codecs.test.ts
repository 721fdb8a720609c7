import { expect, it } from 'vitest'
import { codecContract } from './codec.contract.ts'
import { codecs, findCodec } from './index.ts'

for (const codec of codecs) codecContract(codec)

it('finds codecs by name, and says so when there is none', () => {
  expect(findCodec('json')?.name).toBe('json')
  expect(findCodec('JSON')).toBeUndefined()
  expect(findCodec('')).toBeUndefined()
})
