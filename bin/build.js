// `npm run build`: the sources to dist/, and beside them the files that the built product reads (migrations, pages' assets, sample data).
// `ifNeeded` builds only when a source is newer than the last build.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, statSync, utimesSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const project = resolve(dirname(fileURLToPath(import.meta.url)), '..')
const mark = join(project, 'dist/.tsbuildinfo')
const folders = ['domain', 'ingest', 'stream', 'storage', 'api', 'dashboards', 'cli', 'runtime', 'benchmarks', 'tests']
const roots = ['main.ts', 'app.ts', 'app-children.ts', 'app-intake.ts', 'tsconfig.json', 'package-lock.json']

export function modifiedAt(path) {
  return statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0
}

export function isBuilt() {
  if (!existsSync(join(project, 'dist/main.js'))) return false
  const builtAt = modifiedAt(mark)
  return sources().every((file) => modifiedAt(file) <= builtAt)
}

/** Throws when a source does not compile. */
export function build() {
  const startedAt = new Date()
  const compiler = join(project, 'node_modules/typescript/bin/tsc')
  const { status, stdout, stderr, error } = spawnSync(process.execPath, [compiler], { cwd: project, encoding: 'utf8' })
  if (status !== 0) throw new Error(`the build failed: ${error?.message ?? `\n${stdout}${stderr}`}`)
  for (const file of sources()) {
    if (/\.tsx?$/.test(file) || roots.some((root) => file === join(project, root))) continue
    const target = join(project, 'dist', file.slice(project.length))
    mkdirSync(dirname(target), { recursive: true })
    copyFileSync(file, target)
  }
  // The compiler leaves its mark alone when nothing changed but times.
  utimesSync(mark, startedAt, startedAt)
}

function sources() {
  const found = roots.map((root) => join(project, root))
  // An image is built without tests and benchmarks.
  for (const folder of folders.filter((each) => existsSync(join(project, each)))) {
    for (const entry of readdirSync(join(project, folder), { withFileTypes: true, recursive: true })) {
      if (entry.isFile()) found.push(join(entry.parentPath, entry.name))
    }
  }
  return found
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    build()
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}
