// Runs the runner on files that fail in each way there is, and reads only the end of what it says.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'

const project = join(import.meta.dirname, '..')
/** Inside the project, because its files import the runner. */
const directory = mkdtempSync(join(project, 'node_modules/.closing-line-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

const files: Record<string, string> = {
  'vitest.config.ts': `
    import { closingLine } from ${JSON.stringify(join(project, 'tests/closing-line.ts'))}
    export default { test: { reporters: ['default', closingLine()], silent: 'passed-only', include: ['*.test.ts'] } }`,
  'a.test.ts': `
    import { describe, expect, it } from 'vitest'
    it('is well', () => console.log('FAILED: as it should'))
    describe('arithmetic', () => {
      it('adds', () => {
        expect([1, { two: 2 }]).toEqual([1, { two: 3 }])
      })
      it('is left out', ({ skip }) => skip('no abacus here'))
    })`,
  'hook.test.ts': `
    import { afterAll, describe, it } from 'vitest'
    describe('a house', () => {
      afterAll(() => { throw new Error('the lights stayed on\\nin the kitchen') })
      it('stands', () => {})
    })`,
  'unread.test.ts': `import './not-there.ts'`,
  'uncaught.test.ts': `
    import { it } from 'vitest'
    it('forgets a promise', async () => {
      void Promise.reject(new RangeError('nobody waited'))
      await new Promise((done) => setTimeout(done, 50))
    })`,
}

function run(...names: string[]): { lines: string[]; status: number | null } {
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text)
  const words = [join(project, 'node_modules/vitest/vitest.mjs'), 'run', '--root', directory, ...names]
  const { stdout, status } = spawnSync(process.execPath, words, { encoding: 'utf8', cwd: directory })
  return { lines: stdout.trimEnd().split('\n'), status }
}

it('ends with each failure, its file, its name and what was said, and then one line of counts', () => {
  const { lines, status } = run()
  expect(status).toBe(1)
  expect(lines.at(-1)).toBe('3 passed, 4 failed, 1 skipped')
  const failures = lines.filter((line) => line.startsWith('FAILED '))
  expect(failures).toHaveLength(4)
  expect(failures).toContainEqual(
    expect.stringMatching(/^FAILED a\.test\.ts > arithmetic > adds > AssertionError: expected .* to deeply equal /),
  )
  expect(failures).toContain('FAILED hook.test.ts > a hook of a house > Error: the lights stayed on')
  expect(failures).toContainEqual(expect.stringMatching(/^FAILED unread\.test\.ts > the file, .*not-there/))
  expect(failures).toContainEqual(
    expect.stringMatching(/^FAILED .*uncaught\.test\.ts > .* > RangeError: nobody waited/),
  )
  const end = lines.slice(lines.indexOf('Not run:'))
  expect(end).toContain('  a.test.ts: arithmetic > is left out (no abacus here)')
  expect(end).toContain('  in the kitchen')
  expect(end.join('\n')).toContain('a.test.ts:6:')
}, 120_000)

it('shows nothing that was printed on the way when all is well', () => {
  const { lines, status } = run('a.test.ts', '-t', 'is well')
  expect(status).toBe(0)
  expect(lines.at(-1)).toMatch(/^1 passed, 0 failed/)
  expect(lines.join('\n')).not.toContain('FAILED')
}, 120_000)
