// Series for charts: raw readings where they fit, else buckets of the smallest step that fits. The answer says which, and never leaves anything
// out silently.
import { z } from 'zod'
import { RequestError } from '../../runtime/errors.ts'
import type { ClickHouse } from '../../storage/open-clickhouse.ts'
import { type ApiApp, type ApiContext, goneSignal, tenantOf } from '../context.ts'
import { toMillis } from '../instant.ts'
import {
  deviceParameter,
  everyName,
  fromParameter,
  metricParameter,
  pointsDefault,
  pointsMax,
  readingsLimitMax,
  timeZoneParameter,
  toParameter,
  wholeParameter,
} from '../parameters.ts'
import { askBucketSeries, type BucketRow, stepMs } from '../queries/bucket-series.ts'
import type { SeriesQuestion } from '../queries/question.ts'
import { askRawSeries, type RawRow } from '../queries/raw-series.ts'
import { askSeriesExtents, type SeriesExtent } from '../queries/series-extent.ts'
import { askThinnedSeries } from '../queries/thinned-series.ts'
import {
  type BucketSeries,
  type BucketStep,
  bucketSteps,
  problemSchema,
  type RawSeries,
  type Resolution,
  resolutions,
  type SeriesAnswer,
  type Shape,
  seriesSchema,
  shapes,
} from '../wire.ts'
import { rangeOf } from './range.ts'

const seriesMax = 1_000
const bucketsMax = 100_000

interface Drawing {
  readonly question: SeriesQuestion
  readonly points: number
  readonly timeZone: string
  readonly signal: AbortSignal
}

export function seriesRoutes(app: ApiApp, { clickhouse, clock }: ApiContext): void {
  app.get(
    '/v1/series',
    {
      schema: {
        summary: 'Series for charts, raw or in buckets of time',
        description:
          'Without `resolution`: raw readings when those of each series fit in `points`, else buckets of the smallest step that gives at most ' +
          '`points` of them. `shape` asks for raw readings thinned out to about `points` a series: `minmax` keeps the lowest and highest of ' +
          'each span, `lttb` the largest triangles. Text readings are in /v1/readings only. Without `from` the range begins with the first reading.',
        tags: ['readings'],
        querystring: z.strictObject({
          device: deviceParameter.optional(),
          metric: metricParameter.optional(),
          from: fromParameter.optional(),
          to: toParameter.optional(),
          points: wholeParameter(1, pointsMax)
            .default(pointsDefault)
            .meta({
              description: `About how many points a series may have: 1 to ${pointsMax}, default ${pointsDefault}`,
            }),
          resolution: z.enum(resolutions, `must be one of ${resolutions.join(', ')}`).optional(),
          timeZone: timeZoneParameter.default('UTC'),
          shape: z.enum(shapes, `must be one of ${shapes.join(', ')}`).optional(),
        }),
        response: { 200: seriesSchema, 400: problemSchema, 503: problemSchema },
      },
    },
    async ({ query }, reply) => {
      const { device = everyName, metric = everyName, points, timeZone, resolution, shape } = query
      if (shape && resolution !== undefined && resolution !== 'raw') {
        throw refusal('shape', `thins out raw readings: give it without resolution, not with ${resolution}`)
      }
      const { from, to } = rangeOf(query, clock.nowMicros())
      const signal = goneSignal(reply)
      const question = { tenant: tenantOf(), device, metric, from, to }
      const extents = await extentsOf(clickhouse, question, false, signal)
      const first = extents.reduce((least, { firstMicros }) => Math.min(least, firstMicros), to)
      const drawing = { question: { ...question, from: query.from ? from : first }, points, timeZone, signal }
      return draw(clickhouse, drawing, extents, resolution, shape)
    },
  )
}

async function draw(
  clickhouse: ClickHouse,
  drawing: Drawing,
  extents: readonly SeriesExtent[],
  resolution: Resolution | undefined,
  shape: Shape | undefined,
): Promise<SeriesAnswer> {
  const { question, points, signal } = drawing
  const step = resolution === 'raw' || shape ? 'raw' : (resolution ?? (await chooseStep(clickhouse, drawing, extents)))
  if (step !== 'raw') return drawBuckets(clickhouse, drawing, step)
  if (shape && extents.some(({ readings }) => readings > points)) {
    const rows = await askThinnedSeries(clickhouse, { ...question, shape, points }, signal)
    return { ...frame(drawing), resolution: 'raw', shape, series: rawSeries(rows) }
  }
  const rows = await askRawSeries(clickhouse, { ...question, limit: readingsLimitMax + 1 }, signal)
  if (rows.length > readingsLimitMax) {
    const detail = `There are more than ${readingsLimitMax} raw readings in this range: ask for fewer series, a shorter range, a resolution or a shape, or page through /v1/readings`
    throw new RequestError(400, 'too-many-readings', 'The answer would be too large', detail)
  }
  return { ...frame(drawing), resolution: 'raw', series: rawSeries(rows) }
}

