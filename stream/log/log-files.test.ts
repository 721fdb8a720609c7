import { constants, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { systemFiles } from './log-files.ts'

describe('the files of the system', () => {
  let directory: string
  let file: string
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'weir-files-'))
    file = join(directory, 'a.seg')
    writeFileSync(file, Buffer.alloc(8192))
  })
  afterAll(() => rmSync(directory, { recursive: true, force: true }))

  it.runIf(process.platform === 'linux')(
    'a descriptor for durable writes is one on which the system syncs each write',
    async () => {
      const flagsOf = (descriptor: number) =>
        Number.parseInt(/^flags:\s+(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${descriptor}`, 'utf8'))![1]!, 8)
      const durable = await systemFiles.openDurable(file)
      const plain = await systemFiles.open(file, 'r+')
      expect(flagsOf(durable) & constants.O_DSYNC).toBe(constants.O_DSYNC)
      expect(flagsOf(plain) & constants.O_DSYNC).toBe(0)
      await systemFiles.close(durable)
      await systemFiles.close(plain)
    },
  )

  it('a durable write goes where it is told, and leaves the rest of the file', async () => {
    const descriptor = await systemFiles.openDurable(file)
    expect(await systemFiles.writeDurably(descriptor, Buffer.from('-reading-'), 1, 7, 4096)).toBe(7)
    await systemFiles.close(descriptor)
    const bytes = readFileSync(file)
    expect(bytes.length).toBe(8192)
    expect(bytes.subarray(4096, 4103).toString()).toBe('reading')
    expect(bytes.filter((byte) => byte !== 0)).toHaveLength(7)
  })

  it('openDurable makes no file: a name that is not there is an error', async () => {
    await expect(systemFiles.openDurable(join(directory, 'b.seg'))).rejects.toMatchObject({ code: 'ENOENT' })
  })
})
