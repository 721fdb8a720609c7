// The log between real processes: a reader in one, an appender that is killed in another, as often as it takes. RELIABILITY: D1.

import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import * as path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemClock } from '../../runtime/clock.ts'
import { silentLogger } from '../../runtime/logger.ts'
import { openEmbeddedLog } from './embedded-log.ts'

const project = fileURLToPath(new URL('../..', import.meta.url))

// Appends chunks that say their number and prints what was acknowledged; or tails and prints what it read.
const program = `
import { openEmbeddedLog } from './out/stream/log/embedded-log.js'
import { systemClock } from './out/runtime/clock.js'
import { silentLogger } from './out/runtime/logger.js'
const [mode, directory] = process.argv.slice(2)
const log = await openEmbeddedLog({ directory, mode, partitions: 2, segmentBytes: 262144, quotaBytes: 1e9, retentionMs: 1e12, groups: [],
  logger: silentLogger, clock: systemClock })
console.log('open')
setInterval(() => {}, 1000)
if (mode === 'append') {
  const worker = async (worker) => {
    for (let i = 0; ; i++) {
      const rows = Buffer.from(process.pid + ':' + worker + ':' + i + ':' + 'x'.repeat((i * 37) % 700))
      const offset = await log.append('readings', worker % 2, rows, 1, i + 1)
      process.stdout.write((worker % 2) + ' ' + offset + ' ' + rows.toString().slice(0, 40) + '\\n')
    }
  }
  for (let w = 0; w < 20; w++) void worker(w)
} else {
  for await (const chunks of log.tail('readings', new Map(), new AbortController().signal))
    for (const chunk of chunks) process.stdout.write(chunk.partition + ' ' + chunk.offset + ' ' + Buffer.from(chunk.rows).toString().slice(0, 40) + '\\n')
}
`

let place: string
beforeAll(async () => {
  place = await mkdtemp(path.join(tmpdir(), 'weir-log-processes-'))
  await symlink(path.join(project, 'node_modules'), path.join(place, 'node_modules'))
  await writeFile(path.join(place, 'package.json'), '{"type":"module"}')
  await writeFile(path.join(place, 'program.js'), program)
  const config = {
    extends: path.join(project, 'tsconfig.json'),
    compilerOptions: {
      rootDir: project,
      outDir: path.join(place, 'out'),
      incremental: false,
      noCheck: true,
      sourceMap: false,
    },
    include: [],
    files: ['stream/log/embedded-log.ts', 'runtime/clock.ts', 'runtime/logger.ts'].map((file) =>
      path.join(project, file),
    ),
  }
  await writeFile(path.join(place, 'tsconfig.json'), JSON.stringify(config))
  execFileSync(process.execPath, [path.join(project, 'node_modules/typescript/bin/tsc'), '-p', place])
})
afterAll(() => rm(place, { recursive: true, force: true }))

function start(
  mode: 'append' | 'read',
  directory: string,
): { child: ChildProcess; lines: string[]; exited: Promise<void> } {
  const child = spawn(process.execPath, [path.join(place, 'program.js'), mode, directory], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const lines: string[] = []
  createInterface({ input: child.stdout! }).on('line', (line) => lines.push(line))
  const exited = new Promise<void>((resolve) => child.once('close', () => resolve()))
  return { child, lines, exited }
}

describe('the log between processes', () => {
  it('an appender is killed again and again: everything acknowledged is there once, and a reader in another process saw it all', async () => {
    const directory = path.join(place, 'killed')
    const reader = start('read', directory)
    const second = start('read', directory)
    const acknowledged: string[] = []
    for (let round = 0; round < 6; round++) {
      const appender = start('append', directory)
      await expect.poll(() => appender.lines.length).toBeGreaterThan(200 + round * 137)
      appender.child.kill('SIGKILL')
      await appender.exited
      acknowledged.push(...appender.lines.slice(1).filter((line) => line.split(':').length >= 4 || line.length >= 40))
    }
    const log = await openEmbeddedLog({
      directory,
      mode: 'append',
      partitions: 2,
      segmentBytes: 262_144,
      quotaBytes: 1e9,
      retentionMs: 1e12,
      groups: [],
      logger: silentLogger,
      clock: systemClock,
    })
    const end = await log.end('readings')
    const total = end.get(0)! + end.get(1)!
    await expect.poll(() => reader.lines.length - 1).toBe(total)
    await expect.poll(() => second.lines.length - 1).toBe(total)
    for (const { child, exited } of [reader, second]) {
      child.kill('SIGKILL')
      await exited
    }
    expect(second.lines).toEqual(reader.lines)
    await log.close()
    const read = reader.lines.slice(1)
    expect(new Set(read).size).toBe(total)
    const seen = new Set(read)
    expect(acknowledged.length).toBeGreaterThan(1000)
    for (const line of acknowledged) expect(seen.has(line), line).toBe(true)
    for (const partition of ['0', '1']) {
      const offsets = read.filter((line) => line.startsWith(partition)).map((line) => Number(line.split(' ')[1]))
      expect(offsets).toEqual(offsets.map((_, i) => i))
    }
  })
})
