// Builds dist/ once before any test runs, when a source is newer than the last build: end-to-end tests drive the built product.
import { spawnSync } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { projectDirectory } from './spawn-weir.ts'

const notSources = new Set(['node_modules', 'dist', 'data', '.git', 'docs', 'tests'])

export default function buildOnce(): void {
  if (newestSource(projectDirectory) <= modifiedAt(join(projectDirectory, 'dist/.tsbuildinfo'))) return
  const build = spawnSync('npm', ['run', '--silent', 'build'], { cwd: projectDirectory, encoding: 'utf8' })
  if (build.status !== 0) throw new Error(`npm run build failed:\n${build.stdout}${build.stderr}`)
}

function newestSource(directory: string): number {
  let newest = 0
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    if (notSources.has(entry.name)) continue
    const path = join(directory, entry.name)
    newest = Math.max(newest, entry.isDirectory() ? newestSource(path) : modifiedAt(path))
  }
  return newest
}

function modifiedAt(path: string): number {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}
