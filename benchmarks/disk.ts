// How long the disk takes to make one small write durable: what every acknowledgement waits for. Said before each benchmark that waits for it, because
// a neighbour who writes to the same disk makes the difference between one millisecond and twenty.
import { closeSync, fdatasyncSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Report, spreadOf } from './harness.ts'

const writes = 200
const writeBytes = 4096
const fileBytes = writes * writeBytes

export function reportDisk(report: Report): void {
  const directory = mkdtempSync(join(tmpdir(), 'weir-bench-disk-'))
  try {
    const descriptor = openSync(join(directory, 'probe'), 'w')
    // Written full beforehand, as the log's segments are: no metadata changes with each write.
    writeSync(descriptor, Buffer.alloc(fileBytes))
    fdatasyncSync(descriptor)
    const bytes = Buffer.alloc(writeBytes, 1)
    const tookMs = Array.from({ length: writes }, (_, i) => {
      const beganAt = performance.now()
      writeSync(descriptor, bytes, 0, writeBytes, i * writeBytes)
      fdatasyncSync(descriptor)
      return performance.now() - beganAt
    })
    closeSync(descriptor)
    const { median, max } = spreadOf(tookMs)
    report.line(
      `disk: a write of 4 KiB and its fdatasync take ${median.toFixed(2)} ms (slowest of ${writes}: ${max.toFixed(1)})`,
    )
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}
