// The file of registered devices: one line of JSON each, after a line that says what it is. Written whole and put in place by a rename, so that a
// reader finds the old file or the new one; changed by one process at a time. What names mean is for others: here they are text with bounds.
import { randomBytes } from 'node:crypto'
import {
  chownSync,
  closeSync,
  fchmodSync,
  fstatSync,
  fsyncSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { dirname } from 'node:path'
import { acquireLock } from '../data-lock.ts'
import { LimitError, StartError } from '../errors.ts'
import { isTokenHash, isTokenId } from './device-token.ts'

export interface RegisteredToken {
  readonly id: string
  /** SHA-256 of the token, base64url. */
  readonly hash: string
  /** Epoch milliseconds. */
  readonly createdAt: number
}

export interface RegisteredDevice {
  readonly tenant: string
  readonly device: string
  readonly labels: Readonly<Record<string, string>>
  /** Names of other devices that it may send for, or their beginnings and `*`. */
  readonly speaksFor: readonly string[]
  readonly addedAt: number
  readonly tokens: readonly RegisteredToken[]
}

export const registryLimits = {
  devicesMax: 50_000,
  tokensPerDeviceMax: 8,
  labelsPerDeviceMax: 32,
  labelLengthMax: 256,
  patternsPerDeviceMax: 16,
  /** A larger file is neither written nor read. */
  fileBytesMax: 64 * 1024 * 1024,
} as const

/** By name; in the order in which they were added. */
export type Registrations = Map<string, RegisteredDevice>

const firstLine = '{"format":"weir-devices","version":1}'
const namePattern = /^[\x21-\x7e]{1,128}$/
export const labelNamePattern = /^[A-Za-z0-9._-]{1,64}$/
const lockWaitMs = 10_000

/** What tells one version of the file from another; '' where there is none. */
export type FileMark = string

export function markOf(stats: { ino: number; size: number; mtimeMs: number; ctimeMs: number }): FileMark {
  return `${stats.ino} ${stats.size} ${stats.mtimeMs} ${stats.ctimeMs}`
}

/** Reads it whole. No file: nobody is registered. Throws a StartError with file and line where it can't be used. */
export function readRegistry(file: string): { readonly mark: FileMark; readonly devices: Registrations } {
  let descriptor: number
  try {
    descriptor = openSync(file, 'r')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { mark: '', devices: new Map() }
    throw new StartError(`The file of devices ${file} can't be read: ${(error as Error).message}`, { cause: error })
  }
  try {
    const stats = fstatSync(descriptor)
    if (stats.size > registryLimits.fileBytesMax)
      throw new StartError(`The file of devices ${file} is larger than ${registryLimits.fileBytesMax} bytes`)
    return { mark: markOf(stats), devices: parseRegistry(readFileSync(descriptor, 'utf8'), file) }
  } finally {
    closeSync(descriptor)
  }
}

export function parseRegistry(text: string, file: string): Registrations {
  const devices: Registrations = new Map()
  const lines = text.split('\n')
  const damaged = (at: number, why: string): StartError =>
    new StartError(`The file of devices ${file} can't be used: line ${at + 1} ${why}`)
  if (lines[0] !== firstLine) throw damaged(0, `is not ${firstLine}`)
  // Every line ends with a line feed: without the last one the file was cut.
  if (lines.at(-1) !== '') throw damaged(lines.length - 1, 'is not whole')
  for (let at = 1; at < lines.length - 1; at++) {
    const device = deviceOf(lines[at]!)
    if (typeof device === 'string') throw damaged(at, device)
    if (devices.has(device.device)) throw damaged(at, `names ${device.device} a second time`)
    devices.set(device.device, device)
    if (devices.size > registryLimits.devicesMax)
      throw damaged(at, `is one device more than ${registryLimits.devicesMax}`)
  }
  return devices
}

export function encodeRegistry(devices: Registrations): string {
  const lines = [firstLine]
  for (const device of devices.values()) lines.push(JSON.stringify(device))
  return `${lines.join('\n')}\n`
}

/**
 * Reads the file, has it changed, and puts the new one in its place: durable when it resolves. `edit` may throw, then nothing is changed. Throws a
 * LimitError for what is beyond a limit, a StartError when the file can't be used or another process keeps it for too long.
 */
export async function changeRegistry<Answer>(
  file: string,
  edit: (devices: Registrations) => Answer,
  signal?: AbortSignal,
): Promise<Answer> {
  const whenTaken = (pid: number): string => `Process ${pid} is changing the file of devices ${file}: try again`
  const lock = await acquireLock(`${file}.lock`, { whenTaken, waitMs: lockWaitMs, ...(signal && { signal }) })
  try {
    const { devices } = readRegistry(file)
    const answer = edit(devices)
    for (const device of devices.values()) checkBounds(device)
    if (devices.size > registryLimits.devicesMax)
      throw new LimitError('devices', `There may be ${registryLimits.devicesMax} devices: delete some first.`)
    const text = encodeRegistry(devices)
    // Nobody could read it, nor change it again.
    if (Buffer.byteLength(text) > registryLimits.fileBytesMax)
      throw new LimitError(
        'registry',
        `The file of devices would be larger than ${registryLimits.fileBytesMax} bytes: delete some, or shorten labels.`,
      )
    replaceFile(file, text)
    return answer
  } finally {
    lock.release()
  }
}

function checkBounds(device: RegisteredDevice): void {
  const why = problemOf(device)
  if (why !== undefined) throw new LimitError('device', `Device ${device.device.slice(0, 128)} ${why}.`)
}

function replaceFile(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.${randomBytes(4).toString('hex')}`
  const descriptor = openSync(temporary, 'wx', 0o600)
  try {
    // Whatever the umask says.
    fchmodSync(descriptor, 0o600)
    writeFileSync(descriptor, text)
    fsyncSync(descriptor)
    closeSync(descriptor)
    leaveToOwner(file, temporary)
    renameSync(temporary, file)
  } catch (error) {
    rmSync(temporary, { force: true })
    throw error
  }
  const directory = openSync(dirname(file), 'r')
  fsyncSync(directory)
  closeSync(directory)
}

/** Changed by root for a Weir that runs as somebody else: it must go on reading it. */
function leaveToOwner(file: string, temporary: string): void {
  if (process.getuid?.() !== 0) return
  const before = statSync(file, { throwIfNoEntry: false }) ?? statSync(dirname(file))
  for (const path of [temporary, `${file}.lock`]) chownSync(path, before.uid, before.gid)
}

/** The device of a line, or why there is none. */
function deviceOf(line: string): RegisteredDevice | string {
  let parsed: unknown
  try {
    parsed = JSON.parse(line)
  } catch {
    return 'is not JSON'
  }
  if (typeof parsed !== 'object' || parsed === null) return 'is not an object'
  const { tenant, device, labels, speaksFor, addedAt, tokens } = parsed as Partial<RegisteredDevice>
  const found = { tenant, device, labels, speaksFor, addedAt, tokens } as RegisteredDevice
  return problemOf(found) ?? found
}

/** What is wrong with a device, as the end of a sentence. Types are asked too: a line comes from outside. */
function problemOf({ tenant, device, labels, speaksFor, addedAt, tokens }: RegisteredDevice): string | undefined {
  const { tokensPerDeviceMax, labelsPerDeviceMax, patternsPerDeviceMax, labelLengthMax } = registryLimits
  if (!isName(device)) return 'has no usable name'
  if (!isName(tenant)) return 'has no usable tenant'
  if (typeof addedAt !== 'number') return 'does not say when it was added'
  if (typeof labels !== 'object' || labels === null) return 'has no labels'
  const names = Object.keys(labels)
  if (names.length > labelsPerDeviceMax) return `has more than ${labelsPerDeviceMax} labels`
  for (const name of names) {
    if (!labelNamePattern.test(name)) return 'has a label whose name is not 1 to 64 characters of A-Z a-z 0-9 . _ -'
    const label: unknown = labels[name]
    if (typeof label !== 'string' || label.length > labelLengthMax)
      return `has the label ${name} that is not a text of up to ${labelLengthMax} characters`
  }
  if (!Array.isArray(speaksFor) || !speaksFor.every(isName)) return 'has no usable list of devices that it speaks for'
  if (speaksFor.length > patternsPerDeviceMax) return `speaks for more than ${patternsPerDeviceMax} patterns`
  if (!Array.isArray(tokens) || !tokens.every(isToken)) return 'has no usable tokens'
  if (tokens.length > tokensPerDeviceMax) return `has more than ${tokensPerDeviceMax} tokens: revoke one first`
  return undefined
}

function isName(name: unknown): boolean {
  return typeof name === 'string' && namePattern.test(name)
}

function isToken(token: unknown): boolean {
  const { id, hash, createdAt } = (token ?? {}) as Partial<RegisteredToken>
  return isTokenId(id) && isTokenHash(hash) && typeof createdAt === 'number'
}
