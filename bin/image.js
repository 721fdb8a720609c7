// `node bin/image.js FOLDER`: what a server needs of a built checkout, and nothing else: no development packages, no engine (ClickHouse is a service of
// its own), one platform's uWebSockets.js, no sources, tests, maps or types. Used by the Dockerfile. Needs nothing installed.
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { project } from './build.js'

const files = ['package.json', 'LICENSE', 'dashboards/assets', 'demo', 'dist', 'node_modules']
/** Below the checkout. */
const leftFolders = [
  'dist/tests',
  'dist/benchmarks',
  'node_modules/chdb',
  'node_modules/@chdb',
  'node_modules/.bin',
  'node_modules/.vite',
]
const leftNames = /\.(map|tsbuildinfo|d\.[mc]?ts|test\.js|contract\.js)$|\/\.[\w-]*lock\.json$/
/** Of uWebSockets.js: its loader, and the binary that this Node loads. */
const webServerFiles = [
  'package.json',
  'LICENSE',
  'uws.js',
  'ESM_wrapper.mjs',
  `uws_${process.platform}_${process.arch}_${process.versions.modules}.node`,
]
const webServer = 'node_modules/uWebSockets.js'

/** Gives back the bytes that it copied. */
export function copyImage(target, { from = project } = {}) {
  mkdirSync(target, { recursive: true })
  if (!existsSync(join(from, webServer, webServerFiles.at(-1))))
    throw new Error(`uWebSockets.js has no ${webServerFiles.at(-1)}: choose another Node for the image`)
  const left = new Set([...leftFolders, ...developmentPackages(from)])
  const isKept = (path) => {
    if (left.has(path) || leftNames.test(path)) return false
    return !path.startsWith(`${webServer}/`) || webServerFiles.includes(path.slice(webServer.length + 1))
  }
  const filter = (path) => isKept(relative(from, path))
  for (const name of files) cpSync(join(from, name), join(target, name), { recursive: true, dereference: true, filter })
  return bytesOf(target)
}

/** Their folders, as the lock file marks them. */
function developmentPackages(from) {
  const { packages } = JSON.parse(readFileSync(join(from, 'package-lock.json'), 'utf8'))
  return Object.keys(packages).filter((folder) => packages[folder].dev)
}

function bytesOf(folder) {
  let bytes = 0
  for (const entry of readdirSync(folder, { withFileTypes: true, recursive: true }))
    if (entry.isFile()) bytes += statSync(join(entry.parentPath, entry.name)).size
  return bytes
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const target = process.argv[2]
  if (target === undefined) {
    process.stderr.write('usage: node bin/image.js FOLDER\n')
    process.exitCode = 2
  } else {
    const bytes = copyImage(resolve(target))
    process.stdout.write(`${target}: ${(bytes / 1024 ** 2).toFixed(1)} MiB\n`)
  }
}
