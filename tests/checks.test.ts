// The compiler and the formatter as tests, so that one command says all (`npm run check` runs the same).
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const project = join(import.meta.dirname, '..')

it.each([
  ['types hold', ['typescript/bin/tsc', '--noEmit', '--incremental', 'false']],
  ['types hold in what the browser is given', ['typescript/bin/tsc', '-p', 'dashboards/assets/tsconfig.json']],
  ['format and lint hold', ['@biomejs/biome/bin/biome', 'check', '--max-diagnostics=20', '--colors=off']],
])(
  '%s',
  (_name, [program, ...words]) => {
    const run = spawnSync(process.execPath, [join(project, 'node_modules', program!), ...words], {
      cwd: project,
      encoding: 'utf8',
    })
    expect(run.status, `${run.stdout}${run.stderr}`).toBe(0)
  },
  120_000,
)
