// The demo: three real series as three devices. Their history goes in first, through the front door like everything, in order, moved so that it ends
// now; then each goes on through its series, a reading a second, round and round. No state is kept: where a series stands is a function of the
// time, and whether its history is there already is asked of the API, so that a restart goes on as if there had been none.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { insideName, insideToken } from '../runtime/access/viewer-access.ts'
import { type Clock, systemClock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/logger.ts'
import type { Health, Service } from '../runtime/service.ts'
import { readSeries } from './simulate/csv-series.ts'
import { pause } from './simulate/pace.ts'
import { Publisher } from './simulate/publisher.ts'

export interface DemoSeries {
  readonly file: string
  readonly device: string
  readonly metric: string
  /** From one row of the file to the next. */
  readonly stepMs: number
}

const minuteMs = 60_000

export const demoSeries: readonly DemoSeries[] = [
  {
    file: 'ambient_temperature_system_failure.csv',
    device: 'office-hvac',
    metric: 'temperature',
    stepMs: 60 * minuteMs,
  },
  { file: 'ec2_cpu_utilization_5f5533.csv', device: 'server-5f5533', metric: 'cpu', stepMs: 5 * minuteMs },
  { file: 'nyc_taxi.csv', device: 'nyc-taxi', metric: 'passengers', stepMs: 30 * minuteMs },
]

export interface DemoFleetOptions {
  readonly mqttUrl: string
  /** Of the HTTP API; a function where it is learned late. */
  readonly httpUrl: string | (() => string | undefined)
  readonly logger: Logger
  /** Where authentication is required. */
  readonly adminToken?: string
  readonly clock?: Clock
  readonly series?: readonly DemoSeries[]
  /** How long the API is waited for before a series starts without its history. */
  readonly askMsMax?: number
}

const liveEveryMs = 1_000
const historyRowsAtOnce = 1_000
/** Live readings that wait for acknowledgement; beyond it a reading is left out, as a device with little memory would. */
const liveInFlightMax = 60
const askMsDefault = 120_000
const settleMsMax = 800

/** As a service, for a process of its own. */
export function createDemoFleet(options: DemoFleetOptions): Service {
  const stopping = new AbortController()
  let running: Promise<void> = Promise.resolve()
  let health: Health = { state: 'starting', detail: 'the demo fleet has not started yet' }
  const end = async (): Promise<void> => {
    stopping.abort()
    await running
  }
  return {
    name: 'demo-fleet',
    async start() {
      running = runDemoFleet({ ...options, signal: stopping.signal, onHealth: (state) => (health = state) })
    },
    drain: end,
    stop: end,
    health: () => health,
  }
}

/** Resolves when the signal has ended it. */
export async function runDemoFleet(
  options: DemoFleetOptions & { readonly signal: AbortSignal; readonly onHealth?: (health: Health) => void },
): Promise<void> {
  const { signal, onHealth = () => {}, series = demoSeries } = options
  let started = 0
  onHealth({ state: 'ok', detail: 'the history of the demo fleet is being put in' })
  const onLive = (): void => {
    if (++started === series.length) onHealth({ state: 'ok' })
  }
  await Promise.all(series.map((each) => runDevice(each, { ...options, signal, onLive })))
}

interface DeviceWorld extends DemoFleetOptions {
  readonly signal: AbortSignal
  readonly onLive: () => void
}

async function runDevice(series: DemoSeries, world: DeviceWorld): Promise<void> {
  const { signal, logger, clock = systemClock } = world
  const values = await readValues(series)
  const publisher = await openPublisher(series, world)
  try {
    if ((await needsHistory(series, values.length, world)) && !signal.aborted) {
      const rows = await publishHistory(publisher, series, values, millis(clock), signal)
      logger.info({ device: series.device, rows }, 'the history is in')
    }
    world.onLive()
    await publishLive(publisher, series, values, clock, signal)
    await publisher.settle(settleMsMax)
  } finally {
    await publisher.close()
  }
}

async function readValues({ file, device, metric }: DemoSeries): Promise<number[]> {
  const values: number[] = []
  for await (const { value } of readSeries(join(demoDirectory(), file), { device, metric })) values.push(Number(value))
  return values
}

/** Beside the sources, and one further up from what is built. */
function demoDirectory(): string {
  const near = join(import.meta.dirname, '../demo')
  return existsSync(join(near, 'nyc_taxi.csv')) ? near : join(import.meta.dirname, '../../demo')
}

async function openPublisher(
  { device }: DemoSeries,
  { mqttUrl, signal, logger, adminToken }: DeviceWorld,
): Promise<Publisher> {
  const credentials = adminToken && { username: insideName, password: insideToken(adminToken) }
  for (;;) {
    try {
      return await Publisher.open({ url: mqttUrl, clientId: `demo-${device}`, signal, logger, ...credentials })
    } catch (error) {
      logger.warn({ device, error: (error as Error).message }, 'the demo device can not connect; trying again')
    }
  }
}

/**
 * Whether the device was never heard of, or its history was broken off: then its newest reading is of the history, whose instants are whole steps,
 * as those of live readings hardly ever are. (Put in twice it is there once.)
 */
async function needsHistory(series: DemoSeries, rows: number, world: DeviceWorld): Promise<boolean> {
  const { device, stepMs } = series
  const { signal, logger, clock = systemClock, askMsMax = askMsDefault } = world
  const startedAt = performance.now()
  for (let waitMs = 250; performance.now() - startedAt < askMsMax; waitMs = Math.min(waitMs * 2, 2_000)) {
    const httpUrl = typeof world.httpUrl === 'string' ? world.httpUrl : world.httpUrl()
    const found = httpUrl === undefined ? undefined : await askEnds(httpUrl, series, world)
    if (found === 'unknown') return true
    if (found !== undefined) {
      return found.newest % stepMs === 0 || found.oldest > millis(clock) - (rows * stepMs) / 2
    }
    if (!(await pause(waitMs, signal))) return false
  }
  logger.warn({ device }, 'the API does not answer: the demo device starts without its history')
  return false
}

/** When the oldest and the newest reading were observed (ms), `unknown` when there is none, undefined when there is no answer yet. */
async function askEnds(
  httpUrl: string,
  { device, metric }: DemoSeries,
  { signal, adminToken }: DeviceWorld,
): Promise<{ readonly oldest: number; readonly newest: number } | 'unknown' | undefined> {
  const base = httpUrl.replace(/\/$/, '')
  const headers: Record<string, string> = adminToken === undefined ? {} : { authorization: `Bearer ${adminToken}` }
  const options = { headers, signal: AbortSignal.any([signal, AbortSignal.timeout(5_000)]) }
  try {
    const known = await fetch(`${base}/v1/devices/${encodeURIComponent(device)}`, options)
    await known.arrayBuffer()
    if (known.status === 404) return 'unknown'
    if (!known.ok) return undefined
    const ends: number[] = []
    for (const order of ['asc', 'desc']) {
      const query = new URLSearchParams({ device, metric, from: '1970-01-01T00:00:00Z', limit: '1', order })
      const answer = await fetch(`${base}/v1/readings?${query}`, options)
      if (!answer.ok) return undefined
      const { items } = (await answer.json()) as { items: readonly { observedAt: number }[] }
      if (!items[0]) return 'unknown'
      ends.push(items[0].observedAt)
    }
    return { oldest: ends[0]!, newest: ends[1]! }
  } catch {
    return undefined
  }
}

/** In columns, oldest first, as a device would have sent it: what looks for anomalies sees the series as it was. */
async function publishHistory(
  publisher: Publisher,
  { device, metric, stepMs }: DemoSeries,
  values: readonly number[],
  now: number,
  signal: AbortSignal,
): Promise<number> {
  const latestAt = Math.floor(now / stepMs) * stepMs
  let rows = 0
  while (rows < values.length) {
    const count = Math.min(historyRowsAtOnce, values.length - rows)
    const places = Array.from({ length: count }, (_, i) => rows + i)
    const payload = JSON.stringify({
      ts: places.map((place) => latestAt - (values.length - 1 - place) * stepMs),
      values: { [metric]: values.slice(rows, rows + count) },
    })
    if (!(await publisher.publish(`devices/${device}/telemetry`, payload))) break
    rows += count
  }
  while (publisher.inFlight > 0 && !signal.aborted) await publisher.settle(settleMsMax)
  return rows
}

async function publishLive(
  publisher: Publisher,
  { device, metric }: DemoSeries,
  values: readonly number[],
  clock: Clock,
  signal: AbortSignal,
): Promise<void> {
  for (;;) {
    const now = millis(clock)
    const payload = JSON.stringify({ ts: now, [metric]: values[placeAt(now, values.length)] })
    if (publisher.inFlight < liveInFlightMax) await publisher.publish(`devices/${device}/telemetry`, payload)
    if (!(await pause(liveEveryMs - (now % liveEveryMs), signal))) return
  }
}

/** Where in its ring a series stands: a row a second. */
function placeAt(now: number, rows: number): number {
  return Math.floor(now / liveEveryMs) % rows
}

function millis(clock: Clock): number {
  return Math.floor(clock.nowMicros() / 1000)
}
