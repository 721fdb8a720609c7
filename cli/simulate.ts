// `weir simulate`: devices that publish through the front door, for trying Weir out without owning one: a fleet of synthetic devices, or a real
// series from a file.
import { defineCommand } from 'citty'
import { isDeviceName, isMetricName } from '../domain/reading.ts'
import { systemClock } from '../runtime/clock.ts'
import { createLogger } from '../runtime/logger.ts'
import { type CommandWorld, UsageError } from './command.ts'
import { runFleet } from './simulate/fleet.ts'
import { createOutage } from './simulate/outage.ts'
import { Publisher } from './simulate/publisher.ts'
import { replay } from './simulate/replay.ts'

/** How long the last acknowledgements are waited for: when stopped, and when a replay or a time has come to its end. */
const settleMsMax = 5_000
const acknowledgeMsMax = 60_000
const progressEveryMs = 250
const devicesMax = 100_000

interface Plan {
  /** Without credentials: it is said in messages. */
  readonly url: string
  readonly credentials: { readonly username: string; readonly password: string } | undefined
  readonly devices: number
  /** Publishes a second, all devices together. */
  readonly rate: number
  readonly seconds: number
  readonly replay: string | undefined
  readonly speed: number
  readonly device: string
  readonly metric: string
  readonly shiftToNow: boolean
  readonly json: boolean
}

export const simulate = defineCommand({
  meta: { name: 'simulate', description: 'Publish as devices do: synthetic ones, or a real series from a file' },
  args: {
    url: {
      type: 'string',
      description: 'Where to publish (mqtt://127.0.0.1:1883); mqtt://NAME:TOKEN@host:port where a token is asked for',
      valueHint: 'url',
    },
    mqtt: { type: 'string', description: 'The same as --url', valueHint: 'url' },
    devices: { type: 'string', description: 'Synthetic devices (10)', valueHint: 'number' },
    rate: { type: 'string', description: 'Publishes a second, all devices together (one each)', valueHint: 'number' },
    seconds: { type: 'string', description: 'End after this long (runs until it is stopped)', valueHint: 'number' },
    replay: {
      type: 'string',
      description: 'A CSV file instead: timestamp,value or timestamp,device,metric,value; times without a zone are UTC',
      valueHint: 'file',
    },
    speed: { type: 'string', description: 'Times real time, or max: as fast as acknowledged (1)', valueHint: 'number' },
    device: { type: 'string', description: "Device of a file's rows that name none (replay)", valueHint: 'name' },
    metric: { type: 'string', description: "Metric of a file's rows that name none (value)", valueHint: 'name' },
    'shift-to-now': { type: 'boolean', description: 'Move the series so that it ends now' },
    json: { type: 'boolean', description: 'The summary as JSON' },
  },
  async run({ args, data }) {
    return run(readPlan(args), data as CommandWorld)
  },
})

export default simulate

function readPlan(args: Readonly<Record<string, unknown>>): Plan {
  const text = (name: string): string | undefined => args[name] as string | undefined
  const { url, credentials } = addressOf(text('url') ?? text('mqtt') ?? 'mqtt://127.0.0.1:1883')
  const file = text('replay')
  const only = (names: readonly string[], what: string): void => {
    for (const name of names)
      if (args[name] !== undefined && args[name] !== false) throw new UsageError(`--${name} goes with ${what}`)
  }
  if (file === undefined) only(['speed', 'device', 'metric', 'shift-to-now'], '--replay')
  else only(['devices', 'rate', 'seconds'], 'synthetic devices, not with --replay')
  const devices = numberOf('devices', text('devices') ?? '10', devicesMax)
  if (!Number.isInteger(devices)) throw new UsageError('--devices must be a whole number')
  const device = text('device') ?? 'replay'
  const metric = text('metric') ?? 'value'
  if (!isDeviceName(device))
    throw new UsageError(`--device ${device} must be 1 to 128 characters of A-Z a-z 0-9 . _ : @ -, not . or ..`)
  if (!isMetricName(metric))
    throw new UsageError('--metric must be 1 to 128 characters, none of them a control character')
  const speed = text('speed') ?? '1'
  return {
    url,
    credentials,
    devices,
    rate: numberOf('rate', text('rate') ?? String(devices), 1e6),
    seconds: text('seconds') === undefined ? Number.POSITIVE_INFINITY : numberOf('seconds', text('seconds')!, 1e9),
    replay: file,
    speed: speed === 'max' ? Number.POSITIVE_INFINITY : numberOf('speed', speed, 1e12),
    device,
    metric,
    shiftToNow: args['shift-to-now'] === true,
    json: args.json === true,
  }
}

