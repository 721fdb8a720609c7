// What does detection cost? Readings a second of one core, over many interleaved series, as the detector's thread takes them: rows decoded, the series
// found, its state touched in a batch, then the detector. And what it takes of memory a series, and how often it alarms on nothing.
import type { Chunk } from '../domain/event-log.ts'
import { encodeRowPrefix, RowWriter } from '../domain/row-format.ts'
import { options } from '../runtime/config.ts'
import { silentLogger } from '../runtime/logger.ts'
import { DetectorRun } from '../stream/detector-run.ts'
import type { Tier } from '../stream/detectors/index.ts'
import { createRandom } from '../tests/helpers/random.ts'
import type { Benchmark } from './harness.ts'

const seriesCount = 10_000
/** Of each series, before anything counts: the nets are full, as they are in a series that has lived for a while. */
const roundsLearned = 600
const secondsDefault = 4
const rowsOfChunk = 2_000
const minute = 60_000_000
const bars = {
  1: { readingsMin: 1_000_000, bytesMax: 5 * 1024, falseMax: 0.1 },
  2: { readingsMin: 400_000 },
} as const satisfies Partial<Record<Tier, object>>

export const detection: Benchmark = {
  name: 'detection',
  question: `readings a second of CPU time of one core over ${seriesCount} interleaved series`,
  async run({ rounds, seconds = secondsDefault }, report) {
    for (const tier of [0, 1, 2] as const) {
      const fleet = createFleet()
      let told = 0
      const run = new DetectorRun({
        log: undefined as never,
        append: async (_partition, _rows, count) => {
          told += count
        },
        directory: '',
        tier,
        scoreMin: Number(options.detectorScoreMin.fallback),
        seriesMax: seriesCount + 64,
        logger: silentLogger,
      })
      for (let round = 0; round < roundsLearned; round++) await run.takeChunks(fleet.nextRound())
      const rates: number[] = []
      const toldBefore = told
      let readings = 0
      for (let round = 0; round < rounds; round++) {
        let cpuMicros = 0
        let looked = 0
        while (cpuMicros < seconds * 1e6) {
          const chunks = fleet.nextRound()
          const before = process.cpuUsage()
          await run.takeChunks(chunks)
          const { user, system } = process.cpuUsage(before)
          cpuMicros += user + system
          looked += seriesCount
        }
        rates.push(looked / (cpuMicros / 1e6))
        readings += looked
      }
      report.figure(`tier ${tier}: readings/s of a core`, rates)
      report.figure(`tier ${tier}: bytes a series`, [run.totals().bytesHeld / seriesCount])
      report.figure(`tier ${tier}: false alerts in 1,000 readings`, [((told - toldBefore) * 1_000) / readings])
      const bar = tier === 0 ? undefined : bars[tier]
      if (bar)
        report.ratio(
          `tier ${tier}: readings/s ÷ ${bar.readingsMin}`,
          rates.map((rate) => rate / bar.readingsMin),
          { min: 1 },
        )
    }
  },
}

/** A reading of every series a round, each with a rhythm, noise and steps of its own; nothing that would be worth an alert. */
function createFleet(): { nextRound(): Chunk[] } {
  const random = createRandom(1)
  const prefixes = Array.from({ length: seriesCount }, (_, i) =>
    encodeRowPrefix('default', `device-${i}`, 'temperature'),
  )
  const phases = Float64Array.from(prefixes, () => random.next() * 6.28)
  const sizes = Float64Array.from(prefixes, () => 1 + random.next() * 30)
  const writer = new RowWriter(256 * 1024)
  let round = 0
  let offset = 0
  return {
    nextRound() {
      const chunks: Chunk[] = []
      const observedAt = 1_700_000_000_000_000 + round * 10 * minute
      round++
      for (let i = 0; i < seriesCount; i++) {
        const value =
          sizes[i]! * (2 + Math.sin(round / 23 + phases[i]!)) + (random.next() + random.next()) * 0.2 * sizes[i]!
        writer.number(prefixes[i]!, observedAt, Math.round(value * 100) / 100, observedAt)
        if (writer.count < rowsOfChunk && i < seriesCount - 1) continue
        const rows = Buffer.from(writer.rows())
        chunks.push({ topic: 'readings', partition: 0, offset: offset++, count: writer.count, receivedAt: 1, rows })
        writer.reset()
      }
      return chunks
    },
  }
}
