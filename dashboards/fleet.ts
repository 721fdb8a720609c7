// One page of the fleet with what its table shows: latest values and a sparkline each. Few questions whatever the number of rows.
import type { DeviceAnswer, ReadingAnswer } from '../api/wire.ts'
import type { NotAnswered, Questions } from './ask.ts'
import { sparkFrom } from './format.ts'

const fleetRowsMax = 100
export const anomalyDays = 7
const countsMax = 1_000
const latestMax = 1_000
const latestPagesMax = 5
/** Tried in this order, each for the rows that none before it filled: a week for what reports rarely, five minutes for what is new. */
const windows = [
  { ms: 3_600_000, resolution: '1m', pointsMin: 20 },
  { ms: 7 * 86_400_000, resolution: '2h', pointsMin: 12 },
  { ms: 300_000, resolution: '5s', pointsMin: 0 },
] as const

export interface FleetRow {
  readonly device: DeviceAnswer
  readonly latest: readonly ReadingAnswer[]
  /** The metric that the sparkline draws: the first one with numbers. */
  readonly metric: string | undefined
  readonly spark: Spark | undefined
  /** Of the last days. */
  readonly anomalies: number
}
export interface Spark {
  readonly times: readonly number[]
  readonly values: readonly number[]
  readonly from: number
  readonly to: number
  /** What it may grow to: at least what is drawn. */
  readonly windowMs: number
}
export interface Fleet {
  readonly rows: readonly FleetRow[]
  readonly next: string | null
  /** The store did not answer: rows are there, sparklines are not. */
  readonly away: NotAnswered | undefined
}

export interface FleetQuery {
  readonly search: string
  readonly after: string
}

export async function loadFleet(questions: Questions, query: FleetQuery, now: number): Promise<Fleet | NotAnswered> {
  const devices = await questions.devices({
    search: query.search || undefined,
    after: query.after || undefined,
    limit: fleetRowsMax,
  })
  if (!devices.ok) return devices
  const { items, next } = devices.value
  if (items.length === 0) return { rows: [], next: null, away: undefined }
  const names = items.map(({ device }) => device)
  const whole = next === null && query.after === '' && query.search === ''
  const byDevice = await loadLatest(questions, whole ? undefined : names)
  const metrics = new Map<string, string>()
  for (const [device, readings] of byDevice) {
    const first = readings.find(({ value }) => value !== undefined)
    if (first) metrics.set(device, first.metric)
  }
  const [{ sparks, away }, anomalies] = await Promise.all([
    loadSparks(questions, metrics, now),
    countAnomalies(questions, whole ? undefined : names, now),
  ])
  const rows = items.map((device) => ({
    device,
    latest: byDevice.get(device.device) ?? [],
    metric: metrics.get(device.device),
    spark: sparks.get(device.device),
    anomalies: anomalies.get(device.device) ?? 0,
  }))
  return { rows, next, away }
}

/** A device with very many metrics may leave later ones without values here: its own page has them all. */
async function loadLatest(
  questions: Questions,
  device: readonly string[] | undefined,
): Promise<Map<string, ReadingAnswer[]>> {
  const byDevice = new Map<string, ReadingAnswer[]>()
  let after: string | undefined
  for (let page = 0; page < latestPagesMax; page++) {
    const latest = await questions.latest({ device, after, limit: latestMax })
    if (!latest.ok) break
    for (const reading of latest.value.items) {
      const list = byDevice.get(reading.device)
      if (list) list.push(reading)
      else byDevice.set(reading.device, [reading])
    }
    if (latest.value.next === null) break
    after = latest.value.next
  }
  return byDevice
}

/** A badge is missing rather than late. */
async function countAnomalies(
  questions: Questions,
  device: readonly string[] | undefined,
  now: number,
): Promise<Map<string, number>> {
  const counts = new Map<string, number>()
  const from = now - anomalyDays * 86_400_000
  const answer = await questions.anomalyCounts({ device, from, limit: countsMax })
  if (answer.ok) for (const { device, count } of answer.value.items) counts.set(device, count)
  return counts
}

/** At most one question a window for the whole page; a row keeps the window that gave it the most points. */
async function loadSparks(
  questions: Questions,
  metrics: ReadonlyMap<string, string>,
  now: number,
): Promise<{ sparks: Map<string, Spark>; away: NotAnswered | undefined }> {
  const sparks = new Map<string, Spark>()
  let wanted = [...metrics]
  for (const { ms, resolution, pointsMin } of windows) {
    if (wanted.length === 0) break
    const from = now - ms
    const answer = await questions.series({
      device: wanted.map(([device]) => device),
      metric: [...new Set(wanted.map(([, metric]) => metric))],
      from,
      to: now,
      resolution,
    })
    // Anything but an absence only costs the drawings.
    if (!answer.ok) return { sparks, away: answer.status === 503 ? answer : undefined }
    const filled = new Set<string>()
    for (const series of answer.value.series) {
      if (metrics.get(series.device) !== series.metric) continue
      const values = 'value' in series ? series.value : series.mean
      if (values.length >= pointsMin) filled.add(series.device)
      if (values.length <= (sparks.get(series.device)?.times.length ?? 0)) continue
      const times = series.observedAt
      sparks.set(series.device, { times, values, from: sparkFrom(times, from, now), to: now, windowMs: ms })
    }
    wanted = wanted.filter(([device]) => !filled.has(device))
  }
  return { sparks, away: undefined }
}
