// The last words of a test run, for who sees only its end: what was not run, each with its reason; what failed, each with file, name and the first
// lines of what was said; then one plain line that any reader of logs understands.
import { stripVTControlCharacters } from 'node:util'
import type { Reporter, TestModule, Vitest } from 'vitest/node'

interface SaidError {
  readonly name?: string
  readonly message?: string
  readonly stack?: string
  readonly diff?: string
}

const linesMax = 10
const lineLengthMax = 300

export function closingLine(): Reporter {
  let root = process.cwd()
  return {
    onInit(vitest: Vitest) {
      root = vitest.config.root
    },
    onTestRunEnd(modules, unhandledErrors) {
      let passed = 0
      const notRun: string[] = []
      const failed: string[] = []
      for (const module of modules) {
        const file = module.relativeModuleId
        for (const { where, errors } of failedHooks(module)) failed.push(failure(file, where, errors, root))
        for (const test of module.children.allTests()) {
          const result = test.result()
          if (result.state === 'passed') passed++
          else if (result.state === 'failed') failed.push(failure(file, test.fullName, result.errors, root))
          else {
            const { note } = result as { note?: string }
            // The reason may stand in the name of what it is part of.
            notRun.push(`  ${file}: ${test.fullName}${note ? ` (${note})` : ''}`)
          }
        }
      }
      for (const error of unhandledErrors) {
        const { VITEST_TEST_PATH: file, VITEST_TEST_NAME: name } = error as Record<string, unknown>
        failed.push(
          failure(String(file ?? 'no file'), `an error that nobody caught, near ${name ?? '?'}`, [error], root),
        )
      }
      if (notRun.length > 0) process.stdout.write(`Not run:\n${notRun.join('\n')}\n`)
      if (failed.length > 0) process.stdout.write(`${failed.join('\n')}\n`)
      const more = notRun.length > 0 ? `, ${notRun.length} skipped` : ''
      process.stdout.write(`${passed} passed, ${failed.length} failed${more}\n`)
    },
  }
}

/** A file that could not be read as a test, or whose hooks failed, is a failure that no test shows. */
function failedHooks(module: TestModule): { where: string; errors: readonly SaidError[] }[] {
  const found = [{ where: 'the file, or a hook of it', errors: module.errors() as readonly SaidError[] }]
  for (const suite of module.children.allSuites())
    found.push({ where: `a hook of ${suite.fullName}`, errors: suite.errors() })
  return found.filter(({ errors }) => errors.length > 0)
}

/** The first line has it all, for who looks only for the word. */
function failure(file: string, where: string, errors: readonly SaidError[] | undefined, root: string): string {
  const [error] = errors ?? []
  const said = `${error?.name ?? 'Error'}: ${error?.message ?? 'without a message'}\n${error?.diff ?? ''}`
  const [first, ...rest] = stripVTControlCharacters(said)
    .split('\n')
    .filter((line) => line.trim() !== '')
  const lines = [`FAILED ${file} > ${where} > ${first}`]
  lines.push(...rest.slice(0, linesMax).map((line) => `  ${line}`))
  if (rest.length > linesMax) lines.push(`  … ${rest.length - linesMax} more lines above`)
  const frames = (error?.stack ?? '').split('\n').filter((line) => line.includes(`${root}/`))
  const frame = frames.map((line) => line.trim().replace(`${root}/`, '')).find((line) => !line.includes('node_modules'))
  if (frame) lines.push(`  ${frame}`)
  if ((errors?.length ?? 0) > 1) lines.push(`  and ${errors!.length - 1} more errors of it above`)
  return lines.map((line) => (line.length > lineLengthMax ? `${line.slice(0, lineLengthMax)} …` : line)).join('\n')
}
