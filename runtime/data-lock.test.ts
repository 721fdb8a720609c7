import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { acquireLock, lockOwner } from './data-lock.ts'
import { StartError } from './errors.ts'

const whenTaken = (pid: number): string => `in use by process ${pid}`
const built = join(import.meta.dirname, '../dist/runtime/data-lock.js')

/** A process of its own that says "held" once it has the lock, or why it has not, and then lives on. */
const holder = `import { acquireLock } from ${JSON.stringify(built)}
acquireLock(process.argv[1], { waitMs: Number(process.argv[2]), whenTaken: (pid) => 'taken by ' + pid }).then(
  () => { console.log('held'); setInterval(() => {}, 1000) },
  (error) => console.log(error.message))`

describe('a data lock', () => {
  let directory: string
  const children: ChildProcess[] = []
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'weir-test-lock-'))
  })
  afterEach(() => {
    for (const child of children.splice(0)) child.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
  })

  const hold = (waitMs = 0): { child: ChildProcess; word: Promise<string> } => {
    const words = ['--input-type=module', '-e', holder, directory, String(waitMs)]
    const child = spawn(process.execPath, words, { stdio: ['ignore', 'pipe', 'inherit'] })
    children.push(child)
    const word = new Promise<string>((done) => {
      child.stdout!.setEncoding('utf8').once('data', (text: string) => done(text.trim()))
    })
    return { child, word }
  }

  it('is given to one, and after it let go to the next', async () => {
    const first = await acquireLock(directory, { whenTaken })
    expect(lockOwner(directory)).toBe(process.pid)
    await expect(acquireLock(directory, { whenTaken, waitMs: 0 })).rejects.toThrow(StartError)
    first.release()
    expect(lockOwner(directory)).toBeUndefined()
    const second = await acquireLock(directory, { whenTaken, waitMs: 0 })
    expect(second.afterCrash).toBe(false)
    second.release()
    expect(readdirSync(directory)).toEqual([])
  })

  it('names the process that has it', async () => {
    const { child, word } = hold()
    expect(await word).toBe('held')
    await expect(acquireLock(directory, { whenTaken, waitMs: 0 })).rejects.toThrow(`in use by process ${child.pid}`)
  })

  it('waits for one that is letting go', async () => {
    const { child, word } = hold()
    await word
    const waiting = acquireLock(directory, { whenTaken, waitMs: 10_000 })
    child.kill('SIGKILL')
    const lock = await waiting
    expect(lock.afterCrash).toBe(true)
    lock.release()
  })

  it('is not held by the dead, nor by a process that has the pid of a dead one', async () => {
    writeFileSync(join(directory, '999999999-1-aaaaaaaa'), '')
    writeFileSync(join(directory, `${process.pid}-1-aaaaaaaa`), '')
    const lock = await acquireLock(directory, { whenTaken, waitMs: 0 })
    expect(lock.afterCrash).toBe(true)
    lock.release()
    expect(readdirSync(directory)).toEqual([])
  })

  it('goes to exactly one of many that start at once over what a dead one left', async () => {
    for (let round = 0; round < 2; round++) {
      writeFileSync(join(directory, '999999999-1-aaaaaaaa'), '')
      const starters = Array.from({ length: 5 }, () => hold(1_500))
      const words = await Promise.all(starters.map(({ word }) => word))
      expect(words.filter((word) => word === 'held')).toHaveLength(1)
      const owner = starters[words.indexOf('held')]!.child.pid
      for (const word of words) if (word !== 'held') expect(word).toBe(`taken by ${owner}`)
      const gone = starters.map(({ child }) => new Promise((done) => child.once('exit', done)))
      for (const { child } of starters) if (child.exitCode === null) child.kill('SIGKILL')
      await Promise.all(starters.map(({ child }, at) => child.exitCode ?? child.signalCode ?? gone[at]))
    }
  })
})
