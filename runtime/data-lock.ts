// One owner at a time for a directory, on one machine. A lock is a directory of claims; a claim is an empty file whose name says which process
// made it (pid, and when that process started, since pids are used again). Claims of the dead count for nothing and are swept away, so that a
// start after a kill works at once. Nobody ever removes what a living process claimed: two that start together both see both claims, and yield.
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { StartError } from './errors.ts'

export interface DataLock {
  /** The last owner did not let go in order: it was killed, or the machine went down. */
  readonly afterCrash: boolean
  release(): void
}

export interface LockOptions {
  /** The sentence for whoever finds the lock taken. */
  readonly whenTaken: (pid: number) => string
  /** An owner may still be letting go: how long to wait for it. */
  readonly waitMs?: number
  /** Ends the wait early. */
  readonly signal?: AbortSignal
}

const pollMs = 25

/** Throws a StartError when another process still owns `directory` after the wait. */
export async function acquireLock(directory: string, options: LockOptions): Promise<DataLock> {
  const { whenTaken, waitMs = 5_000, signal } = options
  mkdirSync(directory, { recursive: true })
  const own = claimName(process.pid)
  const deadline = performance.now() + waitMs
  let afterCrash = false
  for (;;) {
    afterCrash = sweep(directory, own) || afterCrash
    // Looked at before claiming, so that those who wait don't keep claiming; looked at again after, because another may claim at the same moment.
    let owner = livingClaim(directory)
    if (owner === undefined) {
      claim(directory, own)
      owner = livingClaim(directory, own)
      if (owner === undefined) return { afterCrash, release: () => rmSync(join(directory, own), { force: true }) }
      rmSync(join(directory, own), { force: true })
    }
    if (performance.now() >= deadline || signal?.aborted) throw new StartError(whenTaken(owner))
    // By chance, so that two who yielded to each other don't meet again for ever.
    await pause(pollMs * (0.5 + Math.random()), undefined, signal ? { signal } : {}).catch(() => {})
  }
}

/** The process that owns `directory` now, if any. */
export function lockOwner(directory: string): number | undefined {
  try {
    return livingClaim(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

function claim(directory: string, name: string): void {
  closeSync(openSync(join(directory, name), 'wx', 0o600))
}

/** Removes claims of processes that are no more; true when there was one. */
function sweep(directory: string, own: string): boolean {
  let swept = false
  for (const name of readdirSync(directory)) {
    const pid = pidOf(name)
    if (pid === undefined || name === own || claimName(pid) === name) continue
    rmSync(join(directory, name), { force: true })
    swept = true
  }
  return swept
}

function livingClaim(directory: string, except?: string): number | undefined {
  for (const name of readdirSync(directory)) {
    const pid = pidOf(name)
    if (pid !== undefined && name !== except && claimName(pid) === name) return pid
  }
  return undefined
}

function pidOf(name: string): number | undefined {
  const match = /^(\d+)-/.exec(name)
  return match ? Number(match[1]) : undefined
}

/** What the process with this pid would claim with; of no living process: a name that no claim has. */
function claimName(pid: number): string {
  return `${pid}-${startedAt(pid) ?? 'gone'}`
}

/** Ticks since boot and the boot's id: together they are never used again. Without /proc all that can be asked is whether the pid lives. */
function startedAt(pid: number): string | undefined {
  const boot = bootId()
  if (boot === undefined) return isSignalled(pid) ? 'alive' : undefined
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    // Field 2 is the command's name in brackets and may hold anything; field 3 is the state, field 22 the start.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const state = fields[0]
    // A zombie has let go of everything; only its parent has not looked yet.
    return state === 'Z' || state === 'X' ? undefined : `${fields[19]}-${boot}`
  } catch {
    return undefined
  }
}

let boot: string | undefined | null = null

function bootId(): string | undefined {
  if (boot === null) {
    try {
      boot = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').slice(0, 8)
    } catch {
      boot = undefined
    }
  }
  return boot
}

function isSignalled(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
