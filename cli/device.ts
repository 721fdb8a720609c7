// `weir device`: which devices there are, and the tokens that they show. Changes the file of devices, which a running Weir watches: what is made
// works at once, and what is revoked is gone within seconds; while Weir is stopped it is there for the next start.
import { existsSync } from 'node:fs'
import { dirname } from 'node:path'
import { defineCommand } from 'citty'
import { isDevicePattern } from '../domain/authority.ts'
import { defaultTenant, isDeviceName } from '../domain/reading.ts'
import { addToken, ensureDevice, removeTokens } from '../runtime/access/device-registry.ts'
import {
  changeRegistry,
  type RegisteredDevice,
  type Registrations,
  readRegistry,
} from '../runtime/access/registry-file.ts'
import { devicesFile } from '../runtime/config.ts'
import { LimitError, StartError } from '../runtime/errors.ts'
import { makeDataDirectory } from '../runtime/make-data-directory.ts'
import { readConfig } from '../runtime/read-config.ts'
import { type CommandWorld, StoppedError, UsageError } from './command.ts'

const actions = ['add', 'list', 'show', 'token', 'revoke'] as const
type Action = (typeof actions)[number]

export const device = defineCommand({
  meta: { name: 'device', description: 'Devices and their tokens: add, list, show, token (one more), revoke' },
  args: {
    action: { type: 'positional', description: actions.join(', '), required: true },
    name: { type: 'positional', description: 'Of the device; not for list', required: false },
    'speaks-for': {
      type: 'string',
      description: 'With add: other devices that it sends for, by name or prefix*, several with commas (a gateway)',
      valueHint: 'names',
    },
    id: { type: 'string', description: 'With revoke: this token alone', valueHint: 'token id' },
    data: {
      type: 'string',
      description: 'Directory that holds everything Weir keeps (./data)',
      valueHint: 'directory',
    },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    json: { type: 'boolean', description: 'JSON on stdout, for programs' },
  },
  async run({ args, data }) {
    const world = data as CommandWorld
    const { action, name, id, json = false } = args
    if (!isAction(action)) throw new UsageError(`weir device ${action}: the actions are ${actions.join(', ')}`)
    const patterns = patternsOf(args['speaks-for'])
    if (patterns !== undefined && action !== 'add') throw new UsageError('weir device: --speaks-for goes with add')
    if (id !== undefined && action !== 'revoke') throw new UsageError('weir device: --id goes with revoke')
    const config = readConfig({
      environment: world.environment,
      file: args.config,
      flags: { data: args.data },
      purpose: 'command',
    })
    const file = devicesFile(config)
    const say: Say = (answer, words) => {
      for (const line of json ? [JSON.stringify(answer)] : words) world.print(line)
      return 0
    }
    if (action === 'list') {
      if (name !== undefined) throw new UsageError('weir device list takes no name')
      return list(file, say)
    }
    if (name === undefined || !isDeviceName(name))
      throw new UsageError(
        `weir device ${action} needs a NAME: 1 to 128 characters of A-Z a-z 0-9 . _ : @ -, not . or ..`,
      )
    if (action === 'show') return show(file, name, say)
    if (dirname(file) === config.data) makeDataDirectory(config.data)
    else if (!existsSync(dirname(file))) throw new StartError(`There is no directory ${dirname(file)} for WEIR_DEVICES`)
    const change: Change = (edit) => changeFile(file, edit, world.stop)
    if (action === 'revoke') return revoke(change, name, id, say)
    return add(change, name, action, patterns ?? [], say)
  },
})

/** `answer` for programs, `words` for people. */
type Say = (answer: unknown, words: readonly string[]) => number
/** Of the file of devices, durably. */
type Change = <Answer>(edit: (devices: Registrations) => Answer) => Promise<Answer>

