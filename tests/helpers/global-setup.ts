// Builds dist/ once before any test runs, when a source is newer than the last build: end-to-end tests drive the built product.
import { spawnSync } from 'node:child_process'
import { projectDirectory } from './spawn-weir.ts'

export default function buildOnce(): void {
  const prepared = spawnSync(process.execPath, ['bin/prepare.js'], { cwd: projectDirectory, encoding: 'utf8' })
  if (prepared.status !== 0) throw new Error(`the build failed:\n${prepared.stdout}${prepared.stderr}`)
}
