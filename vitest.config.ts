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
    // The machine may be slow and shared. A test's time is above the sum of what it waits for, so that the wait that failed is the one that speaks.
    testTimeout: 120_000,
    hookTimeout: 180_000,
    expect: { poll: { timeout: 30_000 } },
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
          testTimeout: 600_000,
          hookTimeout: 300_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