async function add(
  change: Change,
  name: string,
  action: 'add' | 'token',
  speaksFor: readonly string[],
  say: Say,
): Promise<number> {
  const { token, id } = await change((devices) => {
    const known = devices.get(name)
    if (action === 'token') return addToken(devices, known ?? notThere(name), Date.now())
    if (known) throw new StartError(`There is a device ${name} already: weir device token ${name} makes another token`)
    const added = { ...ensureDevice(devices, name, defaultTenant, Date.now()), speaksFor }
    return addToken(devices, added, Date.now())
  })
  return say({ device: name, token, id }, [
    token,
    `This is the token ${id} of ${name}. It is shown this once: Weir keeps only its hash.`,
    `  MQTT:  user name ${name}, password the token`,
    '  HTTP:  Authorization: Bearer and the token',
  ])
}

function list(file: string, say: Say): number {
  const { devices } = readRegistry(file)
  const items = [...devices.keys()].sort().map((name) => told(devices.get(name)!))
  const lines = items.map(({ device: name, tokens, speaksFor }) => {
    const forWhom = speaksFor.length > 0 ? `, speaks for ${speaksFor.join(', ')}` : ''
    return `${name}  ${tokens.length === 1 ? '1 token' : `${tokens.length} tokens`}${forWhom}`
  })
  return say({ items }, lines.length > 0 ? lines : ['no devices are registered'])
}

function show(file: string, name: string, say: Say): number {
  const found = told(readRegistry(file).devices.get(name) ?? notThere(name))
  return say(found, [
    `device: ${name}`,
    `added: ${new Date(found.addedAt).toISOString()}`,
    ...(found.speaksFor.length > 0 ? [`speaks for: ${found.speaksFor.join(', ')}`] : []),
    ...Object.entries(found.labels).map(([label, value]) => `label ${label}: ${value}`),
    ...found.tokens.map(({ id, createdAt }) => `token ${id}, made ${new Date(createdAt).toISOString()}`),
    ...(found.tokens.length === 0 ? ['no tokens'] : []),
  ])
}

async function revoke(change: Change, name: string, id: string | undefined, say: Say): Promise<number> {
  const revoked = await change((devices) => {
    const count = removeTokens(
      devices,
      devices.get(name) ?? notThere(name),
      (token) => id === undefined || token.id === id,
    )
    if (count === 0 && id !== undefined) throw new StartError(`${name} has no token with the id ${id}`)
    return count
  })
  const what = revoked === 1 ? '1 token is' : `${revoked} tokens are`
  return say({ device: name, revoked }, [`${what} good for nothing any more; connections end within five seconds`])
}

async function changeFile<Answer>(
  file: string,
  edit: (devices: Registrations) => Answer,
  stop: AbortSignal,
): Promise<Answer> {
  try {
    return await changeRegistry(file, edit, stop)
  } catch (error) {
    if (stop.aborted) throw new StoppedError('stopped before it finished: another process was changing the devices')
    if (error instanceof LimitError) throw new StartError(error.message)
    const { syscall, message } = error as NodeJS.ErrnoException
    // A volume that is mounted to be read, a disk that is full.
    if (syscall !== undefined)
      throw new StartError(`The file of devices ${file} can't be changed from here: ${message}`)
    throw error
  }
}

/** Without hashes: nobody needs them. */
function told({ device: name, labels, speaksFor, addedAt, tokens }: RegisteredDevice) {
  return { device: name, labels, speaksFor, addedAt, tokens: tokens.map(({ id, createdAt }) => ({ id, createdAt })) }
}

function patternsOf(given: string | undefined): string[] | undefined {
  if (given === undefined) return undefined
  const patterns = given
    .split(',')
    .map((each) => each.trim())
    .filter(Boolean)
  const wrong = patterns.find((pattern) => !isDevicePattern(pattern))
  if (wrong !== undefined || patterns.length === 0)
    throw new UsageError(`--speaks-for ${given}: names of devices, or their beginnings and *, with commas between them`)
  return patterns
}

function isAction(word: string): word is Action {
  return (actions as readonly string[]).includes(word)
}

function notThere(name: string): never {
  throw new StartError(`There is no registered device ${name}: weir device list names them, weir device add makes one`)
}
