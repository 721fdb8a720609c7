// Groups, one after the other: what lies beside the code, then what drives the whole product, then the most important of that on Kafka. Three files at a
// time where most of the time is waiting (for brokers to come and go, for time-outs), two where processes and browsers work.
import { existsSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { defineConfig } from 'vitest/config'
import { closingLine } from './tests/closing-line.ts'

const wholeProduct = ['tests/end-to-end/**/*.test.ts', 'tests/browser/**/*.test.ts']
/** On both logs each time; the rest of the whole product runs on Kafka with WEIR_TEST_LOG=kafka. */
const alsoOnKafka = [
  'survives-kill-9',
  'a-reading-reaches-a-viewer',
  'a-resend-is-one-reading',
  'the-gateway-loses-nothing',
  'the-gateway-window-holds',
  'the-seam-has-no-hole',
  'anomalies-survive-kill-9',
  'a-clickhouse-elsewhere',
].map((name) => `tests/end-to-end/${name}.test.ts`)
const onlyOnKafka = [
  'roles-apart-on-kafka',
  'the-seam-between-two-clocks',
  'history-and-live-while-writers-come-and-go',
  'waits-for-kafka',
  'a-stalled-kafka-pushes-back',
  'a-lost-quorum-acknowledges-nothing',
  'a-group-that-retention-passed-is-reset',
].map((name) => `tests/end-to-end/${name}.test.ts`)
const kafkaSetup = 'tests/helpers/kafka-setup.ts'
const isAllOnKafka = process.env.WEIR_TEST_LOG === 'kafka'
/** Looked for here because a project without its setup has nothing to say why; bin/test.js names what is missing. */
const canRunKafka =
  process.env.WEIR_TEST_REQUIRE === 'all' ||
  ['java', 'mvn'].every((name) =>
    (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, name))),
  )

// As the store's own process is started with: where tests have the engine in theirs, slow questions must not hold every thread.
process.env.UV_THREADPOOL_SIZE ??= '16'

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
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'whole product',
          include: wholeProduct,
          exclude: isAllOnKafka ? [] : onlyOnKafka,
          ...(isAllOnKafka && { globalSetup: kafkaSetup }),
          testTimeout: 600_000,
          hookTimeout: 300_000,
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
      ...(canRunKafka && !isAllOnKafka
        ? [
            {
              extends: true as const,
              test: {
                name: 'whole product on Kafka',
                include: [...alsoOnKafka, ...onlyOnKafka],
                env: { WEIR_TEST_LOG: 'kafka' },
                globalSetup: kafkaSetup,
                testTimeout: 600_000,
                hookTimeout: 300_000,
                maxWorkers: 3,
                sequence: { groupOrder: 2 },
              },
            },
          ]
        : []),
    ],
  },
})
