// Makes a fresh checkout runnable, with nothing but Node and npm: installs what the lock file names when it is not there, and builds when a source
// is newer than the build. Silent when there is nothing to do. Needs nothing installed.
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, isBuilt, modifiedAt, project } from './build.js'

const nodeMin = [20, 19]

/** Throws an Error whose message is a sentence. */
export function prepare({ buildToo = true } = {}) {
  checkNode()
  if (modifiedAt(join(project, 'node_modules/.package-lock.json')) < modifiedAt(join(project, 'package-lock.json'))) {
    say('installing the packages (once; about a minute) …')
    install()
  }
  if (buildToo && !isBuilt()) {
    say('building …')
    build()
  }
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > nodeMin[0] || (major === nodeMin[0] && minor >= nodeMin[1])) return
  throw new Error(`Weir needs Node ${nodeMin.join('.')} or newer; this is ${process.version}`)
}

function install() {
  // What the lock file names, by its checksums. Not `npm ci`: it refuses a lock file that lacks a package for a platform other than ours, and a
  // registry may not have them all. Typescript, which builds, is a development package: it is wanted whatever NODE_ENV says.
  const words = ['install', '--no-save', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error']
  const { status, stdout, stderr, error } = spawnSync('npm', words, { cwd: project, encoding: 'utf8' })
  if (status !== 0) throw new Error(`npm install failed: ${error?.message ?? `\n${stdout}${stderr}`}`)
}

function say(line) {
  process.stderr.write(`weir: ${line}\n`)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    prepare({ buildToo: !process.argv.includes('--no-build') })
  } catch (error) {
    process.stderr.write(`${error.message}\n`)
    process.exitCode = 1
  }
}
