// The product on a disk whose syncs can be made to fail, or to take for ever: `startWeir({ env: disk.env })`. See failing-disk.cjs.
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { projectDirectory } from './spawn-weir.ts'

export interface SyncFault {
  /** Of the file's full path. */
  readonly file: RegExp
  readonly times: number
}

export interface FailingDisk {
  readonly env: Readonly<Record<string, string>>
  order(faults: { readonly fdatasync?: SyncFault; readonly fsync?: SyncFault }): void
  /** From now on syncs of these files do not end, and so do writes that are one, until it is mended. */
  stall(file: RegExp): void
  /** Faults that were ordered and have not happened yet. */
  left(): number
  /** From now on it is a good disk. */
  mend(): void
  dispose(): void
}

export function createFailingDisk(): FailingDisk {
  const directory = mkdtempSync(join(tmpdir(), 'weir-test-fault-'))
  const file = join(directory, 'order.json')
  const write = (order: object): void => {
    writeFileSync(`${file}.test`, JSON.stringify(order))
    renameSync(`${file}.test`, file)
  }
  write({})
  return {
    env: {
      NODE_OPTIONS: `--require=${join(projectDirectory, 'tests/helpers/failing-disk.cjs')}`,
      FAILING_DISK_ORDER: file,
    },
    order: (faults) =>
      write(
        Object.fromEntries(
          Object.entries(faults).map(([operation, fault]) => [
            operation,
            { file: fault.file.source, times: fault.times },
          ]),
        ),
      ),
    stall: (file) => write({ stall: { file: file.source } }),
    left: () =>
      Object.values(JSON.parse(readFileSync(file, 'utf8')) as Record<string, { times: number }>).reduce(
        (sum, { times }) => sum + times,
        0,
      ),
    mend: () => write({}),
    dispose: () => rmSync(directory, { recursive: true, force: true }),
  }
}