async function drawBuckets(clickhouse: ClickHouse, drawing: Drawing, step: BucketStep): Promise<SeriesAnswer> {
  const { question, timeZone, signal } = drawing
  const rows = await askBucketSeries(clickhouse, { ...question, step, timeZone, limit: bucketsMax + 1 }, signal)
  if (rows.length > bucketsMax) {
    const detail = `There are more than ${bucketsMax} buckets of ${step} in this range: ask for fewer series, a shorter range or a coarser resolution`
    throw new RequestError(400, 'too-many-buckets', 'The answer would be too large', detail)
  }
  return { ...frame(drawing), resolution: step, series: bucketSeries(rows) }
}

/** Raw where it fits, else the smallest step with at most `points` buckets over the range. */
async function chooseStep(
  clickhouse: ClickHouse,
  { question, points, signal }: Drawing,
  extents: readonly SeriesExtent[],
): Promise<Resolution> {
  if (await fitsRaw(clickhouse, question, points, extents, signal)) return 'raw'
  const rangeMs = (question.to - question.from) / 1000
  return bucketSteps.find((step) => rangeMs / stepMs(step) <= points) ?? bucketSteps.at(-1)!
}

async function fitsRaw(
  clickhouse: ClickHouse,
  question: SeriesQuestion,
  points: number,
  extents: readonly SeriesExtent[],
  signal: AbortSignal,
): Promise<boolean> {
  const isFitting = (each: readonly SeriesExtent[]): boolean =>
    each.every(({ readings }) => readings <= points) && sum(each) <= readingsLimitMax
  if (isFitting(extents)) return true
  // The first count has repeats in it that are not merged yet; counting without them costs more, so only where it could matter.
  const isHopeless = extents.some(({ readings }) => readings > points * 8) || sum(extents) > readingsLimitMax * 8
  return !isHopeless && isFitting(await extentsOf(clickhouse, question, true, signal))
}

async function extentsOf(
  clickhouse: ClickHouse,
  question: SeriesQuestion,
  isFolded: boolean,
  signal: AbortSignal,
): Promise<readonly SeriesExtent[]> {
  const extents = await askSeriesExtents(clickhouse, question, { isFolded, limit: seriesMax + 1 }, signal)
  if (extents.length <= seriesMax) return extents
  const detail = `More than ${seriesMax} series match: name the devices and metrics`
  throw new RequestError(400, 'too-many-series', 'The answer would be too large', detail)
}

function sum(extents: readonly SeriesExtent[]): number {
  return extents.reduce((total, { readings }) => total + readings, 0)
}

function frame({ question, timeZone }: Drawing) {
  return { from: toMillis(question.from), to: toMillis(question.to), source: 'raw' as const, timeZone }
}

function rawSeries(rows: readonly RawRow[]): RawSeries[] {
  return bySeries(
    rows,
    ({ device, metric }): RawSeries => ({ device, metric, observedAt: [], value: [] }),
    (series, row) => {
      series.observedAt.push(toMillis(row.observedMicros))
      series.value.push(row.value)
    },
  )
}

function bucketSeries(rows: readonly BucketRow[]): BucketSeries[] {
  return bySeries(
    rows,
    ({ device, metric }): BucketSeries => ({
      device,
      metric,
      observedAt: [],
      count: [],
      mean: [],
      min: [],
      max: [],
      first: [],
      last: [],
    }),
    (series, row) => {
      series.observedAt.push(toMillis(row.startMicros))
      series.count.push(row.readings)
      for (const column of ['mean', 'min', 'max', 'first', 'last'] as const) series[column].push(row[column])
    },
  )
}

/** Rows come by series. */
function bySeries<
  Row extends { readonly device: string; readonly metric: string },
  Series extends RawSeries | BucketSeries,
>(rows: readonly Row[], begin: (row: Row) => Series, add: (series: Series, row: Row) => void): Series[] {
  const all: Series[] = []
  for (const row of rows) {
    let series = all.at(-1)
    if (series?.device !== row.device || series.metric !== row.metric) {
      series = begin(row)
      all.push(series)
    }
    add(series, row)
  }
  return all
}

function refusal(path: string, message: string): RequestError {
  return new RequestError(400, 'invalid-parameter', 'A parameter is not usable', `${path} ${message}`, [
    { path, message },
  ])
}
