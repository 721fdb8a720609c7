// Everything that the API answers, as zod schemas: the OpenAPI document is made from them, the dashboards take their types from them, and the
// tests hold every answer to them. Instants out are epoch milliseconds, with a fraction where the microseconds are not zero.
import { z } from 'zod'

const instant = z.number().meta({ description: 'Epoch milliseconds; a fraction where the microseconds are not zero' })
const deviceName = z.string().meta({ description: 'Name of the device', example: 'boiler-1' })
const metricName = z.string().meta({ description: 'Name of the metric', example: 'temperature' })
const next = z.string().nullable().meta({ description: 'Give it as `after` for the next page; null: there is no more' })

/** One reading: `value` of a number, or `text` of a text reading. */
const readingSchema = z
  .strictObject({
    device: deviceName,
    metric: metricName,
    observedAt: instant,
    receivedAt: instant,
    value: z.number().optional().meta({ description: 'Of a number reading' }),
    text: z.string().optional().meta({ description: 'Of a text reading, instead of `value`' }),
  })
  .meta({ id: 'Reading' })
export type ReadingAnswer = z.infer<typeof readingSchema>

export const readingsSchema = z.strictObject({ items: z.array(readingSchema), next }).meta({ id: 'Readings' })
export type ReadingsAnswer = z.infer<typeof readingsSchema>

/** `GET /v1/latest`: the newest by `observedAt` of each series; by device, then metric. */
export const latestSchema = readingsSchema
export type LatestAnswer = ReadingsAnswer

const deviceFields = {
  device: deviceName,
  firstReceivedAt: instant,
  lastReceivedAt: instant,
  metrics: z.array(metricName),
  online: z.boolean().meta({ description: 'Heard from within three times its usual interval (at least one minute)' }),
}
const deviceSchema = z.strictObject(deviceFields).meta({ id: 'Device' })
export type DeviceAnswer = z.infer<typeof deviceSchema>

export const devicesSchema = z.strictObject({ items: z.array(deviceSchema), next }).meta({ id: 'Devices' })
export type DevicesAnswer = z.infer<typeof devicesSchema>

export const deviceDetailSchema = z
  .strictObject({
    ...deviceFields,
    labels: z.record(z.string(), z.string()).optional().meta({ description: 'Where it is registered and has some' }),
    latest: z.array(readingSchema.omit({ device: true })),
  })
  .meta({ id: 'DeviceDetail' })
export type DeviceDetailAnswer = z.infer<typeof deviceDetailSchema>

/** What is known of a device before it sends anything. */
export const registrationSchema = z
  .strictObject({
    device: deviceName,
    labels: z.record(z.string(), z.string()),
    speaksFor: z.array(z.string()).meta({ description: 'Other devices that it may send for; `*` ends a beginning' }),
    addedAt: instant,
    tokens: z.array(z.strictObject({ id: z.string(), createdAt: instant })),
  })
  .meta({ id: 'Registration' })
export type RegistrationAnswer = z.infer<typeof registrationSchema>
export const registrationsSchema = z
  .strictObject({ items: z.array(registrationSchema), next })
  .meta({ id: 'Registrations' })
export const newTokenSchema = z
  .strictObject({ id: z.string(), token: z.string().meta({ description: 'Shown once; kept nowhere' }) })
  .meta({ id: 'NewToken' })

/** Steps that buckets may have; sub-day ones are counted from the epoch, the others are calendar units of the asked-for zone. */
export const bucketSteps = [
  ...(['1s', '2s', '5s', '10s', '15s', '30s', '1m', '2m', '5m', '10m', '15m', '30m'] as const),
  ...(['1h', '2h', '3h', '6h', '12h', '1d', '1w', '1mo', '1y'] as const),
] as const
export type BucketStep = (typeof bucketSteps)[number]
export const resolutions = ['raw', ...bucketSteps] as const
export type Resolution = (typeof resolutions)[number]

const rawSeriesSchema = z
  .strictObject({
    device: deviceName,
    metric: metricName,
    observedAt: z.array(instant),
    value: z.array(z.number()),
  })
  .meta({ id: 'RawSeries' })
export type RawSeries = z.infer<typeof rawSeriesSchema>

/** Columns of equal length, one element a bucket that holds readings; a bucket's `observedAt` is its start. */
const bucketSeriesSchema = z
  .strictObject({
    device: deviceName,
    metric: metricName,
    observedAt: z.array(instant),
    count: z.array(z.number()),
    mean: z.array(z.number()),
    min: z.array(z.number()),
    max: z.array(z.number()),
    first: z.array(z.number()),
    last: z.array(z.number()),
  })
  .meta({ id: 'BucketSeries' })
export type BucketSeries = z.infer<typeof bucketSeriesSchema>

