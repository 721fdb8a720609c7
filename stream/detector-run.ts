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
import type { Anomaly } from '../domain/anomaly.ts'
import type { Chunk, EventLog, LogConsumer, LogPosition, Offset, Partition } from '../domain/event-log.ts'
import { OffsetOutOfRangeError, RetryableError } from '../runtime/errors.ts'
import type { Logger } from '../runtime/logger.ts'
import { ChunkDetection } from './chunk-detection.ts'
import { backOffMs } from './consumer-loop.ts'
import { ColdStates } from './detectors/cold-states.ts'
import type { Detector } from './detectors/detector.ts'
import { createDetector, type Tier } from './detectors/index.ts'
import { SeriesStates } from './detectors/series-states.ts'
import { readSnapshot, writeSnapshot } from './detectors/snapshot.ts'
import { type ChunkPlace, isOfThisLog } from './same-log.ts'
import { type AppendAnomalies, tellAnomalies } from './tell-anomalies.ts'

export type { AppendAnomalies } from './tell-anomalies.ts'

const detectorGroup = 'detector'
const topic = 'readings'

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
/** A position that was not taken is offered again after so long; readings are looked at meanwhile. */
const commitAgainMs = 5_000
const readBytesMax = 1024 * 1024

export class DetectorRun {
  private readonly options: DetectorRunOptions
  private readonly detector: Detector
  private readonly states: SeriesStates
  private readonly cold: ColdStates
  private readonly detection: ChunkDetection
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
  /** … in these partitions. */
  private readonly begunAnew = new Set<Partition>()
  /** No snapshot before `start`. */
  private snapshotDueAt = Number.POSITIVE_INFINITY
  private snapshotTimer: NodeJS.Timeout | undefined
  private isSnapshotCurrent = true
  /** What is known is further than the position says: no snapshot of it would be true. */
  private isWithinChunk = false
  /** Of the last snapshot, until the log has taken it. */
  private uncommitted: LogPosition | undefined
  private commitDueAt = 0
  private committing: Promise<void> | undefined
  /** Why the log can't be read just now, as a sentence. */
  private standstill: string | undefined
  private readonly found: Anomaly[] = []
  private anomalies = 0
  private missedChunks = 0
  private snapshots = 0
  /** The last chunk that was looked at: by it another log is told from the one that the position is of. */
  private last: ChunkPlace | undefined
  private droppedSaid = 0

  constructor(options: DetectorRunOptions) {
    this.options = options
    this.detector = createDetector(options.tier)
    const { blockWords } = this.detector
    const coldSeriesMax = options.coldSeriesMax ?? 10 * options.seriesMax
    this.cold = new ColdStates(join(options.directory, 'cold'), blockWords * 8, coldSeriesMax)
    this.states = new SeriesStates(blockWords, options.seriesMax, this.cold)
    this.detection = new ChunkDetection({ detector: this.detector, states: this.states, scoreMin: options.scoreMin })
    this.snapshotFile = join(options.directory, 'snapshot')
  }

  /** `onEnd`: it can't go on; never called after `stop`. */
  async start(onEnd: (error: Error) => void): Promise<void> {
    mkdirSync(this.options.directory, { recursive: true, mode: 0o700 })
    this.restore()
    const everyMs = this.options.snapshotEveryMs ?? snapshotEveryMsDefault
    this.snapshotDueAt = performance.now() + everyMs
    const ended = (error: Error): void => {
      if (!this.stopping.signal.aborted) onEnd(error)
    }
    this.running = this.run().catch(ended)
    // Also where no chunk comes after those that it would speak of: else the group stands before them until one does.
    if (everyMs > 0) this.snapshotTimer = setInterval(() => this.snapshotWhenQuiet().catch(ended), everyMs).unref()
  }

