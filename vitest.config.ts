// Two groups, one after the other: what lies beside the code, two files at a time, then what drives the whole product, one file at a time,
// because a machine of two cores runs three of its processes in each.
import { defineConfig } from 'vitest/config'
import { closingLine } from './tests/closing-line.ts'

const wholeProduct = ['tests/end-to-end/**/*.test.ts', 'tests/browser/**/*.test.ts']

export default defineConfig({
  test: {
    globalSetup: 'tests/helpers/global-setup.ts',
    reporters: ['default', closingLine()],
    // A benchmark's harness says FAILED in tests that want it to: what is printed is shown only where a test failed.
    silent: 'passed-only',
    // Both groups share the machine with nobody, but it may be a slow one.
    testTimeout: 20_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: 'beside the code',
          include: ['**/*.test.ts', '**/*.test.tsx'],
          exclude: ['node_modules/**', 'dist/**', 'data/**', ...wholeProduct],
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'whole product',
          include: wholeProduct,
          fileParallelism: false,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
