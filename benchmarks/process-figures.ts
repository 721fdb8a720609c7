// CPU time and memory of other processes, from /proc.
import { readFileSync } from 'node:fs'

/** Clock ticks are 10 ms on every Linux that Node runs on (USER_HZ). */
const tickUs = 10_000

/** User and system time since it started, in µs; 0 when it is gone. */
export function cpuUsOf(pid: number | undefined): number {
  if (pid === undefined) return 0
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
    return (Number(fields[11]) + Number(fields[12])) * tickUs
  } catch {
    return 0
  }
}

/** Resident memory in MiB; 0 when it is gone. */
export function residentMiBOf(pid: number | undefined): number {
  if (pid === undefined) return 0
  try {
    const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))
    return match ? Number(match[1]) / 1024 : 0
  } catch {
    return 0
  }
}
