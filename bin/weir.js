#!/usr/bin/env node
// `npx weir …`: makes the checkout runnable first (install, build), then is the built product, in this same process: signals and exit codes
// are its own.
import { prepare } from './prepare.js'

try {
  prepare()
} catch (error) {
  process.stderr.write(`${error.message}\n`)
  process.exit(1)
}
await import('../dist/main.js')
