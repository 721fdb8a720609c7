// How far long work has come: one line on a terminal's stderr, drawn over itself. Also where a stop that was asked for ends the work.
import { type CommandWorld, StoppedError } from './command.ts'

/** An empty name ends the line. */
export type Progress = (name: string, done: number, of: number) => void

const drawEveryMs = 100
const barWidth = 30

/** `whenStopped`: the sentence for whoever stopped it. */
export function progressOn({ terminal, stop }: CommandWorld, whenStopped: string): Progress {
  let drawnAt = Number.NEGATIVE_INFINITY
  return (name, done, of) => {
    if (stop.aborted && name !== '') throw new StoppedError(whenStopped)
    if (!terminal) return
    const now = performance.now()
    if (name === '') process.stderr.write('\r\x1b[K')
    else if (now - drawnAt > drawEveryMs) {
      drawnAt = now
      const share = Math.min(1, done / Math.max(of, 1))
      const bar = '█'.repeat(Math.round(share * barWidth)).padEnd(barWidth, '░')
      process.stderr.write(`\r\x1b[K${name} ${bar} ${Math.floor(share * 100)} % (${done} of ${of})`)
    }
  }
}
