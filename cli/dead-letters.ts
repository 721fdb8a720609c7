// `weir dead-letters`: what could not be used, over the API of a Weir that runs: list it, look at the bytes, put it back.
import { readFileSync } from 'node:fs'
import { defineCommand } from 'citty'
import type {
  DeadLetterDetailAnswer,
  DeadLettersAnswer,
  Problem,
  PutBackAllAnswer,
  PutBackAnswer,
} from '../api/wire.ts'
import { StartError } from '../runtime/errors.ts'
import { linkSignals } from '../runtime/linked-signal.ts'
import { readConfig } from '../runtime/read-config.ts'
import { type CommandWorld, ownAddress, StoppedError, UsageError } from './command.ts'

const answerMsMax = 120_000
const actions = ['list', 'show', 'replay'] as const

export const deadLetters = defineCommand({
  meta: { name: 'dead-letters', description: 'What could not be used: list, show, or put back' },
  args: {
    action: { type: 'positional', description: actions.join(', '), required: true },
    id: { type: 'positional', description: 'Of one dead letter, for show and replay', required: false },
    reason: { type: 'string', description: 'Only those with this reason; alone with replay: all of them' },
    device: { type: 'string', description: 'Only those of this device; * at its end stands for anything' },
    limit: { type: 'string', description: 'Most to list (100)', valueHint: 'number' },
    payload: {
      type: 'string',
      description: 'The mended payload to put back instead of the kept one',
      valueHint: 'file',
    },
    codec: { type: 'string', description: 'What it is read as, when not as it was sent: json, ndjson' },
    url: { type: 'string', description: 'Address of the API (http://127.0.0.1:8080)', valueHint: 'url' },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    json: { type: 'boolean', description: 'What the API answers, as JSON' },
  },
  async run({ args, data }) {
    const world = data as CommandWorld
    const { environment } = world
    const { host, httpPort, adminToken } = readConfig({ environment, file: args.config, purpose: 'command' })
    const base = (args.url ?? ownAddress(host, httpPort)).replace(/\/$/, '')
    const ask: Ask = (method, path, body) => askApi(world, `${base}${path}`, { method, body, adminToken })
    const { action, id, reason, device, limit, payload, codec, json = false } = args
    if (action === 'list') {
      only(
        id === undefined && payload === undefined && codec === undefined,
        'list takes --reason, --device and --limit',
      )
      return list(world, ask, { reason, device, limit }, json)
    }
    if (action === 'show') {
      only(
        id !== undefined && [reason, device, limit, payload, codec].every((each) => each === undefined),
        'show takes one ID',
      )
      return show(world, ask, id!, json)
    }
    if (action !== 'replay') throw new UsageError(`weir dead-letters ${action}: the actions are ${actions.join(', ')}`)
    only(limit === undefined, 'replay has no --limit')
    if (id === undefined) {
      only(
        reason !== undefined && payload === undefined && codec === undefined,
        'replay takes an ID, or --reason for all that have it',
      )
      return replayAll(world, ask, { reason, device }, json)
    }
    only(reason === undefined && device === undefined, 'replay takes an ID, or --reason for all that have it')
    return replayOne(world, ask, id, { file: payload, codec }, json)
  },
})

type Ask = <Answer>(method: 'GET' | 'POST', path: string, body?: Uint8Array<ArrayBuffer>) => Promise<Answer>

async function list(world: CommandWorld, ask: Ask, filter: Filter, json: boolean): Promise<number> {
  const answer = await ask<DeadLettersAnswer>('GET', `/v1/dead-letters${query(filter)}`)
  if (json) world.print(JSON.stringify(answer))
  else {
    for (const { id, receivedAt, device, reason, detail, metric, putBack } of answer.items) {
      const what = `${reason}${metric && ` (${metric})`}: ${detail}${putBack ? ' (was put back)' : ''}`
      world.print(`${id}  ${new Date(receivedAt).toISOString()}  ${device}  ${what}`)
    }
    if (answer.items.length === 0) world.print('no dead letters')
    if (answer.next !== null) world.print('there are more: narrow it down, or raise --limit')
  }
  return 0
}

async function show(world: CommandWorld, ask: Ask, id: string, json: boolean): Promise<number> {
  const letter = await ask<DeadLetterDetailAnswer>('GET', `/v1/dead-letters/${encodeURIComponent(id)}`)
  if (json) world.print(JSON.stringify(letter))
  else {
    const { payload, receivedAt, putBack, ...rest } = letter
    world.print(`receivedAt: ${new Date(receivedAt).toISOString()}`)
    for (const [name, value] of Object.entries(rest)) if (value !== '') world.print(`${name}: ${value}`)
    world.print(`put back: ${putBack ? `${new Date(putBack.at).toISOString()}, ${countsOf(putBack)}` : 'never'}`)
    const bytes = Buffer.from(payload, 'base64')
    world.print(`payload (${bytes.length} bytes): ${printable(bytes)}`)
  }
  return 0
}