  /** Ends after the chunks in hand; leaves a snapshot, so that the next start has nothing to read again. */
  async stop(): Promise<void> {
    this.stopping.abort()
    clearInterval(this.snapshotTimer)
    await this.running
    await this.committing?.catch(() => {})
    try {
      if (!this.isSnapshotCurrent) this.snapshot()
      this.commitDueAt = 0
      await this.commitSnapshot()
    } catch (error) {
      const cause = (error as Error).message
      this.options.logger.warn({ cause }, 'detection left no snapshot as it stopped: some readings are looked at again')
    }
    await this.consumer?.close()
    this.cold.close()
  }

  totals(): DetectorTotals {
    const { anomalies, missedChunks, snapshots, last } = this
    const { readings, notFinite } = this.detection
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
      reachedAt: last?.receivedAt ?? 0,
      trouble: this.standstill ?? this.consumer?.trouble(),
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
    if (restored.kind === 'restored') {
      this.position = new Map(restored.position)
      this.last = restored.last
    }
    if (restored.kind === 'unusable') {
      logger.warn(
        { file, reason: restored.reason },
        'the snapshot of detection is not usable: what is normal is learned anew, from what the log still holds',
      )
    }
  }

  private async run(): Promise<void> {
    const { signal } = this.stopping
    for (let attempt = 0; !signal.aborted; attempt++) {
      try {
        if (!this.consumer) {
          this.consumer = await this.open()
          // There is perhaps nothing to read for a long time. What is wrong from here on, the consumer says.
          this.standstill = undefined
        }
        await this.commitSnapshot()
        const chunks = await this.consumer.read(readBytesMax, signal)
        if (chunks.length > 0) await this.takeChunks(chunks)
        this.isFromBeginning = false
        this.standstill = undefined
        attempt = -1
      } catch (error) {
        if (signal.aborted) return
        if (error instanceof OffsetOutOfRangeError) await this.beginAgain(error)
        else if (error instanceof RetryableError) this.sayStandstill(error)
        else throw error
        await this.pause(attempt)
      }
    }
  }

  private sayStandstill({ message }: Error): void {
    if (this.standstill === undefined)
      this.options.logger.warn({ cause: message }, 'detection can’t read the log; trying again')
    this.standstill = `Detection waits for the log: ${message}`
  }

  private async open(): Promise<LogConsumer> {
    await this.checkPosition()
    return this.options.log.subscribe(detectorGroup, topic, {
      startAt: (partition, committed) => this.startAt(partition, committed),
    })
  }

  private startAt(partition: Partition, committed: Offset | undefined): Offset | 'beginning' {
    const reached = this.position.get(partition)
    const isOther = this.isOtherLog || this.begunAnew.has(partition)
    if (!isOther && committed !== undefined && committed > (reached ?? 0)) {
      this.toldUpTo.set(partition, committed)
      this.options.logger.info(
        { partition, from: reached ?? 'the beginning', to: committed },
        'detection learns from readings that were looked at before, and tells nothing of them again',
      )
    }
    return this.isFromBeginning || reached === undefined ? 'beginning' : reached
  }

  /** Next it is opened from the beginning of what the log still holds: takeChunks() passes over what was read, and sees what is missing. */
  private async beginAgain(cause: OffsetOutOfRangeError): Promise<void> {
    this.options.logger.info({ cause: cause.message }, 'detection opens the log again')
    // Others go on where they were: one where another log lies as well is found out in its turn.
    if (cause.otherLogIn !== undefined) this.forgetPlace(cause.otherLogIn)
    else this.isFromBeginning = true
    const { consumer } = this
    this.consumer = undefined
    await consumer?.close().catch(() => {})
  }

  /** What was read in this partition is not what lies there now; what was learned stays. */
  private forgetPlace(partition: Partition): void {
    this.options.logger.error(
      { partition },
      'the log is not the one that detection had read: it is read from its beginning',
    )
    this.position.delete(partition)
    this.toldUpTo.delete(partition)
    this.begunAnew.add(partition)
    if (this.last?.partition === partition) this.last = undefined
    this.uncommitted = undefined
  }

