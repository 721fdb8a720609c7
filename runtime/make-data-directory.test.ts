import { mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { makeDataDirectory } from './make-data-directory.ts'

const root = mkdtempSync(join(tmpdir(), 'weir-test-data-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

it('is made with all above it, and left alone when it is there', () => {
  const directory = join(root, 'a b', 'c', 'd')
  makeDataDirectory(directory)
  makeDataDirectory(directory)
  expect(statSync(directory).isDirectory()).toBe(true)
})

it('is a sentence where it can not be made: below a file, behind a link to nowhere, where the system takes none', () => {
  writeFileSync(join(root, 'file'), '')
  symlinkSync(join(root, 'not-mounted', 'disk'), join(root, 'link'))
  const impossible = [join(root, 'file'), join(root, 'file', 'x'), join(root, 'link'), join(root, 'link', 'x')]
  if (process.platform === 'linux') impossible.push('/proc/weir/data')
  for (const directory of impossible)
    expect(() => makeDataDirectory(directory)).toThrow(`The data directory ${directory} can't be made: `)
})