const seriesFrame = {
  from: instant,
  to: instant,
  source: z.enum(['raw', '1m', '1h', '1d']).meta({ description: 'The tier that the answer was computed from' }),
  timeZone: z.string().meta({ description: 'The zone whose calendar days, weeks, months and years are used' }),
}
export const shapes = ['minmax', 'lttb'] as const
export type Shape = (typeof shapes)[number]
export const seriesSchema = z
  .discriminatedUnion('resolution', [
    z.strictObject({
      ...seriesFrame,
      resolution: z.literal('raw'),
      shape: z.enum(shapes).optional().meta({ description: 'Said when the readings were thinned out in this way' }),
      series: z.array(rawSeriesSchema),
    }),
    z.strictObject({ ...seriesFrame, resolution: z.enum(bucketSteps), series: z.array(bucketSeriesSchema) }),
  ])
  .meta({ id: 'Series' })
export type SeriesAnswer = z.infer<typeof seriesSchema>

/** `GET /v1/anomalies`, and `data:` of the live event `anomaly`. */
export const anomalySchema = z
  .strictObject({
    id: z.string().meta({ description: 'The same finding has the same id, however often it is made' }),
    device: deviceName,
    metric: metricName,
    observedAt: instant,
    value: z.number(),
    score: z.number().meta({ description: 'Above 0, below 1; the higher, the odder' }),
    detector: z.string().meta({ description: 'Name and version' }),
    expected: z
      .strictObject({ low: z.number(), high: z.number() })
      .meta({ description: 'What would have been nothing new' }),
    explanation: z.string().meta({ description: 'For a person' }),
    evidence: z.record(z.string(), z.unknown()).meta({ description: 'For a program: what the explanation rests on' }),
  })
  .meta({ id: 'Anomaly' })
export type AnomalyAnswer = z.infer<typeof anomalySchema>
export const anomaliesSchema = z.strictObject({ items: z.array(anomalySchema), next }).meta({ id: 'Anomalies' })
export type AnomaliesAnswer = z.infer<typeof anomaliesSchema>

/** `GET /v1/anomalies/counts`: by device, so that nobody has to fetch what it only wants to count. */
export const anomalyCountsSchema = z
  .strictObject({
    total: z.number().meta({ description: 'Over all devices asked for, whatever the page' }),
    items: z.array(z.strictObject({ device: deviceName, count: z.number() })),
    next,
  })
  .meta({ id: 'AnomalyCounts' })
export type AnomalyCountsAnswer = z.infer<typeof anomalyCountsSchema>

/** What is not known here is null, never 0: `unknown` says why. */
const stage = z.strictObject({
  total: z.number().nullable().meta({ description: 'Readings since the process started; null: not known here' }),
  perSecond: z.number().nullable(),
  lagMs: z
    .number()
    .nullable()
    .meta({ description: 'Age of the oldest reading that has not come through this stage; 0 if none' }),
})
const why = z.string().nullable().meta({ description: 'Why what it would say is null; null: it is known' })
export const limitKinds = [
  'connection-closed',
  'publish-refused',
  'subscription-refused',
  'message-dropped',
  'reading-stopped',
  'socket-closed',
  'request-refused',
  'viewer-closed',
  'frame-held-back',
] as const
export type LimitKind = (typeof limitKinds)[number]
export const pipelineSchema = z
  .strictObject({
    at: instant,
    stages: z.strictObject({ received: stage, durable: stage, stored: stage, seen: stage, detected: stage }),
    connections: z.number().nullable().meta({ description: 'MQTT and WebSocket connections of devices' }),
    doors: z
      .strictObject({ mqtt: z.number(), gateway: z.number() })
      .nullable()
      .meta({ description: 'The same by door: MQTT (over TCP or WebSocket), and WebSockets of the gateway' }),
    viewers: z.number(),
    deadLettered: z.number().nullable(),
    refused: z.number().nullable(),
    devices: z.strictObject({ total: z.number(), online: z.number() }),
    series: z.number(),
    consumers: z
      .array(
        z.strictObject({
          group: z.string(),
          topic: z.string(),
          waitingChunks: z.number().nullable().meta({ description: 'Durable, and not committed by this group' }),
        }),
      )
      .meta({ description: 'Readers of the log that keep a place in it' }),
    log: z
      .strictObject({ bytes: z.number(), quotaBytes: z.number() })
      .nullable()
      .meta({ description: 'Null: not known here, or not our disk' }),
    limits: z.array(z.strictObject({ kind: z.enum(limitKinds), cause: z.string(), count: z.number() })).meta({
      description:
        'Limits that were hit, by cause, since each process started; those never hit are left out, and those of ingest while `unknown.ingest` says why',
    }),
    unknown: z.strictObject({ ingest: why, writer: why, detector: why }),
  })
  .meta({ id: 'Pipeline' })
export type PipelineAnswer = z.infer<typeof pipelineSchema>

const deadLetterSchema = z
  .strictObject({
    id: z.string(),
    device: z.string(),
    reason: z.string(),
    detail: z.string(),
    metric: z.string(),
    codec: z.string(),
    origin: z.string(),
    receivedAt: instant,
    putBack: z
      .strictObject({ at: instant, accepted: z.number(), deadLettered: z.number() })
      .nullable()
      .meta({ description: 'When it was put back the last time, and what became of it; null: never' }),
  })
  .meta({ id: 'DeadLetter' })