  /** Another log than the one that the snapshot is of: it begins anew, with what was learned. */
  private async checkPosition(): Promise<void> {
    const end = await this.options.log.end(topic)
    const isBeyond = [...this.position].some(
      ([partition, offset]) => end.size > 0 && offset > (end.get(partition) ?? 0),
    )
    const { last } = this
    const isSame = !isBeyond && (!last || (await isOfThisLog(this.options.log, topic, last, this.stopping.signal)))
    if (isSame) return
    this.options.logger.error({}, 'the log is not the one that detection had read: it is read from its beginning')
    this.position = new Map()
    this.last = undefined
    this.toldUpTo.clear()
    this.uncommitted = undefined
    this.isOtherLog = true
  }

  /** What the loop does with what it reads; also for those who bring chunks of their own. */
  async takeChunks(chunks: readonly Chunk[]): Promise<void> {
    for (const chunk of chunks) {
      const expected = this.position.get(chunk.partition) ?? chunk.offset
      if (chunk.offset < expected) continue
      if (chunk.offset > expected) this.miss(chunk, expected)
      this.isWithinChunk = true
      this.detection.observe(chunk, this.found)
      if (chunk.offset < (this.toldUpTo.get(chunk.partition) ?? 0)) this.found.length = 0
      // Until they are durable: nothing is read meanwhile, and no snapshot is made that would leave them out.
      if (this.found.length > 0) await this.tell(chunk.partition)
      if (this.found.length > 0) return
      this.position.set(chunk.partition, chunk.offset + 1)
      this.isWithinChunk = false
      this.isSnapshotCurrent = false
      this.last = { partition: chunk.partition, offset: chunk.offset, receivedAt: chunk.receivedAt }
      if (this.cold.needsSnapshot) this.snapshot()
    }
    if (performance.now() >= this.snapshotDueAt) this.snapshot()
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

  private async tell(partition: Partition): Promise<void> {
    const { append, logger } = this.options
    const { signal } = this.stopping
    const pause = (attempt: number): Promise<void> => this.pause(attempt)
    this.anomalies += await tellAnomalies(this.found, partition, { append, logger, signal, pause })
  }

  private snapshot(): void {
    const { snapshotFile: file, detector, states, cold } = this
    // What was found and could not be told is found again, from the snapshot before.
    if (this.isWithinChunk) return
    const began = performance.now()
    writeSnapshot({ file, detector, states, cold }, this.position, this.last)
    this.isSnapshotCurrent = true
    this.snapshots++
    this.uncommitted = this.reached()
    const now = performance.now()
    const every = this.options.snapshotEveryMs ?? snapshotEveryMsDefault
    this.snapshotDueAt = now + Math.max(every, (now - began) / snapshotShareMax)
    this.sayDropped()
  }

  private async snapshotWhenQuiet(): Promise<void> {
    if (!this.isSnapshotCurrent && performance.now() >= this.snapshotDueAt) this.snapshot()
    await this.commitSnapshot()
  }

  /** Only then may retention go on; a log that does not take it now is asked again later, and no snapshot is made for that. */
  private commitSnapshot(): Promise<void> {
    this.committing ??= this.commitOnce().finally(() => {
      this.committing = undefined
    })
    return this.committing
  }

  private async commitOnce(): Promise<void> {
    const { uncommitted, consumer } = this
    if (!uncommitted || !consumer || performance.now() < this.commitDueAt) return
    try {
      await consumer.commit(uncommitted)
      if (this.uncommitted === uncommitted) this.uncommitted = undefined
      this.commitDueAt = 0
    } catch (error) {
      if (!(error instanceof RetryableError)) throw error
      if (this.commitDueAt === 0)
        this.options.logger.warn({ cause: error.message }, 'the log does not take how far detection is; trying again')
      this.commitDueAt = performance.now() + commitAgainMs
    }
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
