// `npm run docs`: README.md with the option table as runtime/config.ts has it.
import { join } from 'node:path'
import { project } from './build.js'
import { prepare } from './prepare.js'

prepare()
const { writeOptionTable } = await import('../dist/runtime/option-table.js')
writeOptionTable(join(project, 'README.md'))