function addressOf(given: string): Pick<Plan, 'url' | 'credentials'> {
  const address = /^((?:mqtts?|tcp|tls|wss?):\/\/)(?:([^/:@]+):([^/:@]+)@)?([^/@][^@]*)$/.exec(given)
  const shown = given.replace(/\/\/.*@/, '//…@')
  if (!address) throw new UsageError(`--url ${shown} is no address such as mqtt://127.0.0.1:1883`)
  const [, protocol, username, password, rest] = address
  if (username === undefined || password === undefined) return { url: given, credentials: undefined }
  return { url: `${protocol}${rest}`, credentials: { username: username.replaceAll('%40', '@'), password } }
}

function numberOf(name: string, text: string, max: number): number {
  const number = Number(text)
  if (text.trim() !== '' && number > 0 && number <= max) return number
  throw new UsageError(`--${name} ${text} must be a number above 0 and at most ${max}`)
}

async function run(plan: Plan, world: CommandWorld): Promise<number> {
  const logger = createLogger('info', 'simulate')
  const startedAt = performance.now()
  const outage = createOutage(logger, plan.url)
  const common = { url: plan.url, logger, signal: world.stop, outage, ...plan.credentials }
  const publishers: Publisher[] = []
  const open = async (clientId: string): Promise<Publisher> => {
    const publisher = await Publisher.open({ ...common, clientId })
    publishers.push(publisher)
    return publisher
  }
  const acknowledged = (): number => publishers.reduce((sum, each) => sum + each.acknowledged, 0)
  const progress = world.terminal && !plan.json ? drawProgress(acknowledged) : undefined
  // Two simulations side by side must not throw each other out.
  const name = `simulate-${process.pid}`
  let published: number
  try {
    if (plan.replay !== undefined) {
      const publisher = await open(name)
      const names = { device: plan.device, metric: plan.metric }
      published = await replay(publisher, { ...plan, file: plan.replay, names, clock: systemClock, signal: world.stop })
    } else {
      published = await runFleet({
        ...plan,
        open: (place) => open(`${name}-${place}`),
        clock: systemClock,
        chance: Math.random,
        signal: world.stop,
      })
    }
    await Promise.all(
      publishers.map((publisher) => publisher.settle(world.stop.aborted ? settleMsMax : acknowledgeMsMax)),
    )
  } finally {
    progress?.end()
    await Promise.all(publishers.map((publisher) => publisher.close()))
  }
  const summary = {
    published,
    acknowledged: acknowledged(),
    reconnects: publishers.reduce((sum, each) => sum + each.reconnects, 0),
    seconds: Math.round((performance.now() - startedAt) / 10) / 100,
  }
  if (plan.json) world.print(JSON.stringify(summary))
  else world.print(inWords(summary))
  // Stopped by a person: what is open is known and said. Otherwise all of it had to be acknowledged.
  return summary.acknowledged === published || world.stop.aborted ? 0 : 1
}

function inWords({
  published,
  acknowledged,
  seconds,
}: {
  published: number
  acknowledged: number
  seconds: number
}): string {
  const count = (number: number): string => number.toLocaleString('en')
  const open = published - acknowledged
  const rate = seconds > 0 ? `, ${count(Math.round(acknowledged / seconds))} a second` : ''
  return `${count(acknowledged)} publishes acknowledged in ${seconds} s${rate}${open > 0 ? `; ${count(open)} were not` : ''}`
}

/** One line on stderr, drawn over itself. */
function drawProgress(acknowledged: () => number): { end(): void } {
  let last = 0
  let lastAt = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    const count = acknowledged()
    const rate = Math.round(((count - last) / (now - lastAt)) * 1000)
    process.stderr.write(`\r\u001b[K${count.toLocaleString('en')} acknowledged, ${rate.toLocaleString('en')} a second`)
    last = count
    lastAt = now
  }, progressEveryMs)
  return {
    end() {
      clearInterval(timer)
      process.stderr.write('\r\u001b[K')
    },
  }
}
