// What does detection cost the devices? The same load on all roles, and on all but the detector; and how long detection needs to catch up.
import { reportDisk } from './disk.ts'
import { type Benchmark, interleave } from './harness.ts'
import { measureWeir, shapeOf } from './ingest.ts'
import { shapeSettings } from './load-process.ts'

const secondsDefault = 5
const ratioMin = 0.9

export const detectionLoad: Benchmark = {
  name: 'detection-load',
  question: 'readings a second, durable and in the table, with detection and without',
  async run(options, report) {
    const shape = shapeOf(options)
    const seconds = options.seconds ?? secondsDefault
    reportDisk(report)
    report.setting('traffic', `MQTT QoS 1, ${shapeSettings[shape].words}, 105-byte JSON, ${seconds} s a side and round`)
    const side = (name: string, roles: readonly string[]) => ({
      name,
      measure: (round: number) => measureWeir(roles, shape, seconds, round, report),
    })
    const rounds = await interleave(
      side('detection on ', ['ingest', 'writer', 'detector', 'api']),
      side('detection off', ['ingest', 'writer', 'api']),
      options.rounds,
      report,
    )
    const of = (which: 'a' | 'b', name: string): number[] => rounds.map((round) => round[which].figures[name]!)
    for (const name of ['acked/s', 'table/s', 'serve µs', 'detected s after'])
      report.figure(`on: ${name}`, of('a', name))
    for (const name of ['acked/s', 'table/s', 'serve µs']) report.figure(`off: ${name}`, of('b', name))
    const ratio = (name: string): number[] => rounds.map(({ a, b }) => a.figures[name]! / b.figures[name]!)
    report.ratio(`${shape}: acked, on ÷ off`, ratio('acked/s'))
    report.ratio(`${shape}: table, on ÷ off`, ratio('table/s'), { min: ratioMin })
    if (of('a', 'detected s after').includes(Number.POSITIVE_INFINITY)) report.fail('detection did not catch up')
  },
}
