#!/usr/bin/env node
// `npx weir …`: makes the checkout runnable first (install, build), then is the built product, in this same process: signals and exit codes
// are its own.
import { prepare } from './prepare.js'

const lookEveryMs = 200

try {
  prepare()
} catch (error) {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
if (process.env.npm_command === 'exec') endWithParent(process.ppid)
await import('../dist/main.js')

/** npx runs us under a shell, which a SIGTERM ends and which passes none on: then nobody would be left who could end us. */
function endWithParent(parent) {
  const timer = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(timer)
    process.kill(process.pid, 'SIGTERM')
  }, lookEveryMs)
  timer.unref()
}
