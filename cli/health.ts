// `weir health`: asks a running `weir start` whether it is ready, and says what is not. What a container's health check runs.
import { defineCommand } from 'citty'
import { readConfig } from '../runtime/read-config.ts'
import type { Readiness } from '../runtime/readiness.ts'
import { type CommandWorld, ownAddress, UsageError, untilStopped } from './command.ts'

const answerMsMax = 5_000
const stoppedWords = 'stopped before it was answered: nothing is said about whether it is ready'

export const health = defineCommand({
  meta: { name: 'health', description: 'Ask whether a running Weir is ready: 0 when it is, 1 and what is not' },
  args: {
    url: {
      type: 'string',
      description: 'Whom to ask; else WEIR_HEALTH_PORT of this machine, and where that is unset WEIR_HTTP_PORT',
      valueHint: 'url',
    },
    config: { type: 'string', description: 'JSON file of options, named in camel case', valueHint: 'file' },
    json: { type: 'boolean', description: 'One JSON object on stdout, for programs' },
  },
  async run({ args, data }) {
    const world: CommandWorld = data
    const url = args.url ?? ownUrl(world, args.config)
    if (!URL.canParse(url)) throw new UsageError(`--url is "${url}", which is no URL: give http://host:port`)
    const readiness = await untilStopped(world.stop, askReadiness(url), stoppedWords)
    world.print(args.json ? JSON.stringify(readiness) : describe(readiness))
    return readiness.status === 'ready' ? 0 : 1
  },
})

function ownUrl(world: CommandWorld, file: string | undefined): string {
  const { host, healthPort, httpPort } = readConfig({ environment: world.environment, file, purpose: 'command' })
  const port = healthPort || httpPort
  if (!port) throw new UsageError('There is no port to ask: set WEIR_HEALTH_PORT or WEIR_HTTP_PORT, or give --url')
  return ownAddress(host, port)
}

interface Answered {
  readonly status: Readiness['status'] | 'no-answer'
  readonly detail?: string
  readonly parts: Readiness['parts']
}

async function askReadiness(url: string): Promise<Answered> {
  try {
    const answer = await fetch(new URL('/readyz', url), { signal: AbortSignal.timeout(answerMsMax) })
    const said: unknown = await answer.json()
    if (isReadiness(said)) return said
    return { status: 'no-answer', detail: `What answers at ${url} is no Weir (${answer.status})`, parts: {} }
  } catch (error) {
    const { message, cause } = error as Error
    const why = cause instanceof Error && cause.message !== '' ? cause.message : message
    return { status: 'no-answer', detail: `${url} does not answer: ${why}`, parts: {} }
  }
}

function isReadiness(said: unknown): said is Readiness {
  const { status, parts } = (said ?? {}) as Partial<Record<keyof Readiness, unknown>>
  const isKnown = status === 'ready' || status === 'not-ready'
  return isKnown && typeof parts === 'object' && parts !== null && Object.values(parts).every(isPart)
}

function isPart(part: unknown): boolean {
  return typeof (part as { state?: unknown } | null)?.state === 'string'
}

function describe({ status, detail, parts }: Answered): string {
  const lines = Object.entries(parts).map(
    ([part, { state, detail: why }]) => `  ${part}: ${state}${why === undefined ? '' : `: ${why}`}`,
  )
  return [detail ?? status, ...lines].join('\n')
}
