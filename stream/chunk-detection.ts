// Looks at every reading of a chunk, on its own bytes, and says what was found. In turns of a few rows: of all of them the states are touched first,
// so that the caches wait once and not once a row. Nothing is allocated, counted or logged for a reading in which nothing is found.
import { type Anomaly, anomalyId } from '../domain/anomaly.ts'
import type { Chunk } from '../domain/event-log.ts'
import { RowCursor } from '../domain/row-format.ts'
import type { Detector } from './detectors/detector.ts'
import type { Slab } from './detectors/layout.ts'
import { type SeriesStates, turnSeriesMax } from './detectors/series-states.ts'

export interface ChunkDetectionOptions {
  readonly detector: Detector
  readonly states: SeriesStates
  /** Least score that is told. */
  readonly scoreMin: number
}

export class ChunkDetection {
  readings = 0
  /** NaN and infinities, which no detector is given. */
  notFinite = 0
  /** Keeps what was touched from being left out as useless. */
  touched = 0
  private readonly options: ChunkDetectionOptions
  private readonly detectorName: string
  /** Of the turn under way. */
  private readonly slabs: (Slab | undefined)[] = new Array(turnSeriesMax).fill(undefined)
  private readonly words = new Int32Array(turnSeriesMax)
  private readonly observedAt = new Float64Array(turnSeriesMax)
  private readonly receivedAt = new Float64Array(turnSeriesMax)
  private readonly values = new Float64Array(turnSeriesMax)
  private readonly rowStarts = new Int32Array(turnSeriesMax)

  constructor(options: ChunkDetectionOptions) {
    this.options = options
    this.detectorName = `${options.detector.name}/${options.detector.version}`
  }

  /** Appends to `found`. */
  observe(chunk: Chunk, found: Anomaly[]): void {
    const { detector, states, scoreMin } = this.options
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
          this.slabs[rows] = slab
          this.words[rows] = word
          this.observedAt[rows] = cursor.observedAt
          this.receivedAt[rows] = cursor.receivedAt
          this.values[rows] = value
          this.rowStarts[rows] = cursor.prefixStart
          rows++
        } else {
          slot = -1
          if (!cursor.hasText()) this.notFinite++
        }
        more = cursor.next()
      }
      this.touched = touched
      for (let row = 0; row < rows; row++) {
        const score = detector.observe(this.slabs[row]!, this.words[row]!, this.observedAt[row]!, this.values[row]!)
        if (score >= scoreMin) this.remember(chunk, row, found)
      }
      this.readings += rows
    }
  }

  private remember(chunk: Chunk, row: number, found: Anomaly[]): void {
    const finding = this.options.detector.explain()
    if (finding.isWarmingUp) return
    const names = new RowCursor(chunk.rows.subarray(this.rowStarts[row]!))
    names.next()
    const series = { tenant: names.tenant(), device: names.device(), metric: names.metric() }
    const observedAt = this.observedAt[row]!
    found.push({
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
}
