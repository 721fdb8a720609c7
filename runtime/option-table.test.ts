import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { withOptionTable } from './option-table.ts'

it('README.md has the options as the schema has them (npm run docs)', () => {
  const readme = readFileSync(join(import.meta.dirname, '../README.md'), 'utf8')
  expect(readme).toBe(withOptionTable(readme))
})
