// The demo fleet against the real front and log. The API's two answers that it asks for are given from what the log holds.

import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { connectAsync } from 'mqtt'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Clock } from '../runtime/clock.ts'
import { silentLogger } from '../runtime/logger.ts'
import { type KeptReading, type RunningIngest, runIngest, waitForReadings } from '../tests/helpers/running-ingest.ts'
import { waitFor } from '../tests/helpers/wait-for.ts'
import { createDemoFleet, demoSeries } from './demo-fleet.ts'

let ingest: RunningIngest
const closers: (() => Promise<void> | void)[] = []
beforeEach(async () => {
  ingest = await runIngest()
  closers.push(() => ingest.close())
})
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close()
})

function valuesOf(file: string): number[] {
  const rows = readFileSync(join(import.meta.dirname, '../demo', file), 'utf8')
    .trim()
    .split('\n')
    .slice(1)
  return rows.map((row) => Number(row.split(',')[1]))
}

/** Rows of the three files. */
const rowsTotal = 7267 + 4032 + 10320

async function startApi() {
  let answering = true
  let asked = 0
  const server = createServer(async (request, response) => {
    asked++
    const url = new URL(request.url!, 'http://localhost')
    const device = url.searchParams.get('device') ?? url.pathname.split('/').at(-1)
    const kept = (await ingest.readings()).filter((reading) => reading.device === device)
    const isDevice = url.pathname.startsWith('/v1/devices/')
    response.statusCode = !answering ? 503 : isDevice && kept.length === 0 ? 404 : 200
    const isNewest = url.searchParams.get('order') === 'desc'
    const instants = kept.map((reading) => reading.observedAt).sort((a, b) => (isNewest ? b - a : a - b))
    const observedAt = instants[0]! / 1000
    response.end(JSON.stringify(isDevice ? { device } : { items: [{ device, observedAt }], next: null }))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  closers.push(() => {
    server.closeAllConnections()
    return new Promise<void>((resolve) => server.close(() => resolve()))
  })
  const { port } = server.address() as { port: number }
  return { url: `http://127.0.0.1:${port}/`, answer: (is: boolean) => (answering = is), asked: () => asked }
}

/** One that the test can move; it goes on by itself too. */
function movingClock() {
  let offset = 0
  const clock: Clock = { nowMicros: () => (Date.now() + offset) * 1000 }
  return { clock, move: (ms: number) => (offset += ms) }
}

async function startFleet(httpUrl: string, clock: Clock) {
  const { host, port } = ingest.address
  const fleet = createDemoFleet({
    mqttUrl: `mqtt://${host}:${port}`,
    httpUrl: () => httpUrl,
    logger: silentLogger,
    clock,
  })
  await fleet.start()
  closers.push(() => fleet.stop())
  return fleet
}

async function seriesOf(device: string): Promise<KeptReading[]> {
  const readings = (await ingest.readings()).filter((reading) => reading.device === device)
  return readings.sort((a, b) => a.observedAt - b.observedAt)
}

it('puts the history in, so that it ends now, and goes on with the next row of each series', async () => {
  const api = await startApi()
  const { clock } = movingClock()
  const startedAt = clock.nowMicros()
  const fleet = await startFleet(api.url, clock)
  await waitForReadings(ingest, rowsTotal + 6)
  expect(fleet.health()).toEqual({ state: 'ok' })
  for (const { file, device, metric, stepMs } of demoSeries) {
    const readings = await seriesOf(device)
    expect(new Set(readings.map((reading) => reading.metric))).toEqual(new Set([metric]))
    const history = readings.filter(({ observedAt }) => observedAt <= startedAt)
    const live = readings.slice(history.length)
    expect(startedAt - history.at(-1)!.observedAt).toBeLessThan(stepMs * 1000)
    for (let i = 1; i < history.length; i++) {
      expect(history[i]!.observedAt - history[i - 1]!.observedAt).toBe(stepMs * 1000)
    }
    const ring = valuesOf(file)
    const placeAt = (micros: number): number => Math.floor(micros / 1e6) % ring.length
    for (const { observedAt, value } of live) expect(value).toBe(ring[placeAt(observedAt)])
    expect(history.map(({ value }) => value)).toEqual(ring)
  }
  expect(await ingest.deadLetterCount()).toBe(0)
})

it('goes on where it would stand had it never stopped, without putting the history in again', async () => {
  const api = await startApi()
  const { clock, move } = movingClock()
  const first = await startFleet(api.url, clock)
  await waitForReadings(ingest, rowsTotal + 3)
  await first.stop()
  const before = await seriesOf('nyc-taxi')
  move(10 * 3_600_000)
  await startFleet(api.url, clock)
  await waitFor(async () => (await seriesOf('nyc-taxi')).length > before.length + 1)
  const after = await seriesOf('nyc-taxi')
  expect(after.slice(0, before.length)).toEqual(before)
  expect(after.length).toBeLessThan(before.length + 10)
  const ring = valuesOf('nyc_taxi.csv')
  for (const { observedAt, value } of after.slice(ring.length)) {
    expect(value).toBe(ring[Math.floor(observedAt / 1e6) % ring.length])
  }
})

it('puts the history in again when it was broken off', async () => {
  const api = await startApi()
  const { clock } = movingClock()
  const { host, port } = ingest.address
  const client = await connectAsync(`mqtt://${host}:${port}`)
  for (const { device, metric, stepMs } of demoSeries) {
    // Its beginning went in, its end didn't.
    const ts = (Math.floor(Date.now() / stepMs) - 10_000) * stepMs
    const payload = JSON.stringify({ ts, [metric]: 1 })
    await client.publishAsync(`devices/${device}/telemetry`, payload, { qos: 1 })
  }
  await client.endAsync()
  await startFleet(api.url, clock)
  await waitForReadings(ingest, rowsTotal + 6)
  for (const [device, rows] of [
    ['office-hvac', 7_267],
    ['server-5f5533', 4_032],
    ['nyc-taxi', 10_320],
  ] as const) {
    expect((await seriesOf(device)).length).toBeGreaterThan(rows)
  }
})

it('waits for an API that is not there yet, and says so', async () => {
  const api = await startApi()
  api.answer(false)
  const { clock } = movingClock()
  const fleet = await startFleet(api.url, clock)
  await waitFor(() => api.asked() >= 6)
  expect(fleet.health().detail).toContain('history')
  expect(ingest.service.totals().receivedReadings).toBe(0)
  api.answer(true)
  await waitForReadings(ingest, rowsTotal)
})
