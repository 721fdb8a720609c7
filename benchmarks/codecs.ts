// What does reading a payload cost? Each codec's usual payloads decoded into rows, against JSON.parse of the same bytes, which makes objects and no
// rows: a floor for whatever stands on it.
import { Bench } from 'tinybench'
import { RowWriter } from '../domain/row-format.ts'
import { findCodec } from '../ingest/codecs/index.ts'
import { PayloadSink } from '../ingest/payload-sink.ts'
import { SeriesCaches } from '../ingest/series-cache.ts'
import type { Benchmark } from './harness.ts'

const millisecondsDefault = 400
/** Different values in each, so that nothing is answered from a branch predictor's memory. */
const variants = 256
const firstAt = 1_760_000_000_000

interface Case {
  readonly name: string
  readonly codec: string
  readonly readings: number
  /** Least ratio to JSON.parse; none where decoding rests on JSON.parse itself. */
  readonly min?: number
  payload(variant: number): string
}

const valueAt = (variant: number): string => (10 + (variant % 1_000) / 100).toFixed(2)
const cases: readonly Case[] = [
  {
    name: 'one reading, 105 bytes',
    codec: 'json',
    readings: 1,
    min: 1.5,
    payload: (v) => `{"ts":${firstAt + v},"values":{"temperature":${valueAt(v)}}}`.padEnd(105),
  },
  {
    name: 'four readings, flat',
    codec: 'json',
    readings: 4,
    min: 1.2,
    payload: (v) =>
      `{"ts":${firstAt + v},"temperature":${valueAt(v)},"humidity":4${v % 10}.5,"pressure":1013,"rpm":${v}}`,
  },
  {
    name: 'array of 100',
    codec: 'json',
    readings: 100,
    payload: (v) => `[${range(100, (i) => `{"ts":${firstAt + v * 100 + i},"temperature":${valueAt(v + i)}}`)}]`,
  },
  {
    name: 'columns of 100',
    codec: 'json',
    readings: 100,
    payload: (v) =>
      `{"ts":[${range(100, (i) => String(firstAt + v * 100 + i))}],"values":{"temperature":[${range(100, (i) => valueAt(v + i))}]}}`,
  },
]

function range(count: number, each: (index: number) => string): string {
  return Array.from({ length: count }, (_, index) => each(index)).join()
}

export const codecs: Benchmark = {
  name: 'codecs',
  question: 'decoding a payload into rows against JSON.parse of the same bytes',
  async run({ rounds, seconds }, report) {
    const time = seconds === undefined ? millisecondsDefault : seconds * 1_000
    for (const each of cases) {
      const ours: number[] = []
      const parse: number[] = []
      for (let round = 0; round < rounds; round++) {
        const rates = await measure(each, time, round % 2 === 0)
        ours.push(rates.decode * each.readings)
        parse.push(rates.parse * each.readings)
      }
      report.figure(`${each.name}: ${each.codec} readings/s`, ours)
      report.ratio(
        `${each.name}: ${each.codec} ÷ JSON.parse`,
        ours.map((rate, i) => rate / parse[i]!),
        each.min === undefined ? undefined : { min: each.min },
      )
    }
  },
}

async function measure(each: Case, time: number, decodeFirst: boolean): Promise<{ decode: number; parse: number }> {
  const payloads = Array.from({ length: variants }, (_, variant) => Buffer.from(each.payload(variant)))
  const codec = findCodec(each.codec)!
  const series = new SeriesCaches().of('default', 'bench')
  const writer = new RowWriter(1024 * 1024)
  const sink = new PayloadSink()
  const now = Date.now() * 1_000
  const bench = new Bench({ time, warmupTime: time / 4, throws: true })
  const decodeAll = (): void => {
    writer.reset()
    for (const bytes of payloads) {
      sink.open(series, writer, now, now)
      codec.decode(bytes, 0, bytes.length, sink)
      sink.finish()
    }
    if (writer.count !== variants * each.readings) throw new Error(`${writer.count} rows came out`)
  }
  const parseAll = (): void => {
    for (const bytes of payloads) JSON.parse(bytes.utf8Slice(0, bytes.length))
  }
  const tasks = [() => bench.add('decode', decodeAll), () => bench.add('parse', parseAll)]
  for (const add of decodeFirst ? tasks : tasks.reverse()) add()
  await bench.run()
  const rateOf = (name: string): number => {
    const { result } = bench.getTask(name)!
    if (result.state !== 'completed') throw new Error(`${name} did not complete`)
    return result.throughput.mean * variants
  }
  return { decode: rateOf('decode'), parse: rateOf('parse') }
}
