// The devices that are registered, in memory, as the file says: looked at twice a second, and whenever a token is not known, so that one that was
// made just now works at once and one that was revoked does not for long. Which process changed the file does not matter.
import { statSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { StartError } from '../errors.ts'
import type { Logger } from '../logger.ts'
import type { Health } from '../service.ts'
import { createDeviceToken, isSameSecret, sha256Of, tokenIdOf } from './device-token.ts'
import {
  changeRegistry,
  type FileMark,
  markOf,
  type RegisteredDevice,
  type RegisteredToken,
  type Registrations,
  readRegistry,
} from './registry-file.ts'

/** Whom a token stands for. */
export interface TokenHolder {
  readonly tokenId: string
  readonly tenant: string
  readonly device: string
  readonly speaksFor: readonly string[]
}

interface Known extends TokenHolder {
  readonly hash: Buffer
}

export interface DeviceRegistryOptions {
  readonly file: string
  readonly logger: Logger
  readonly lookEveryMs?: number
}

/** Well within the five seconds after which what was revoked must be gone. */
const lookEveryMsDefault = 500
/** A file system that does not answer for so long is not asked by anybody who can't wait. */
const hangsAfterMs = 1_000
/** Of a file whose content is not known: no file has it. */
const unread: FileMark = 'unread'
/** Compared with where no token is known by its id, so that both take the same time. */
const nobody = sha256Of('nobody')

export class DeviceRegistry {
  readonly file: string
  private readonly logger: Logger
  private readonly lookEveryMs: number
  private readonly listeners: (() => void)[] = []
  private mark: FileMark
  private devices: Registrations
  private readonly tokens = new Map<string, Known>()
  private problem: string | undefined
  private timer: NodeJS.Timeout | undefined
  /** When the look began that is under way; -1: none is. */
  private lookingSince = -1
  private changes: Promise<unknown> = Promise.resolve()

  /** Throws a StartError when there is a file that can't be used. */
  constructor({ file, logger, lookEveryMs = lookEveryMsDefault }: DeviceRegistryOptions) {
    this.file = file
    this.logger = logger
    this.lookEveryMs = lookEveryMs
    const { mark, devices } = readRegistry(file)
    this.mark = mark
    this.devices = devices
    this.index()
  }

  /** From now on the file is looked at by itself. */
  watch(): void {
    this.timer ??= setInterval(() => void this.look(), this.lookEveryMs).unref()
  }

  close(): void {
    clearInterval(this.timer)
    this.timer = undefined
  }

  /** Called after every change of what is known. */
  onChange(listener: () => void): void {
    this.listeners.push(listener)
  }

  get deviceCount(): number {
    return this.devices.size
  }

  device(name: string): RegisteredDevice | undefined {
    return this.devices.get(name)
  }

  /** As `device`; where it is not known the file is looked at, so that one that was registered just now is found. */
  deviceNow(name: string): RegisteredDevice | undefined {
    return this.device(name) ?? (this.lookNow() ? this.device(name) : undefined)
  }

  /** Sorted. */
  names(): readonly string[] {
    return [...this.devices.keys()].sort()
  }

  /**
   * Whom this token stands for. What a wrong one costs is bounded (a hash, and a look whether the file is another), and nothing is remembered of it.
   */
  holderOf(token: string): TokenHolder | undefined {
    const id = tokenIdOf(token)
    if (id === undefined) return undefined
    return this.check(id, token) ?? (this.lookNow() ? this.check(id, token) : undefined)
  }

  /** Whether what was found by a token is still so: neither revoked nor changed. */
  stands({ tokenId, device, speaksFor }: TokenHolder): boolean {
    const known = this.tokens.get(tokenId)
    return known?.device === device && known.speaksFor.join() === speaksFor.join()
  }

  health(): Health {
    return this.problem === undefined ? { state: 'ok' } : { state: 'degraded', detail: this.problem }
  }

  /** Changes the file, durably; what `edit` throws changes nothing. */
  change<Answer>(edit: (devices: Registrations) => Answer): Promise<Answer> {
    const change = this.changes.then(async () => {
      const answer = await changeRegistry(this.file, edit)
      this.lookNow()
      return answer
    })
    this.changes = change.catch(() => {})
    return change
  }

  private check(id: string, token: string): TokenHolder | undefined {
    const known = this.tokens.get(id)
    return isSameSecret(token, known?.hash ?? nobody) ? known : undefined
  }

  /** True when there was something new. */
  private lookNow(): boolean {
    if (this.lookingSince >= 0 && performance.now() - this.lookingSince > hangsAfterMs) return false
    try {
      const stats = statSync(this.file, { throwIfNoEntry: false })
      return this.found(stats ? markOf(stats) : '')
    } catch (error) {
      this.fail((error as Error).message)
      return false
    }
  }

  /** Without waiting in the way of others: a disk may hang. */
  private async look(): Promise<void> {
    if (this.lookingSince >= 0) return
    this.lookingSince = performance.now()
    try {
      const stats = await stat(this.file)
      this.lookingSince = -1
      this.found(markOf(stats))
    } catch (error) {
      this.lookingSince = -1
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') this.found('')
      else this.fail((error as Error).message)
    }
  }

  private found(mark: FileMark): boolean {
    if (mark === this.mark) return false
    this.mark = mark
    if (mark === '') {
      // A file is never without a name while it is changed: somebody took it away, or the disk that it is on.
      this.fail(`The file of devices ${this.file} is gone: those that were known stay so until it is back`)
      return false
    }
    try {
      const { mark: read, devices } = readRegistry(this.file)
      this.mark = read
      this.devices = devices
    } catch (error) {
      // One that is wrong is read again when it has changed; one that could not be read (no descriptor was left) at the next look, or what was revoked
      // in it would stay good until somebody changes it once more.
      if (!(error instanceof StartError) || error.cause !== undefined) this.mark = unread
      if (!(error instanceof StartError)) throw error
      this.fail(`${error.message}. Those that were known before stay so`)
      return false
    }
    this.problem = undefined
    this.index()
    for (const listener of this.listeners) listener()
    return true
  }

  private fail(problem: string): void {
    if (this.problem !== problem) this.logger.error({ file: this.file, problem }, 'the file of devices is not usable')
    this.problem = problem
  }

  private index(): void {
    this.tokens.clear()
    for (const { tenant, device, speaksFor, tokens } of this.devices.values()) {
      for (const { id: tokenId, hash } of tokens)
        this.tokens.set(tokenId, { tokenId, tenant, device, speaksFor, hash: Buffer.from(hash, 'base64url') })
    }
  }
}

/** Registers the device where it is not yet, in a change of the registry. */
export function ensureDevice(devices: Registrations, device: string, tenant: string, at: number): RegisteredDevice {
  const known = devices.get(device)
  if (known) return known
  const added = { tenant, device, labels: {}, speaksFor: [], addedAt: at, tokens: [] }
  devices.set(device, added)
  return added
}

/** One more token for a registered device; the token itself is in the answer alone. */
export function addToken(devices: Registrations, known: RegisteredDevice, at: number): { id: string; token: string } {
  const { id, token, hash } = createDeviceToken()
  devices.set(known.device, { ...known, tokens: [...known.tokens, { id, hash, createdAt: at }] })
  return { id, token }
}

/** Takes tokens away; answers how many there were. */
export function removeTokens(
  devices: Registrations,
  known: RegisteredDevice,
  isRemoved: (token: RegisteredToken) => boolean,
): number {
  const tokens = known.tokens.filter((token) => !isRemoved(token))
  devices.set(known.device, { ...known, tokens })
  return known.tokens.length - tokens.length
}
