// Takes the readings of one payload from a codec: keeps the bounds that hold for every format, stamps receivedAt, writes rows. One for all
// payloads, opened anew for each: no object per payload, no check twice for a series that is known.

import type { Rejection, RejectReason } from '../domain/outcome.ts'
import { futureMsMax, type Micros, metricNameLengthMax, textBytesMax } from '../domain/reading.ts'
import type { RowWriter } from '../domain/row-format.ts'
import { type ReadingSink, withoutClock } from './codecs/codec.ts'
import type { SeriesCache } from './series-cache.ts'

export const payloadReadingsMax = 50_000
/** Long names in a columnar payload make many bytes of few: 4 MiB are 50,000 rows of 80 bytes. */
export const payloadRowsBytesMax = 4 * 1024 * 1024
/** Refusals told apart for one payload; what goes beyond is summed up in the last one. */
export const rejectionsMax = 16
/** A name that is not allowed is quoted up to here. */
const quotedCharactersMax = 60
const tooManyReadings: Rejection = {
  reason: 'too-many-readings',
  detail: `the payload has more than ${payloadReadingsMax} readings, or more than ${payloadRowsBytesMax} bytes of them: send it in parts`,
}

export class PayloadSink implements ReadingSink {
  series!: SeriesCache
  observedAtMax = 0
  private writer!: RowWriter
  /** Stamped on the next row. */
  private receivedAt = 0
  private elementAt = withoutClock
  accepted = 0
  /** Some reading of this payload got its instant from us. */
  clockless = false
  /** Readings that were refused, and the first refusals of them. */
  rejected = 0
  readonly rejections: Rejection[] = []
  readonly rejectionCounts: number[] = []
  private startLength = 0
  private startCount = 0
  private startLast = 0
  /** Why nothing of this payload is used. */
  private abandoned: Rejection | undefined
  private markedLength = 0
  private markedCount = 0
  private markedLast = 0
  private markedReceivedAt = 0
  private markedAccepted = 0
  private markedAbandoned: Rejection | undefined

  /** `receivedAt`: for the first row; each further one is a microsecond later. */
  open(series: SeriesCache, writer: RowWriter, receivedAt: Micros, now: Micros): void {
    this.series = series
    this.writer = writer
    this.receivedAt = receivedAt
    this.observedAtMax = now + futureMsMax * 1000
    this.elementAt = withoutClock
    this.accepted = 0
    this.clockless = false
    this.abandoned = undefined
    this.startLength = writer.length
    this.startCount = writer.count
    this.startLast = writer.receivedAt
    if (this.rejected > 0) {
      this.rejected = 0
      this.rejections.length = 0
      this.rejectionCounts.length = 0
    }
  }

  /** To be called once the codec is done. */
  finish(): void {
    const { abandoned } = this
    if (abandoned === undefined) return
    this.writer.truncate(this.startLength, this.startCount, this.startLast)
    this.accepted = 0
    this.rejected = 0
    this.rejections.length = 0
    this.rejectionCounts.length = 0
    this.reject(abandoned.reason, abandoned.detail)
  }

  /** Stamped on the next row that is written. */
  get receivedAtNext(): Micros {
    return this.receivedAt
  }

  get writtenBytes(): number {
    return this.writer.length - this.startLength
  }

  element(): void {
    this.elementAt = withoutClock
  }

  known(place: number, observedAt: Micros, value: number): void {
    this.write(this.series.prefixes[place]!, observedAt, value)
  }

  number(metric: string, observedAt: Micros, value: number): void {
    if (!Number.isFinite(value)) {
      this.reject('invalid-value', `the number is ${value}: it must be finite and fit in 64 bits`, metric)
      return
    }
    const prefix = this.prefixOf(metric, observedAt)
    if (prefix) this.write(prefix, observedAt, value)
  }

  text(metric: string, observedAt: Micros, text: string): void {
    // Half of a surrogate pair has no bytes of its own: it would come back as another text.
    if (!text.isWellFormed()) {
      this.reject('invalid-value', 'the text is not well-formed Unicode', metric)
      return
    }
    const bytes = Buffer.from(text, 'utf8')
    if (bytes.length > textBytesMax) {
      this.reject('text-too-long', `the text has ${bytes.length} bytes; at most ${textBytesMax} are kept`, metric)
      return
    }
    const prefix = this.prefixOf(metric, observedAt)
    if (!prefix || this.isFull()) return
    this.writer.text(prefix, this.instantOf(observedAt), bytes, this.receivedAt++)
    this.accepted++
  }

  reject(reason: RejectReason, detail: string, metric?: string, count = 1): void {
    this.rejected += count
    if (this.rejections.length === rejectionsMax) return
    const shown = metric === undefined ? undefined : quotable(metric)
    this.rejections.push(shown === undefined ? { reason, detail } : { reason, detail, metric: shown })
    this.rejectionCounts.push(count)
  }

  mark(): void {
    this.markedLength = this.writer.length
    this.markedCount = this.writer.count
    this.markedLast = this.writer.receivedAt
    this.markedReceivedAt = this.receivedAt
    this.markedAccepted = this.accepted
    this.markedAbandoned = this.abandoned
  }

  rewind(): void {
    this.writer.truncate(this.markedLength, this.markedCount, this.markedLast)
    this.receivedAt = this.markedReceivedAt
    this.accepted = this.markedAccepted
    this.abandoned = this.markedAbandoned
    this.elementAt = withoutClock
  }

  private write(prefix: Buffer, observedAt: Micros, value: number): void {
    if (this.isFull()) return
    this.writer.number(
      prefix,
      observedAt === withoutClock ? this.instantOf(observedAt) : observedAt,
      value,
      this.receivedAt++,
    )
    this.accepted++
  }

  /** One instant for all readings of an element without a clock: the receivedAt of its first. */
  private instantOf(observedAt: Micros): Micros {
    if (observedAt !== withoutClock) return observedAt
    this.clockless = true
    if (this.elementAt === withoutClock) this.elementAt = this.receivedAt
    return this.elementAt
  }

  private isFull(): boolean {
    if (this.accepted < payloadReadingsMax && this.writer.length - this.startLength < payloadRowsBytesMax) return false
    this.abandoned = tooManyReadings
    return true
  }

  abandon(reason: RejectReason, detail: string): void {
    this.abandoned = { reason, detail }
  }

  private prefixOf(metric: string, observedAt: Micros): Buffer | undefined {
    if (observedAt > this.observedAtMax) {
      this.reject('observed-in-future', futureDetail(observedAt), metric)
      return undefined
    }
    const place = this.series.placeOf(metric)
    if (place >= 0) return this.series.prefixes[place]
    const prefix = this.series.add(metric)
    if (!prefix) {
      this.reject(
        'invalid-metric-name',
        `the name ${JSON.stringify(quotable(metric))} must have 1 to 128 characters, none of them a control character`,
        metric,
      )
    }
    return prefix
  }
}

function futureDetail(observedAt: Micros): string {
  return `observed at ${new Date(observedAt / 1000).toISOString()}, more than 24 hours ahead of our clock`
}

function quotable(metric: string): string {
  const well = metric.toWellFormed()
  return well.length <= 2 * metricNameLengthMax
    ? well
    : `${[...well.slice(0, quotedCharactersMax * 2)].slice(0, quotedCharactersMax).join('')}…`
}
