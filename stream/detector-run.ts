// Detection from start to stop, in whatever thread: readings from the log, on the chunks' own bytes; anomalies to where they become durable; then a
// snapshot of all state with the position that it stands for; then that position as the group's. So after a crash anywhere the same readings are
// read again by the same state, the same anomalies with the same ids are told again, and the table folds them.
//
//   log ──read──▶ observe ──▶ append (durable) ──▶ … ──▶ snapshot (durable) ──▶ commit: retention may go on
//          ▲ from the snapshot's position
//
// Several share the partitions (on Kafka). One that comes is read from where this one had come to with it, or from the log's beginning: so its series
// are what they are to the one that had it before. What that one had committed is learned from and not told again.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { type Anomaly, anomalyId, encodeAnomaly } from '../domain/anomaly.ts'
import type { Chunk, EventLog, LogConsumer, LogPosition, Offset, Partition } from '../domain/event-log.ts'
import { RowCursor } from '../domain/row-format.ts'
import { OffsetOutOfRangeError, RetryableError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import { backOffMs } from './consumer-loop.ts'
import { ColdStates } from './detectors/cold-states.ts'
import type { Detector } from './detectors/detector.ts'
import { createDetector, type Tier } from './detectors/index.ts'
import type { Slab } from './detectors/layout.ts'
import { SeriesStates, turnSeriesMax } from './detectors/series-states.ts'
import { readSnapshot, writeSnapshot } from './detectors/snapshot.ts'

const detectorGroup = 'detector'
const topic = 'readings'

/** Makes rows of the topic `anomalies` durable; a RetryableError: again, later. */
export type AppendAnomalies = (partition: number, rows: Uint8Array, count: number) => Promise<void>

export interface DetectorRunOptions {
  readonly log: EventLog
  readonly append: AppendAnomalies
  /** Of snapshot and cold states; no other process uses it. */
  readonly directory: string
  readonly tier: Tier
  /** Least score that is told. */
  readonly scoreMin: number
  /** In memory; beyond it the least recently heard go to disk. */
  readonly seriesMax: number
  /** On disk; beyond it the longest unheard begin anew, which is counted and said. */
  readonly coldSeriesMax?: number
  readonly snapshotEveryMs?: number
  readonly logger: Logger
}

export interface DetectorTotals {
  readonly readings: number
  readonly anomalies: number
  /** NaN and infinities, which no detector is given. */
  readonly notFinite: number
  readonly series: number
  readonly coldSeries: number
  readonly droppedSeries: number
  readonly bytesHeld: number
  /** Chunks that retention took before they were looked at. */
  readonly missedChunks: number
  readonly snapshots: number
  /** receivedAt of the last chunk, in microseconds. */
  readonly reachedAt: number
  /** Why nothing is looked at, as a sentence; undefined while all is well. */
  readonly trouble: string | undefined
}

const snapshotEveryMsDefault = 30_000
/** A snapshot may take this share of the time. */
const snapshotShareMax = 0.05
const appendBytesMax = 256 * 1024
const readBytesMax = 1024 * 1024

export class DetectorRun {
  private readonly options: DetectorRunOptions
  private readonly detector: Detector
  private readonly detectorName: string
  private readonly states: SeriesStates
  private readonly cold: ColdStates
  private readonly snapshotFile: string
  private readonly stopping = new AbortController()
  private consumer: LogConsumer | undefined
  private running: Promise<void> = Promise.resolve()
  private position = new Map<Partition, Offset>()
  /** What was found before these was told by whoever committed them. */
  private readonly toldUpTo = new Map<Partition, Offset>()
  private isFromBeginning = false
  /** What the group committed is of another log. */
  private isOtherLog = false
  private snapshotDueAt = 0
  private isSnapshotCurrent = true
  private readings = 0
  private anomalies = 0
  private notFinite = 0
  private missedChunks = 0
  private snapshots = 0
  private reachedAt = 0
  private droppedSaid = 0
  /** Of the turn under way. */
  private readonly slabs: (Slab | undefined)[] = new Array(turnSeriesMax).fill(undefined)
  private readonly words = new Int32Array(turnSeriesMax)
  private readonly observedAt = new Float64Array(turnSeriesMax)
  private readonly receivedAt = new Float64Array(turnSeriesMax)
  private readonly values = new Float64Array(turnSeriesMax)
  private readonly rowStarts = new Int32Array(turnSeriesMax)
  private readonly rowEnds = new Int32Array(turnSeriesMax)
  private found: Anomaly[] = []
  /** Keeps what was touched from being left out as useless. */
  touched = 0

  constructor(options: DetectorRunOptions) {
    this.options = options
    this.detector = createDetector(options.tier)
    this.detectorName = `${this.detector.name}/${this.detector.version}`
    const { blockWords } = this.detector
    const coldSeriesMax = options.coldSeriesMax ?? 10 * options.seriesMax
    this.cold = new ColdStates(join(options.directory, 'cold'), blockWords * 8, coldSeriesMax)
    this.states = new SeriesStates(blockWords, options.seriesMax, this.cold)
    this.snapshotFile = join(options.directory, 'snapshot')
  }

  /** `onEnd`: it can't go on; never called after `stop`. */
  async start(onEnd: (error: Error) => void): Promise<void> {
    mkdirSync(this.options.directory, { recursive: true, mode: 0o700 })
    this.restore()
    this.consumer = await this.subscribe()
    this.snapshotDueAt = performance.now() + (this.options.snapshotEveryMs ?? snapshotEveryMsDefault)
    this.running = this.run().catch((error: Error) => {
      if (!this.stopping.signal.aborted) onEnd(error)
    })
  }

  /** Ends after the chunks in hand; leaves a snapshot, so that the next start has nothing to read again. */
  async stop(): Promise<void> {
    this.stopping.abort()
    await this.running
    if (this.consumer) {
      if (!this.isSnapshotCurrent) await this.snapshot().catch(() => {})
      await this.consumer.close()
    }
    this.cold.close()
  }

  totals(): DetectorTotals {
    const { readings, anomalies, notFinite, missedChunks, snapshots, reachedAt } = this
    const { count: series, bytesHeld } = this.states
    const { count: coldSeries, dropped: droppedSeries } = this.cold
    return {
      readings,
      anomalies,
      notFinite,
      series,
      coldSeries,
      droppedSeries,
      bytesHeld,
      missedChunks,
      snapshots,
      reachedAt,
      trouble: this.consumer?.trouble(),
    }
  }

  /** Everything before it was looked at, and what was found is durable. */
  reached(): LogPosition {
    return new Map(this.position)
  }

  private restore(): void {
    const { logger } = this.options
    const { snapshotFile: file, detector, states, cold } = this
    const restored = readSnapshot({ file, detector, states, cold })
    if (restored.kind === 'restored') this.position = new Map(restored.position)
    if (restored.kind === 'unusable') {
      logger.warn(
        { file, reason: restored.reason },
        'the snapshot of detection is not usable: what is normal is learned anew, from what the log still holds',
      )
    }
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping
    let isChecked = false
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        if (!isChecked) await this.checkPosition()
        isChecked = true
        const chunks = await this.consumer!.read(readBytesMax, signal)
        if (chunks.length > 0) await this.takeChunks(chunks)
        this.isFromBeginning = false
        attempt = 0
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof OffsetOutOfRangeError || error instanceof RetryableError)) throw error
        await this.pause(attempt)
        if (error instanceof OffsetOutOfRangeError) await this.openAgain(error)
      }
    }
  }

  private subscribe(): Promise<LogConsumer> {
    return this.options.log.subscribe(detectorGroup, topic, {
      startAt: (partition, committed) => this.startAt(partition, committed),
    })
  }

  private startAt(partition: Partition, committed: Offset | undefined): Offset | 'beginning' {
    const reached = this.position.get(partition)
    if (!this.isOtherLog && committed !== undefined && committed > (reached ?? 0)) {
      this.toldUpTo.set(partition, committed)
      this.options.logger.info(
        { partition, from: reached ?? 'the beginning', to: committed },
        'detection learns from readings that were looked at before, and tells nothing of them again',
      )
    }
    return this.isFromBeginning || reached === undefined ? 'beginning' : reached
  }

  /** What the log still holds, from its beginning: takeChunks() passes over what was read, and sees what is missing. */
  private async openAgain(cause: OffsetOutOfRangeError): Promise<void> {
    this.options.logger.info({ cause: cause.message }, 'detection opens the log again')
    await this.consumer?.close()
    this.isFromBeginning = true
    this.consumer = await this.subscribe()
  }

  /** Another log than the one that the snapshot is of: it begins anew, with what was learned. */
  private async checkPosition(): Promise<void> {
    const end = await this.options.log.end(topic)
    const isBeyond = [...this.position].some(
      ([partition, offset]) => end.size > 0 && offset > (end.get(partition) ?? 0),
    )
    if (!isBeyond) return
    this.options.logger.error({}, 'the log is not the one that detection had read: it is read from its beginning')
    this.position = new Map()
    this.toldUpTo.clear()
    this.isOtherLog = true
  }

  /** What the loop does with what it reads; also for those who bring chunks of their own. */
  async takeChunks(chunks: readonly Chunk[]): Promise<void> {
    for (const chunk of chunks) {
      const expected = this.position.get(chunk.partition) ?? chunk.offset
      if (chunk.offset < expected) continue
      if (chunk.offset > expected) this.miss(chunk, expected)
      this.observe(chunk)
      if (chunk.offset < (this.toldUpTo.get(chunk.partition) ?? 0)) this.found.length = 0
      if (this.found.length > 0) await this.tell(chunk.partition)
      if (this.stopping.signal.aborted && this.found.length > 0) return
      this.position.set(chunk.partition, chunk.offset + 1)
      this.isSnapshotCurrent = false
      this.reachedAt = chunk.receivedAt
    }
    if (this.consumer && performance.now() >= this.snapshotDueAt) await this.snapshot()
  }

  /** Retention does not wait for detection when the log is at its quota: what it took is said. */
  private miss({ partition, offset }: Chunk, expected: number): void {
    // Somebody else looked at them.
    if (offset <= (this.toldUpTo.get(partition) ?? 0)) return
    this.missedChunks += offset - expected
    this.options.logger.error(
      { partition, chunks: offset - expected, from: expected, to: offset },
      'the log has let go of readings before detection came to them: anomalies in them are not found',
    )
  }

  /** In turns of a few rows: of all of them the blocks are touched first, so that the caches wait once and not once a row. */
  private observe(chunk: Chunk): void {
    const { states, detector, slabs, words } = this
    const cursor = new RowCursor(chunk.rows)
    let more = cursor.next()
    while (more) {
      states.nextTurn()
      let rows = 0
      let touched = 0
      // Of the row before, in this turn: between two turns slots may move.
      let slot = -1
      while (more && rows < turnSeriesMax) {
        const value = cursor.value
        if (Number.isFinite(value)) {
          if (slot < 0 || !cursor.isSameSeries) slot = states.find(chunk.rows, cursor.prefixStart, cursor.prefixEnd)
          const slab = states.slabOf(slot)
          const word = states.wordOf(slot)
          touched += detector.touch(slab, word)
          slabs[rows] = slab
          words[rows] = word
          this.observedAt[rows] = cursor.observedAt
          this.receivedAt[rows] = cursor.receivedAt
          this.values[rows] = value
          this.rowStarts[rows] = cursor.prefixStart
          this.rowEnds[rows] = cursor.prefixEnd
          rows++
        } else {
          slot = -1
          if (!cursor.hasText()) this.notFinite++
        }
        more = cursor.next()
      }
      this.touched = touched
      for (let row = 0; row < rows; row++) {
        const score = detector.observe(slabs[row]!, words[row]!, this.observedAt[row]!, this.values[row]!)
        if (score >= this.options.scoreMin) this.remember(chunk, row)
      }
      this.readings += rows
    }
  }

  private remember(chunk: Chunk, row: number): void {
    const finding = this.detector.explain()
    if (finding.isWarmingUp) return
    const names = new RowCursor(chunk.rows.subarray(this.rowStarts[row]!))
    names.next()
    const series = { tenant: names.tenant(), device: names.device(), metric: names.metric() }
    const observedAt = this.observedAt[row]!
    this.found.push({
      ...series,
      observedAt,
      receivedAt: this.receivedAt[row]!,
      id: anomalyId({ ...series, observedAt }, this.detectorName),
      detector: this.detectorName,
      score: finding.score,
      value: finding.value,
      expectedLow: finding.expected.low,
      expectedHigh: finding.expected.high,
      explanation: finding.explanation,
      evidence: JSON.stringify(finding.evidence),
    })
  }

  /** Until they are durable: nothing is read meanwhile, and no snapshot is made that would leave them out. */
  private async tell(partition: number): Promise<void> {
    const { append, logger } = this.options
    const { signal } = this.stopping
    while (this.found.length > 0 && !signal.aborted) {
      const rows: Buffer[] = []
      let bytes = 0
      while (rows.length < this.found.length && bytes < appendBytesMax) {
        const row = encodeAnomaly(this.found[rows.length]!)
        rows.push(row)
        bytes += row.length
      }
      for (let attempt = 0; ; attempt++) {
        try {
          await append(partition, Buffer.concat(rows), rows.length)
          break
        } catch (error) {
          if (signal.aborted) return
          if (!(error instanceof RetryableError)) throw error
          if (attempt === 0) logger.warn({ cause: error.message }, 'anomalies wait: the log does not take them')
          await this.pause(attempt)
        }
        if (signal.aborted) return
      }
      this.anomalies += rows.length
      this.found.splice(0, rows.length)
    }
  }

  private async snapshot(): Promise<void> {
    const { snapshotFile: file, detector, states, cold } = this
    // What was found and could not be told is found again, from the snapshot before.
    if (this.found.length > 0) return
    const began = performance.now()
    writeSnapshot({ file, detector, states, cold }, this.position)
    this.isSnapshotCurrent = true
    this.snapshots++
    await this.consumer!.commit(this.reached())
    const now = performance.now()
    const every = this.options.snapshotEveryMs ?? snapshotEveryMsDefault
    this.snapshotDueAt = now + Math.max(every, (now - began) / snapshotShareMax)
    this.sayDropped()
  }

  private sayDropped(): void {
    const { dropped } = this.cold
    if (dropped === this.droppedSaid) return
    this.options.logger.error(
      { series: dropped - this.droppedSaid },
      'more series than detection may remember: the longest unheard are learned anew when they are heard again',
    )
    this.droppedSaid = dropped
  }

  private async pause(attempt: number): Promise<void> {
    const ms = backOffMs({ firstMs: 100, longestMs: 5_000, random: Math.random }, attempt)
    await delay(ms, undefined, { signal: this.stopping.signal }).catch(() => {})
  }
}
