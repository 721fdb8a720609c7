// The pipeline's stages and its rate, moving: what the overview and the pipeline page have in common.
import { formatCount, formatRate, lagText, orDash, sparkPoints, sparkRead, stageState } from './format.js'
import { say } from './page.js'

const rateWindowMs = 120_000

/** @param {string} name @param {string} text */
export function setNumber(name, text) {
  say(document.querySelector(`[data-number="${name}"]`), text)
}

/** The path strip, and the rate with its line. @param {import('../../api/wire.ts').PipelineAnswer} pipeline */
export function showStages({ at, stages, unknown }) {
  for (const [name, stage] of Object.entries(stages)) {
    const item = document.querySelector(`#path [data-stage="${name}"]`)
    if (!(item instanceof HTMLElement)) continue
    item.dataset.state = stageState(stage)
    item.title = unknown[/** @type {keyof typeof unknown} */ (item.dataset.teller)] ?? ''
    say(item.querySelector('[data-part="rate"]'), orDash(stage.perSecond, formatRate))
    say(item.querySelector('[data-part="lag"]'), lagText(stage))
    say(item.querySelector('[data-part="total"]'), orDash(stage.total, formatCount))
  }
  const whys = [...new Set(Object.values(unknown).filter((why) => why !== null))]
  const said = document.getElementById('unknown')
  if (said) {
    said.hidden = whys.length === 0
    say(said, whys.join(' '))
  }
  setNumber('rate', orDash(stages.received.perSecond, formatRate))
  if (stages.received.perSecond !== null) growRate(at, stages.received.perSecond)
}

/** @type {{ times: number[], values: number[] } | undefined} */
let rate
/** @param {number} at @param {number} value */
function growRate(at, value) {
  const svg = document.getElementById('rate-spark')
  if (!svg) return
  rate ??= readSpark(svg)
  rate.times.push(at)
  rate.values.push(value)
  while (rate.times.length > 0 && /** @type {number} */ (rate.times[0]) < at - rateWindowMs) {
    rate.times.shift()
    rate.values.shift()
  }
  const frame = { from: at - rateWindowMs, to: at, min: 0, max: Math.max(...rate.values, 1e-9) }
  svg.querySelector('polyline')?.setAttribute('points', sparkPoints(rate.times, rate.values, frame))
}

/** @param {Element} svg */
export function readSpark(svg) {
  const number = (/** @type {string} */ name) => Number(svg.getAttribute(`data-${name}`))
  const frame = { from: number('from'), to: number('to'), min: number('min'), max: number('max') }
  return sparkRead(svg.querySelector('polyline')?.getAttribute('points') ?? '', frame)
}
