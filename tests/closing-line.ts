// The last words of a test run: what was skipped, each with its reason, then one plain line that any reader of logs understands.
import type { Reporter, TestModule } from 'vitest/node'

export function closingLine(): Reporter {
  return {
    onTestRunEnd(modules, unhandledErrors) {
      const count = { passed: 0, failed: 0, skipped: 0 }
      const skipped: string[] = []
      for (const module of modules) {
        if (hasFailedToLoad(module)) count.failed++
        for (const test of module.children.allTests()) {
          const { state } = test.result()
          if (state === 'passed') count.passed++
          else if (state === 'failed') count.failed++
          else {
            count.skipped++
            const { note } = test.result() as { note?: string }
            skipped.push(`  ${module.relativeModuleId}: ${test.name}${note ? ` (${note})` : ''}`)
          }
        }
      }
      count.failed += unhandledErrors.length
      if (skipped.length > 0) process.stdout.write(`Not run:\n${skipped.join('\n')}\n`)
      const more = count.skipped > 0 ? `, ${count.skipped} skipped` : ''
      process.stdout.write(`${count.passed} passed, ${count.failed} failed${more}\n`)
    },
  }
}

/** A file that could not be read as a test, or whose hooks failed, is a failure that no test shows. */
function hasFailedToLoad(module: TestModule): boolean {
  if (module.errors().length > 0) return true
  return [...module.children.allSuites()].some((suite) => suite.errors().length > 0)
}
