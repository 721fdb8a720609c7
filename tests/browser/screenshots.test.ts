// The pictures of the documentation: all that the command makes, none that it no longer makes, none that is large.
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { bytesMax, directory, pictures } from './take-screenshots.ts'

it('docs/screenshots/ holds what take-screenshots makes, each within its size', () => {
  const names = readdirSync(directory)
  expect(names.sort()).toEqual(pictures.map(({ name }) => `${name}.png`).sort())
  for (const name of names) expect(statSync(join(directory, name)).size, name).toBeLessThan(bytesMax)
})