export type DeadLetterAnswer = z.infer<typeof deadLetterSchema>
export const deadLettersSchema = z.strictObject({ items: z.array(deadLetterSchema), next }).meta({ id: 'DeadLetters' })
export type DeadLettersAnswer = z.infer<typeof deadLettersSchema>
/** `GET /v1/dead-letters/reasons`: all that are kept, most first. */
export const deadLetterReasonsSchema = z
  .strictObject({ items: z.array(z.strictObject({ reason: z.string(), count: z.number(), newestAt: instant })) })
  .meta({ id: 'DeadLetterReasons' })
export type DeadLetterReasonsAnswer = z.infer<typeof deadLetterReasonsSchema>
export const deadLetterDetailSchema = z
  .strictObject({ ...deadLetterSchema.shape, payload: z.string().meta({ description: 'The bytes as base64' }) })
  .meta({ id: 'DeadLetterDetail' })
export type DeadLetterDetailAnswer = z.infer<typeof deadLetterDetailSchema>
export const putBackSchema = z.strictObject({ accepted: z.number(), deadLettered: z.number() }).meta({ id: 'PutBack' })
export type PutBackAnswer = z.infer<typeof putBackSchema>
export const putBackAllSchema = z
  .strictObject({
    replayed: z.number().meta({ description: 'Payloads of which something was accepted' }),
    accepted: z.number(),
    deadLettered: z.number(),
    unusable: z.number().meta({ description: 'Payloads of which nothing could be used; they are new dead letters' }),
    next,
  })
  .meta({ id: 'PutBackAll' })
export type PutBackAllAnswer = z.infer<typeof putBackAllSchema>

const healthState = z.enum(['ok', 'starting', 'degraded', 'failed'])
export const aliveSchema = z.strictObject({ status: z.literal('ok') }).meta({ id: 'Alive' })
export const readySchema = z
  .strictObject({
    status: z.enum(['ready', 'not-ready']),
    parts: z.record(
      z.string(),
      z.strictObject({ state: healthState, detail: z.string().optional(), process: z.string() }),
    ),
  })
  .meta({ id: 'Ready' })
export type ReadyAnswer = z.infer<typeof readySchema>

/** `GET /v1/live`: `data:` of each event. `id:` is the cursor; `Last-Event-ID`, or `since`, resumes from it. */
const liveReadingSchema = readingSchema.omit({ receivedAt: true }).meta({ id: 'LiveReading' })
export type LiveReading = z.infer<typeof liveReadingSchema>
export const liveReadingsSchema = z.strictObject({ cursor: z.string(), items: z.array(liveReadingSchema) })
export type LiveReadings = z.infer<typeof liveReadingsSchema>
export const liveCaughtUpSchema = z.strictObject({ cursor: z.string() })
export type LiveCaughtUp = z.infer<typeof liveCaughtUpSchema>
/** Late readings of a series that was sent newer ones, or a correction: the last of them, and the range (`to` is out) in which they lie. */
export const liveRevisionSchema = z.strictObject({
  cursor: z.string(),
  device: deviceName,
  metric: metricName,
  observedAt: instant,
  value: z.number().optional().meta({ description: 'Of a number reading' }),
  text: z.string().optional().meta({ description: 'Of a text reading, instead of `value`' }),
  resolution: z.enum(['raw', ...bucketSteps]),
  from: instant,
  to: instant,
})
export type LiveRevision = z.infer<typeof liveRevisionSchema>
export const gapCauses = [
  'log-retention',
  'log-unreadable',
  'unknown-cursor',
  'store-away',
  'table-retention',
  'anomalies-away',
] as const
/** Readings received or observed (`by`) between `from` and `to` (null: not known) were not sent; with `anomalies-away` anomalies found then. */
export const liveGapSchema = z.strictObject({
  cause: z.enum(gapCauses),
  from: instant.nullable(),
  to: instant.nullable(),
  by: z.enum(['receivedAt', 'observedAt']),
})
export type LiveGap = z.infer<typeof liveGapSchema>
export const byeReasons = ['slow', 'stopping', 'failed', 'unsubscribed', 'session-over'] as const
export const liveByeSchema = z.strictObject({ reason: z.enum(byeReasons), cursor: z.string() })
export type LiveBye = z.infer<typeof liveByeSchema>

/** application/problem+json (RFC 9457) */
export const problemSchema = z
  .strictObject({
    type: z.string().meta({ description: 'A stable slug', example: '/problems/unknown-device' }),
    title: z.string(),
    status: z.number(),
    detail: z.string(),
    errors: z.array(z.strictObject({ path: z.string(), message: z.string() })).optional(),
  })
  .meta({ id: 'Problem' })
export type Problem = z.infer<typeof problemSchema>