interface Mended {
  readonly file: string | undefined
  readonly codec: string | undefined
}

async function replayOne(world: CommandWorld, ask: Ask, id: string, { file, codec }: Mended, json: boolean) {
  const body = file === undefined ? undefined : readPayload(file)
  const path = `/v1/dead-letters/${encodeURIComponent(id)}/replay${query({ codec })}`
  const answer = await ask<PutBackAnswer>('POST', path, body)
  world.print(json ? JSON.stringify(answer) : countsOf(answer))
  return 0
}

async function replayAll(world: CommandWorld, ask: Ask, filter: Filter, json: boolean): Promise<number> {
  const sum = { replayed: 0, accepted: 0, deadLettered: 0, unusable: 0 }
  let after: string | null | undefined
  do {
    const answer: PutBackAllAnswer = await ask('POST', `/v1/dead-letters/replay${query({ ...filter, after })}`)
    for (const name of Object.keys(sum) as (keyof typeof sum)[]) sum[name] += answer[name]
    after = answer.next
  } while (after !== null && !world.stop.aborted)
  world.print(
    json
      ? JSON.stringify(sum)
      : `put back ${sum.replayed} payloads: accepted ${sum.accepted}, dead-lettered ${sum.deadLettered}; ${sum.unusable} are still of no use`,
  )
  if (after !== null) throw new StoppedError('stopped before it finished: there may be more to put back')
  return sum.unusable > 0 ? 1 : 0
}

interface Filter {
  readonly reason?: string | undefined
  readonly device?: string | undefined
  readonly limit?: string | undefined
  readonly codec?: string | undefined
  readonly after?: string | null | undefined
}

function query(filter: Filter): string {
  const given = Object.entries(filter).filter((each): each is [string, string] => typeof each[1] === 'string')
  return given.length === 0 ? '' : `?${new URLSearchParams(given)}`
}

interface Request {
  readonly method: string
  readonly body: Uint8Array<ArrayBuffer> | undefined
  readonly adminToken: string | undefined
}

async function askApi<Answer>(world: CommandWorld, url: string, { method, body, adminToken }: Request) {
  let answer: Response
  let text: string
  const patience = linkSignals([world.stop], answerMsMax)
  try {
    answer = await fetch(url, {
      method,
      headers: {
        ...(body && { 'content-type': 'application/octet-stream' }),
        ...(adminToken && { authorization: `Bearer ${adminToken}` }),
      },
      ...(body && { body }),
      signal: patience.signal,
    })
    text = await answer.text()
  } catch (error) {
    if (world.stop.aborted)
      throw new StoppedError(`stopped before it finished: ${method} ${new URL(url).pathname} was not answered yet`)
    throw new StartError(
      `${new URL(url).origin} does not answer (${reasonOf(error)}): start Weir, or say where it is with --url`,
    )
  } finally {
    patience.release()
  }
  if (answer.ok) return JSON.parse(text) as Answer
  const isProblem = answer.headers.get('content-type')?.startsWith('application/problem+json') === true
  throw new StartError(isProblem ? problemSentence(JSON.parse(text) as Problem) : `${url} answered ${answer.status}`)
}

function problemSentence({ title, detail }: Problem): string {
  return `${title}: ${detail}`
}

function reasonOf(error: unknown): string {
  return ((error as Error).cause as Error | undefined)?.message ?? (error as Error).message
}

function readPayload(file: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(readFileSync(file))
  } catch (error) {
    throw new StartError(`--payload ${file} can't be read: ${(error as Error).message}`)
  }
}

function countsOf({ accepted, deadLettered }: PutBackAnswer): string {
  return `accepted ${accepted}, dead-lettered ${deadLettered}`
}

/** Text as it is, when it is text without control characters; else in hexadecimal. */
function printable(bytes: Buffer): string {
  const text = bytes.toString('utf8')
  const isText = !text.includes('\ufffd') && !/[\p{Cc}]/u.test(text.replaceAll(/[\n\t]/g, ''))
  return isText ? text : bytes.toString('hex')
}

function only(holds: boolean, rule: string): void {
  if (!holds) throw new UsageError(`weir dead-letters: ${rule}`)
}
